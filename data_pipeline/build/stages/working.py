"""LLM stages: a teacher works chains with a strategy, for the variants `erased` and `kept` (Mitra et al. 2023).

Each strategy is a stage of its own, with a prompt `work_NAME.toml`. Worked answers that differ from the reference are
rejected. The reference of procedural operations is computed; of other chains it is what the build wrote.
"""

import functools
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from coi_jax.chains.chain import JOINER, Step
from coi_jax.evaluation.rouge import rouge_l_unicode
from coi_jax.llm import Answered
from coi_jax.llm.calls import estimate_tokens
from data_pipeline.build.asking.ask_transform import Result
from data_pipeline.build.asking.questions import Question, ReplyForm, Text, prompt
from data_pipeline.build.build_config import BuildConfig
from data_pipeline.build.drafts import Draft
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Row
from data_pipeline.procedural import catalogue
from data_pipeline.procedural.verification import execute

VARIANTS = ("erased", "kept")  # of a build, that are made of worked answers
STAGE = "worked_"  # before the strategy, in the names of stages
OTHER_PARTS = "a worked answer of other parts than its strategy has"
WRONG_ANSWER = "the final answer is not that of the reference"
WRONG_STEP = "an earlier step is not that of the reference"
OVERHEAD_TOKENS = 12  # of a reply's JSON


class Worked(ReplyForm):
    """A worked answer: what the strategy writes first, and the final answer."""

    work: tuple[Text, ...]
    answer: Text


@dataclass(frozen=True)
class Work(Question):
    """Ask for a worked answer to a whole chain, with one strategy.

    Attributes:
      first: what the part before the answer is told to be, in the steps of the answer; "" where there is none.
    """

    form = Worked
    first: ClassVar[str] = ""
    instruction: str
    input: str

    def estimate_reply_tokens(self) -> float:
        """Estimate the tokens of the reply: as many as the input has, in parts and answer together."""
        return OVERHEAD_TOKENS + estimate_tokens(self.input)

    def computed_reply(self) -> Worked | None:
        """Return the answer that the operations give, worked with the strategy; None where one gives nothing."""
        instructions = self.instruction.split(JOINER)
        outputs = _execute(instructions, self.input)
        if None in outputs:
            return None
        texts = [output for output in outputs if output is not None]
        return Worked(work=tuple(self.computed_work(instructions, texts)), answer=texts[-1])

    def computed_work(self, instructions: Sequence[str], outputs: Sequence[str]) -> Sequence[str]:
        """Return the parts before the answer, for operations.

        Args:
          instructions: of the steps.
          outputs: that they give.
        """
        return []

    @classmethod
    def steps(cls, draft: Draft) -> tuple[Step, ...]:
        """Return the steps that an answer of the strategy to a chain has, without outputs."""
        last = draft.steps[-1]
        answer = Step(draft.chain("").instruction, None, last.category, last.task)
        return (Step(cls.first, None), answer) if cls.first else (answer,)


class StepByStep(Work):
    """Ask for the output of each step."""

    prompt = "work_step_by_step"

    def computed_work(self, instructions: Sequence[str], outputs: Sequence[str]) -> Sequence[str]:
        """Return the outputs of all steps but the last."""
        return outputs[:-1]

    @classmethod
    def steps(cls, draft: Draft) -> tuple[Step, ...]:
        """Return the steps of the chain."""
        return draft.steps


class RecallThenAnswer(Work):
    """Ask for what is known of the matter, and the answer."""

    prompt, first = "work_recall_then_answer", "Recall what the task calls for."

    def computed_work(self, instructions: Sequence[str], outputs: Sequence[str]) -> Sequence[str]:
        """Return the operations that are asked for."""
        return [" ".join(instructions)]


class ExtractThenAnswer(Work):
    """Ask for the parts of the input that matter, and the answer."""

    prompt, first = "work_extract_then_answer", "Extract the parts of the input that the task turns on."

    def computed_work(self, instructions: Sequence[str], outputs: Sequence[str]) -> Sequence[str]:
        """Return what the last operation is given."""
        return [[self.input, *outputs][-2]]


class Direct(Work):
    """Ask for the answer alone."""

    prompt = "work_direct"


# In the order in which a right answer is taken, where that of the category's own strategy is not right.
STRATEGIES: dict[str, type[Work]] = {
    "step_by_step": StepByStep,
    "recall_then_answer": RecallThenAnswer,
    "extract_then_answer": ExtractThenAnswer,
    "direct": Direct,
}


