import json
from pathlib import Path
from typing import Any

import pytest

from coi_jax import cli
from coi_jax.generate import describe, main
from tests.trained_runs import make_run

FOUND: dict[str, Any] = {
    "steps": [{"instruction": "Sort.", "output": "a b"}, {"instruction": None, "output": "2"}],
    "well_formed": True, "complete": True, "longer_than_trained": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made")).path


def generate(run: Path, *options: str) -> int:
    return cli.run(lambda: main(["--workdir", str(run), *options]))


def test_json_has_the_steps(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(run, "--instruction", "Sort. and then Count.", "--input", "b a", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"][0]["instruction"] == "Sort."
    assert {"text", "complete", "well_formed", "checkpoint"} <= set(found)
    assert found["checkpoint"].startswith("3-")


def test_text_is_for_people(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(run, "--instruction", "Sort. and then Count.", "--input", "b a") == 0
    assert capsys.readouterr().out.startswith("1. Sort.\n")


def test_description_shows_every_step() -> None:
    assert describe(FOUND).splitlines() == ["1. Sort.", "   a b", "2. (a step that was not asked for)", "   2"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("well_formed", False, "labels"), ("complete", False, "max_new_tokens"), ("longer_than_trained", True, "longer")],
)
def test_description_says_what_is_amiss(field: str, value: bool, said: str) -> None:
    assert said in describe(FOUND | {field: value}).splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--instruction= "], "instruction"),
        (["--instruction=Sort.", "--config.evaluation.prompting=cot"], "prompting=direct"),
        (["--instruction=Sort.", "--config.seed=2"], "config.seed"),
    ],
)
def test_mistakes_are_one_line(run: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert generate(run, *options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
