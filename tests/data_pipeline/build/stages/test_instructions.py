from coi_jax.llm import Answered
from data_pipeline.build import rules
from data_pipeline.build.asking.questions import Instruction
from data_pipeline.build.drafts import Instance, Seed
from data_pipeline.build.engine.stage_runner import OUT, REJECTED
from data_pipeline.build.stages import assumed_tasks, categories, instructions


def row(name: str, category: str | None = None) -> dict[str, object]:
    given = (Instance("a", "in", "out"),)
    return Seed(name, "s", "l", name, "train", category, f"Define {name}.", "", (), "", False, given).row()


def test_a_forecast_spreads_tasks_without_a_category_and_leaves_the_others() -> None:
    found = [assumed_tasks.assumed(row(f"task{number}")) for number in range(500)]
    assert {one["category"] for one in found} == set(rules.load().categories)
    assert found == [assumed_tasks.assumed(row(f"task{number}")) for number in range(500)]
    assert assumed_tasks.assumed(row("a", "Summarization"))["category"] == "Summarization"
    assert found[0]["instruction"] == "Define task0."


def test_answers_become_categories_and_instructions() -> None:
    reply = categories.Category(category="Summarization")
    ((tag, found),) = categories.take(row("a"), Answered(reply, ()), None)
    assert (tag, found["category"]) == (OUT, "Summarization")
    ((tag, found),) = instructions.take(row("a"), Answered(Instruction(instruction="Sum up."), ()), None)
    assert (tag, found["instruction"]) == (OUT, "Sum up.")


def test_an_instruction_that_looks_like_two_is_rejected() -> None:
    ((tag, found),) = instructions.take(row("a"), Answered(Instruction(instruction="Go and then stop."), ()), None)
    assert (tag, found["reason"]) == (REJECTED, "its instruction holds the words that join instructions")
