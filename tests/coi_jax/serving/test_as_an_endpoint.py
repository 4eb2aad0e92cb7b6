"""The server asked by the client with which builds and judges ask."""

import dataclasses
from pathlib import Path

import pytest

from coi_jax.llm import Rejected, ask
from tests.helpers.llm_clients import Output, call, client
from tests.helpers.servers import LIMITS, Server, running_server
from tests.helpers.trained_runs import make_run


@pytest.mark.parametrize("structured", ["json_schema", "text"])
def test_a_form_that_is_not_constrained_is_asked_for_in_words(tmp_path: Path, structured: str) -> None:
    """The reply of random weights is no JSON, and is rejected with what was written."""
    run = Path(make_run(tmp_path).path).rename(tmp_path / "m")  # as the call names the model
    limits = dataclasses.replace(LIMITS, new_tokens=60)
    with running_server(run, limits=limits) as server:
        found = answer(server, tmp_path, structured)
        too_long = answer(server, tmp_path, structured, "w " * 500)
    assert isinstance(found, Rejected)
    assert found.reason.startswith("not of the wanted form: "), found
    assert found.usage.completion_tokens > 0
    assert isinstance(too_long, Rejected)
    assert "reads at most" in too_long.reason, "and not that the format is unknown"


def answer(server: Server, folder: Path, structured: str, text: str = "a") -> object:
    with client(f"{server.url}/v1", folder, structured=structured) as made:
        return made.run(ask(made, call(text), Output)).result()
