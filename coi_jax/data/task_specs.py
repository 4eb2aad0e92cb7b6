"""The tasks behind arms and test sets, as plain data.

SeqIO tasks are made from a `TaskSpec` (`data_pipeline.tasks`), and so is what a token cache is addressed by.
"""

from dataclasses import asdict, dataclass
from typing import Any

from coi_jax.common.errors import UserError, nearest
from coi_jax.config.run import RunConfig, VocabularyConfig
from coi_jax.data.arms import ARMS
from coi_jax.data.test_sets import CHAIN_TEST, WHOLE_SPLITS


@dataclass(frozen=True)
class TaskSpec:
    """Rows of a dataset folder as inputs and targets: which rows, in which words, in which ids."""

    name: str
    folder: str
    split: str
    length: int | None  # chains of this length only; None takes all
    template: str
    prompting: str
    vocabulary: VocabularyConfig

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON values."""
        return asdict(self) | {"vocabulary": self.vocabulary.model_dump()}


def training_tasks(config: RunConfig) -> list[TaskSpec]:
    """One task for every chain length of the config's arm.

    Raises:
      UserError: the arm is a prompting baseline, which is not tuned.
    """
    if not ARMS[config.arm]:
        tuned = [arm for arm, lengths in ARMS.items() if lengths]
        raise UserError("config.arm", config.arm, f"is prompted, not tuned; to train, choose one of {', '.join(tuned)}")
    split = config.data.split
    return [_spec(config, f"{split}_length{n}", split, n, "direct") for n in ARMS[config.arm]]


def evaluation_task(config: RunConfig, name: str) -> TaskSpec:
    """The task of a test set: `coi2_test` and `proc2_test` are the rows of split `test` with two steps.

    Raises:
      UserError: there is no test set of that name.
    """
    prompting = config.evaluation.prompting
    if match := CHAIN_TEST.fullmatch(name):
        return _spec(config, name, "test", int(match[2]), prompting)
    if name in WHOLE_SPLITS:
        return _spec(config, name, name, None, prompting)
    known = [*(f"coi{n}_test" for n in range(2, 6)), *(f"proc{n}_test" for n in range(1, 7)), *WHOLE_SPLITS]
    raise UserError("test set", name, nearest(name, known))


def _spec(config: RunConfig, name: str, split: str, length: int | None, prompting: str) -> TaskSpec:
    return TaskSpec(name, config.data.folder, split, length, config.data.template, prompting, config.vocabulary)