class Setting(NamedTuple):
    """What the stages need of the config and of `strategies.toml`."""

    tries_all: bool
    least_rouge_l: float | None
    default: str
    by_category: dict[str, str]

    def strategy(self, category: str | None) -> str:
        """Return the strategy of a category."""
        return self.by_category.get(category or "", self.default)


@functools.cache
def _table() -> dict[str, Any]:
    path = Path(__file__).parents[1] / "strategies.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def is_enabled(config: BuildConfig) -> bool:
    """Return whether a build has variants that are made of worked answers."""
    return not {*VARIANTS}.isdisjoint(config.variants)


def setting(config: BuildConfig) -> Setting:
    """Return what the stages need of a config."""
    erasure, table = config.erasure, _table()
    return Setting(erasure.strategies == "all", erasure.least_rouge_l, table["default"], table["categories"])


def is_asked(strategy: str, row: Row, setting: Setting) -> bool:
    """Return whether a chain is worked with a strategy: one of several steps, whose category has it, or all.

    Args:
      strategy: a name in `STRATEGIES`.
      row: the chain.
      setting: of the build.
    """
    chosen = setting.tries_all or setting.strategy(row["steps"][-1]["category"]) == strategy
    return chosen and len(row["steps"]) > 1


def question(strategy: str, row: Row) -> Question:
    """Return the question about a chain with a strategy."""
    draft = Draft.from_row(row)
    return STRATEGIES[strategy](draft.chain("").instruction, draft.input)


def take(strategy: str, row: Row, answer: Answered[Worked], setting: Setting) -> list[Result]:
    """Return the worked answer with the chain's id; reject one that is not right.

    Args:
      strategy: a name in `STRATEGIES`.
      row: the chain.
      answer: to the question about it.
      setting: of the build.
    """
    draft, kind = Draft.from_row(row), STRATEGIES[strategy]
    outputs, steps = (*answer.value.work, answer.value.answer), kind.steps(draft)
    if fault := _fault(draft, steps, outputs, setting.least_rouge_l):
        return [(REJECTED, {"reason": fault, "row": row, "raw": list(outputs)})]
    category = draft.categories[-1]
    worked = {
        "id": draft.id,
        "category": category,
        "is_of_category": setting.strategy(category) == strategy,
        "steps": [asdict(step) | {"output": output} for step, output in zip(steps, outputs, strict=True)],
        "details": {
            "strategy": strategy,
            "prompt": prompt(kind.prompt).strategy,
            "prompt_version": prompt(kind.prompt).version,
            "replies": list(answer.keys),
        },
    }
    return [(OUT, worked)]


def _fault(draft: Draft, steps: Sequence[Step], outputs: Sequence[str], least_rouge_l: float | None) -> str | None:
    """Return why a worked answer is not right; None where it is."""
    if len(outputs) != len(steps):
        return OTHER_PARTS
    references = reference(draft)
    if not _is_match(references[-1], outputs[-1], least_rouge_l):
        return WRONG_ANSWER
    if len(steps) == draft.length and steps == draft.steps:
        pairs = zip(references, outputs, strict=True)
        return None if all(_is_match(*pair, least_rouge_l) for pair in pairs) else WRONG_STEP
    return None


def reference(draft: Draft) -> list[str | None]:
    """Return the right outputs of a chain: computed where all its tasks are operations, else those that it has."""
    operations = catalogue.by_name()
    if all(task in operations for task in draft.tasks):
        return _execute([operations[task].phrasings[0] for task in draft.tasks], draft.input)
    return [step.output for step in draft.steps]


def _execute(instructions: Iterable[str], text: str | None) -> list[str | None]:
    outputs = []
    for instruction in instructions:
        text = None if text is None else execute(instruction, text)
        outputs.append(text)
    return outputs


def _is_match(reference: str | None, output: str, least_rouge_l: float | None) -> bool:
    if reference is None or least_rouge_l is None:
        return reference == output
    return reference.split() == output.split() or rouge_l_unicode(reference, output) >= least_rouge_l


def choose(worked: Iterable[Row]) -> dict[str, Row]:
    """Return one right worked answer for each chain, by ids: of the category's strategy if that is among them."""
    order, chosen = list(STRATEGIES), dict[str, Row]()
    for row in sorted(worked, key=lambda row: (not row["is_of_category"], order.index(row["details"]["strategy"]))):
        chosen.setdefault(row["id"], row)
    return chosen
