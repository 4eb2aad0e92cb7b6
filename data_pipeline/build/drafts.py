"""Seeds, which are tasks with a few instances each, and the drafts of chains that grow from them.

Stages exchange both as JSON objects, a line each; `row` and `from_row` convert them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from coi_jax.chains.chain import Chain, Step, join
from coi_jax.common import files


@dataclass(frozen=True)
class Instance:
    """An input of a task and its output."""

    id: str
    input: str
    output: str


@dataclass(frozen=True)
class Seed:
    """A task: one instruction, and instances of it.

    Attributes:
      id: unique; the `task` of its steps.
      source, licence: where it comes from.
      group: tasks of one group are of one split, as those made from the same data.
      split: "train" or "test"; "" until it is known.
      category: of a Super-NaturalInstructions task, or as close; None until it is known.
      definition: the instruction as the source words it.
      instruction: the short one that chains are made with; "" until it is known.
      takes, gives: kinds of text (`rules`), where the source knows them better than its category; else () and "".
      closed: whether its outputs are a few words again and again: such a task can only come last.
      instances: a few.
    """

    id: str
    source: str
    licence: str
    group: str
    split: str
    category: str | None
    definition: str
    instruction: str
    takes: tuple[str, ...]
    gives: str
    closed: bool
    instances: tuple[Instance, ...]

    def row(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Seed":
        """Read what `row` returns."""
        instances = tuple(Instance(**instance) for instance in row["instances"])
        return cls(**{**row, "takes": tuple(row["takes"]), "instances": instances})


@dataclass(frozen=True)
class Verdict:
    """A verdict on whether a step can follow the one before it, with the reason."""

    step: int  # counted from 1
    composable: bool
    reason: str


@dataclass(frozen=True)
class Opinion:
    """A second model's opinion of a whole chain."""

    valid: bool
    score: int  # 1 to 5
    wrong_step: int | None
    reason: str


@dataclass(frozen=True)
class Draft:
    """A chain under construction. The last step of a candidate has no output yet.

    Attributes:
      instance: of the first step's task.
      split: that all its tasks are of.
      categories: of its steps' tasks.
      verdicts: one for each step but the first.
    """

    instance: str
    split: str
    input: str
    steps: tuple[Step, ...]
    verdicts: tuple[Verdict, ...] = ()
    opinion: Opinion | None = None
    replies: tuple[str, ...] = field(default=())  # keys of the replies that it was made with

    @property
    def id(self) -> str:
        """Return a name that depends on the first instance and the tasks alone."""
        return f"coi-{files.digest([self.instance, self.tasks])[:12]}"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the tasks of its steps."""
        return tuple(step.task or "" for step in self.steps)

    @property
    def categories(self) -> tuple[str, ...]:
        """Return the categories of its steps."""
        return tuple(step.category or "" for step in self.steps)

    @property
    def length(self) -> int:
        """Return the number of steps."""
        return len(self.steps)

    def input_of(self, step: int) -> str:
        """Return the input of a step (counted from 1): exactly the output of the one before it."""
        output = self.input if step == 1 else self.steps[step - 2].output
        assert output is not None
        return output

    def repeats_earlier(self, text: str) -> bool:
        """Return whether a text equals, but for spaces, the input or the output of a step before the last."""
        earlier = [self.input, *(step.output or "" for step in self.steps[:-1])]
        return text.split() in [other.split() for other in earlier]

    def followed_by(self, seed: Seed) -> "Draft":
        """Return the candidate with one step more."""
        step = Step(seed.instruction, None, seed.category, seed.id)
        return replace(self, steps=(*self.steps, step), opinion=None)

    def judged(self, verdict: Verdict, replies: Sequence[str]) -> "Draft":
        """Return the draft with a verdict on its last step."""
        return replace(self, verdicts=(*self.verdicts, verdict), replies=(*self.replies, *replies))

    def answered(self, output: str, replies: Sequence[str]) -> "Draft":
        """Return the draft with the output of its last step."""
        last = replace(self.steps[-1], output=output)
        return replace(self, steps=(*self.steps[:-1], last), replies=(*self.replies, *replies))

    def chain(self, source: str) -> Chain:
        """Return the project's `Chain`."""
        return Chain(self.id, source, self.input, join([step.instruction for step in self.steps]), self.steps)

    def row(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Draft":
        """Read what `row` returns."""
        return cls(
            row["instance"],
            row["split"],
            row["input"],
            tuple(Step(**step) for step in row["steps"]),
            tuple(Verdict(**verdict) for verdict in row["verdicts"]),
            Opinion(**row["opinion"]) if row["opinion"] else None,
            tuple(row["replies"]),
        )


def single(seed: Seed, instance: Instance) -> Draft:
    """Return an instance as a chain of one step."""
    step = Step(seed.instruction, instance.output, seed.category, seed.id)
    return Draft(instance.id, seed.split, instance.input, (step,))
