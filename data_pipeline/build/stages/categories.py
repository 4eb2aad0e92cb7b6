"""LLM stage: give a category to every task whose source has none."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from coi_jax.llm import Answered
from data_pipeline.build.asking.ask_transform import Result
from data_pipeline.build.asking.questions import Question, ReplyForm
from data_pipeline.build.engine.stage_runner import OUT, Row
from data_pipeline.build.rules import load


class Category(ReplyForm):
    """A category of the rules."""

    category: Literal[tuple(load().categories)]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Categorize(Question):
    """Ask for the category of a task."""

    prompt, form, reply_tokens = "categorize", Category, 10
    definition: str
    input: str
    output: str

    def texts(self) -> dict[str, str]:
        """Return the fields, and the categories to choose from."""
        return asdict(self) | {"categories": "\n".join(load().categories)}


def has_no_category(row: Row, _: Any) -> bool:
    """Return whether a task has no category."""
    return row["category"] is None


def question(row: Row) -> Question:
    """Return the question about a task, with one of its instances."""
    instance = row["instances"][0]
    return Categorize(row["definition"], instance["input"], instance["output"])


def take(row: Row, answer: Answered[Category], _: Any) -> list[Result]:
    """Return the task with its category.

    Args:
      row: the task.
      answer: to the question about it.
      _: nothing of the config is needed.
    """
    return [(OUT, row | {"category": answer.value.category})]
