"""Worked answers: each strategy is asked, judged against the reference, and told how often it was right."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from coi_jax.chains.chain import Chain, Step, parse
from coi_jax.chains.dataset import read_chains, read_manifest
from coi_jax.common import files
from coi_jax.data.prompts import TEMPLATES, prompt
from coi_jax.data.task_specs import training_tasks
from coi_jax.evaluation import metrics
from coi_jax.llm import Answered
from data_pipeline import variants
from data_pipeline.build import config_loading, rules
from data_pipeline.build.asking import questions
from data_pipeline.build.asking.oracle import Oracle
from data_pipeline.build.asking.questions import Prompt
from data_pipeline.build.decisions import Decisions
from data_pipeline.build.drafts import Draft
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Incomplete, Row, Stage, StageRunner
from data_pipeline.build.llm_stages import LlmStage
from data_pipeline.build.pipeline import Build, Payment
from data_pipeline.build.stages import working
from data_pipeline.build.stages.working import STRATEGIES, Setting, Worked
from data_pipeline.procedural import catalogue
from tests.helpers.builds import ENVIRONMENT, endpoint, flags, run
from tests.helpers.llm_server import running
from tests.helpers.token_caches import small_config

FIRST, REVERSE = "Remove the first word.", "Reverse the order of the words."
strategies = pytest.mark.parametrize("strategy", STRATEGIES)
OPERATIONS = "remove_first_word,remove_last_word,reverse_words,sort_words"
SMALL = {
    "seeds.test_share": 0.0,
    "joins.lengths": "()",
    "pairs.instances_per_tasks": 3,
    "opinion.enabled": "False",
    "selection.singles": "False",
    "selection.per_categories": 20,
    "variants": "('erased','kept')",
    "erasure.strategies": "all",
}


def chain() -> Draft:
    steps = (
        Step(FIRST, "fig, kiwi", "deletion", "remove_first_word"),
        Step(REVERSE, "kiwi, fig", "reordering", "reverse_words"),
    )
    return Draft("i", "train", "pear, fig, kiwi", steps)


def setting(*, tries_all: bool = True, least_rouge_l: float | None = None) -> Setting:
    return Setting(tries_all, least_rouge_l, "step_by_step", {"reordering": "direct"})


def take(strategy: str, *outputs: str, **how: Any) -> tuple[str, Row]:
    *work, answer = outputs
    worked = Answered(Worked(work=tuple(work), answer=answer), ("key",))
    (found,) = working.take(strategy, chain().row(), worked, setting(**how))
    return found


def words(strategy: str) -> Prompt:
    return questions.prompt(STRATEGIES[strategy].prompt)


@strategies
def test_the_oracle_works_every_strategy_and_what_it_says_is_right(strategy: str) -> None:
    reply = Oracle().submit(working.question(strategy, chain().row())).result()
    assert isinstance(reply, Answered)
    ((tag, row),) = working.take(strategy, chain().row(), reply, setting())
    assert tag == OUT
    assert row["steps"][-1]["output"] == "kiwi, fig"
    assert row["details"]["strategy"] == strategy


@strategies
def test_the_teacher_is_told_the_strategy_and_only_the_kept_prompt_tells_it_the_student(strategy: str) -> None:
    reply = Oracle().submit(working.question(strategy, chain().row())).result()
    assert isinstance(reply, Answered)
    told = words(strategy).strategy
    assert questions.messages(working.question(strategy, chain().row()))[0].content.startswith(told)
    ((_, row),) = working.take(strategy, chain().row(), reply, setting())
    erased, kept = (variants.worked(kind, chain().chain("s"), row) for kind in working.VARIANTS)
    assert erased.targets == kept.targets
    assert parse(erased.targets) == erased.outputs
    for template in (*(name for name in TEMPLATES if name != "alpaca_no_input"), "chat"):
        shown = {made.id: prompt(made.instruction, made.input, template) for made in (erased, kept)}
        assert variants.GENERAL_PROMPT in shown[erased.id]
        assert told in shown[kept.id]
        assert told not in shown[erased.id]
    assert erased.details
    assert erased.details["prompt"] == told
    assert Chain.from_row(erased.row()) == erased


@pytest.mark.parametrize(
    ("strategy", "outputs", "fault"),
    [
        ("step_by_step", ("fig, kiwi", "kiwi, fig"), None),
        ("step_by_step", ("kiwi", "kiwi, fig"), working.WRONG_STEP),
        ("step_by_step", ("kiwi, fig",), working.OTHER_PARTS),
        ("recall_then_answer", ("Words are parted by commas.", "kiwi, fig"), None),
        ("extract_then_answer", ("fig, kiwi", "fig, kiwi"), working.WRONG_ANSWER),
        ("direct", ("kiwi, fig",), None),
        ("direct", ("kiwi fig",), working.WRONG_ANSWER),
        ("direct", ("fig, kiwi", "kiwi, fig"), working.OTHER_PARTS),
    ],
)
def test_a_worked_answer_is_kept_where_it_is_right(strategy: str, outputs: tuple[str, ...], fault: str | None) -> None:
    tag, row = take(strategy, *outputs)
    assert tag == (REJECTED if fault else OUT)
    assert row.get("reason") == fault
    if fault:
        assert row["raw"] == [*outputs]


def test_free_text_is_right_from_a_score_on() -> None:
    assert take("direct", "kiwi fig", least_rouge_l=1.0)[0] == OUT
    assert take("direct", "kiwi, fig and pear", least_rouge_l=0.9)[0] == REJECTED
    assert take("direct", "kiwi, fig and pear", least_rouge_l=0.6)[0] == OUT


def test_the_reference_of_operations_is_computed() -> None:
    wrong = Draft(
        "i", "train", "pear, fig, kiwi", (chain().steps[0], Step(REVERSE, "fig", "reordering", "reverse_words"))
    )
    assert working.reference(wrong) == ["fig, kiwi", "kiwi, fig"]
    other = Draft("i", "train", "x", (Step("Sing.", "la", None, "t1"), Step("Shout.", "LA", None, "t2")))
    assert working.reference(other) == ["la", "LA"]


def test_a_category_has_one_strategy_and_its_right_answer_is_taken_first() -> None:
    row = chain().row()
    one = setting(tries_all=False)
    assert [name for name in STRATEGIES if working.is_asked(name, row, one)] == ["direct"]
    assert [name for name in STRATEGIES if working.is_asked(name, row, setting())] == [*STRATEGIES]
    assert not working.is_asked("direct", row | {"steps": row["steps"][:1]}, setting())
    found = [take("step_by_step", "fig, kiwi", "kiwi, fig")[1], take("direct", "kiwi, fig")[1]]
    assert [row["details"]["strategy"] for row in working.choose(found).values()] == ["direct"]
    assert [row["details"]["strategy"] for row in working.choose(found[:1]).values()] == ["step_by_step"]


def test_a_worked_answer_is_scored_as_any_chain() -> None:
    _, row = take("step_by_step", "fig, kiwi", "kiwi, fig")
    made = variants.worked("erased", chain().chain("s"), row)
    targets = [metrics.target_of(one) for one in (made, chain().chain("s"))]
    one, other = (metrics.means(metrics.score_examples([target], [made.targets])) for target in targets)
    assert one == other


def test_the_table_of_strategies_names_categories_and_strategies_that_exist() -> None:
    table = working._table()
    known = {*rules.load().categories, *(operation.category for operation in catalogue.OPERATIONS)}
    assert set(table["categories"]) <= known
    assert {table["default"], *table["categories"].values()} == set(STRATEGIES)


class Unanswered(Build):
    """A build whose questions have no answer."""

    def _ask(self, entry: LlmStage, *_: Any, **__: Any) -> Stage:
        raise Incomplete(entry.name, f"folder of {entry.name}", {"not stored": 1})


@pytest.mark.parametrize("offline", [True, False])
def test_a_batch_asks_for_the_answers_of_all_strategies_at_once(offline: bool) -> None:
    config = config_loading.load("configs/build/procedural.py", {"variants": ("erased",)})
    selected = Stage("selection", "folder", "hash", {})
    build = Unanswered(config, StageRunner("stages", []), Payment("spending", None), Decisions(), offline=offline)
    with pytest.raises(Incomplete) as stopped:
        build._annotate(selected, selected)
    first, *others = [f"folder of {working.STAGE}{name}" for name in STRATEGIES]
    assert (stopped.value.folder, stopped.value.others) == (first, tuple(others) if offline else ())


def test_a_teacher_that_errs_is_measured_by_strategy_and_its_errors_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "built"
    with running(brain="erring_oracle") as server:
        argv = flags(out, None, f"--source=procedural:{OPERATIONS}", "--llm=endpoint", **endpoint(server.url) | SMALL)
        assert run([*argv, "--dry_run", "--json"]) == 0
        forecast = {line["stage"]: line for line in json.loads(capsys.readouterr().out)}
        assert run(argv) == 0
    totals = {row["strategy"]: row for row in read_manifest(out)["notes"]["strategies"] if row["category"] is None}
    assert set(totals) == set(STRATEGIES)
    rejected = Counter(row["stage"] for row in files.read_jsonl(out / "rejected.jsonl"))
    for strategy, row in totals.items():
        assert 0 < row["right"] <= row["right_answer"] <= row["asked"] <= forecast[f"worked_{strategy}"]["most_calls"]
        assert rejected[f"worked_{strategy}"] == row["asked"] - row["right"]
    assert sum(row["right_answer"] for row in totals.values()) < sum(row["asked"] for row in totals.values())
    page = (tmp_path / "built.work" / "report.html").read_text(encoding="utf-8")
    assert "How right each strategy was" in page
    pairs = list(zip(read_chains(out, "train_erased"), read_chains(out, "train_kept"), strict=True))
    assert pairs
    assert all(one.steps == other.steps and one.instruction != other.instruction for one, other in pairs)
    config = small_config(tmp_path, arm="coi2_erased", data__folder=str(out))
    (task,) = training_tasks(config)
    assert (task.split, task.size) == ("train_erased", len(pairs))
