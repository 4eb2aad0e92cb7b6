"""Procedural builds: computed answers, and a model's answers held against them."""

import json
from pathlib import Path
from typing import Any

import pytest

from coi_jax.chains.chain import Step
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
from data_pipeline.build.drafts import Draft
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Row, Stage, StageRunner
from data_pipeline.build.pipeline import Build, BuildResult, Payment
from data_pipeline.build.review import stage_accuracy
from data_pipeline.build.review.stage_accuracy import score
from data_pipeline.build.stages.answers import Answer
from data_pipeline.build.stages.categories import Categorize
from data_pipeline.build.stages.checks import NOT_COMPOSABLE, Check
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
    assert (found.precision, found.recall, found.total, found.agreed) == (0.75, 0.6, 20, 14)
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
    assert len(scores) == 12
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


def stage(folder: Path, name: str, rows: list[Draft], rejected: list[Row]) -> Stage:
    for tag, found in ((OUT, [row.row() for row in rows]), (REJECTED, rejected)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{tag}-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return Stage(name, str(folder / name), name, {OUT: len(rows), REJECTED: len(rejected)})


def test_a_model_that_words_instructions_in_its_own_way_is_measured_by_its_tasks(tmp_path: Path) -> None:
    def chain(task: str, output: str | None) -> Draft:
        first = Step("Drop what comes first, please.", "b, c", "deletion", "remove_first_word")
        return Draft("i", "train", "a, b, c", (first, Step("Turn it round.", output, "ordering", task)))

    right, wrong = chain("reverse_words", "c, b"), chain("count_words", "many")
    answers = stage(tmp_path, "answers-2", [right, wrong], [])
    assert score("answers", stage_accuracy._answers(answers)).precision == 0.5
    last = {"reason": NOT_COMPOSABLE, "row": chain("reverse_words", None).row()}
    checks = score("checks", stage_accuracy._checks(stage(tmp_path, "checks-2", [wrong], [last])))
    assert (checks.passed_right, checks.passed, checks.right, checks.agreed) == (1, 1, 2, 1)
    assert [stage_accuracy.is_right(one) for one in (right, wrong)] == [True, False]


def test_the_oracle_takes_no_other_tasks() -> None:
    with pytest.raises(UserError, match=r"^config: its fields do not fit together: .*give sources of that kind$"):
        config_loading.load("configs/build/super_ni.py", {"llm": "procedural"})
