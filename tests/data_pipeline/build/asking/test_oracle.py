"""Procedural builds: computed answers, and a model's answers held against them."""

from pathlib import Path
from typing import Any

import pytest

from coi_jax.chains.dataset import read_manifest
from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.llm import Answered, Rejected
from data_pipeline.build import __main__ as build
from data_pipeline.build import config_loading
from data_pipeline.build.asking import oracle
from data_pipeline.build.asking.oracle import Oracle
from data_pipeline.build.asking.questions import Question
from data_pipeline.build.decisions import Decisions
from data_pipeline.build.engine.stage_runner import StageRunner
from data_pipeline.build.pipeline import Build, BuildResult, Payment
from data_pipeline.build.review import stage_accuracy
from data_pipeline.build.review.stage_accuracy import score
from data_pipeline.build.stages.answers import Answer
from data_pipeline.build.stages.categories import Categorize
from data_pipeline.build.stages.checks import Check
from data_pipeline.build.stages.fusing import Fuse
from data_pipeline.build.stages.instructions import Summarize
from data_pipeline.build.stages.opinions import Judge
from data_pipeline.procedural.verification import follow
from tests.helpers.builds import ENVIRONMENT, endpoint, flags, run
from tests.helpers.fake_llm import ERRORS
from tests.helpers.llm_server import running

REVERSE, FIRST = "Reverse the order of the words.", "Remove the first word."


def answered(question: Question) -> Any:
    found = Oracle().submit(question).result()
    assert isinstance(found, Answered)
    return found.value


def test_outputs_and_verdicts_are_computed() -> None:
    assert answered(Answer("", REVERSE, "pear, fig, apple")).output == "apple, fig, pear"
    assert answered(Check(FIRST, "a, b, c", "b, c", REVERSE)).composable
    assert not answered(Check(REVERSE, "a, b, c", "c, b, a", REVERSE)).composable  # it would give the input back
    assert not answered(Check("Count the words.", "a, b", "2", FIRST)).composable


def test_short_instructions_are_found_in_definitions() -> None:
    assert answered(Summarize(f"In this task you are given words. {FIRST} Write the result.")).instruction == FIRST


def test_opinions_name_the_first_step_that_is_wrong() -> None:
    right, wrong = (FIRST, "b, c"), (REVERSE, "b, c")
    assert answered(Judge("a, b, c", (right, (REVERSE, "c, b")))).valid
    said = answered(Judge("a, b, c", (right, wrong)))
    assert (said.valid, said.wrong_step) == (False, 2)
    assert follow([FIRST, REVERSE], "a, b, c", ["b, c", "b, c"]) == [True, False]


@pytest.mark.parametrize("question", [Fuse((FIRST, REVERSE)), Categorize("d", "i", "o"), Answer("", "Sing.", "x")])
def test_what_cannot_be_computed_is_rejected(question: Question) -> None:
    assert Oracle().submit(question).result() == Rejected(oracle.NO_ANSWER, ())


def test_scores_are_precision_and_recall() -> None:
    found = score("s", [(True, True)] * 6 + [(True, False)] * 2 + [(False, True)] * 4 + [(False, False)] * 8)
    assert (found.precision, found.recall, found.total) == (0.75, 0.6, 20)
    assert score("s", []).precision is None


def built(argv: list[str]) -> BuildResult:
    """The stages of a build that was made before."""
    rest, overrides = cli.split_overrides(argv)
    arguments, _ = build._parser().parse_known_args(rest)
    if arguments.llm:
        overrides["llm"] = arguments.llm
    config = config_loading.load(arguments.config, overrides)
    work = f"{arguments.out}.work"
    return Build(config, StageRunner(f"{work}/stages", []), Payment(f"{work}/spending", None), Decisions()).run()


def test_with_computed_answers_every_stage_is_right_but_the_rules(tmp_path: Path) -> None:
    argv = flags(tmp_path / "built", None, "--source=procedural:lists", **{"joins.lengths": "(3,4,5)"})
    assert run(argv) == 0
    scores = {one.stage: one for one in stage_accuracy.scores(built(argv))}
    assert len(scores) == 11
    for name, one in scores.items():
        if name == "rules":
            assert one.precision
            assert one.precision > 0.9
        elif one.total:
            assert one.precision == 1
            assert one.recall == 1 or name == "chains that are written"
    assert {len(row["steps"]) for row in files.read_jsonl(tmp_path / "built" / "train.jsonl")} == {1, 2, 3, 4, 5}
    assert read_manifest(tmp_path / "built")["licence"] == "Apache-2.0"


def test_a_model_that_errs_is_told_from_one_that_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with running(brain="erring_oracle") as server:
        argv = flags(
            tmp_path / "built",
            None,
            "--source=procedural:lists",
            "--llm=endpoint",
            **endpoint(server.url) | {"joins.lengths": "()"},
        )
        assert run(argv) == 0
        scores = {one.stage: one for one in stage_accuracy.scores(built(argv))}
    checks, answers = scores["checks, 2 steps"], scores["answers, 2 steps"]
    assert checks.recall == pytest.approx(1 - ERRORS, abs=0.07)
    assert answers.precision == pytest.approx(1 - ERRORS, abs=0.07)
    written = scores["chains that are written"].precision
    assert answers.precision
    assert written
    assert written > answers.precision  # a second opinion is worth its price


def test_the_oracle_takes_no_other_tasks() -> None:
    with pytest.raises(UserError, match=r"^config: its fields do not fit together: .*give sources of that kind$"):
        config_loading.load("configs/build/super_ni.py", {"llm": "procedural"})
