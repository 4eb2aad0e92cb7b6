import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import serve_load
from coi_jax.chains.chain import Chain
from coi_jax.inference.model import Model
from tests.helpers.trained_runs import make_run

offline = serve_load.answer_offline


def spoil_one(model: Model, chains: Sequence[Chain]) -> tuple[float, list[str]]:
    """The offline answers, the first of them changed."""
    speed, texts = offline(model, chains)
    return speed, [f"{texts[0]} changed", *texts[1:]]


def test_every_answer_is_checked_and_the_numbers_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_load, "answer_offline", spoil_one)
    run = make_run(tmp_path).path
    settings = ["--clients", "4", "--seconds", "1.5", "--chains", "6", "--config.evaluation.max_new_tokens=12"]
    assert serve_load.main(["--workdir", str(run), *settings]) == 1
    report = json.loads(capsys.readouterr().out)
    assert 0 < report["faults"] < report["answers"] / 3  # one of six
    assert all("changed" in fault for fault in report["first_faults"])
    assert 0 < report["first_token_ms"]["p50"] <= report["first_token_ms"]["p99"]
    assert report["memory_mib"]["end"] > 0
    assert report["share_of_offline"] > 0
