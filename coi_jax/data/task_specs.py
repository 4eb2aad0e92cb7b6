"""The tasks behind arms and test sets, as plain data.

SeqIO tasks are made from a `TaskSpec` (`data_pipeline.tasks`), and the key of a token cache is computed from one.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from coi_jax.chains.dataset import read_manifest
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike
from coi_jax.config.run import RunConfig, VocabularyConfig
from coi_jax.data.arms import ARMS, find_arm
from coi_jax.data.test_sets import check_source, find_test_set


@dataclass(frozen=True)
class TaskSpec:
    """Rows of a dataset folder as inputs and targets: which rows, in which template, in which vocabulary.

    Attributes:
      name: of the task, and of its token cache.
      folder: the dataset folder.
      split: the split that holds the rows.
      length: takes chains of this length only; None takes all.
      template: a name in `prompts.TEMPLATES` or `prompts.CHATS`.
      prompting: "direct", or a name in `prompts.WORKED_ANSWERS`.
      vocabulary: turns the text into ids.
      system: the system prompt of conversations, if any.
    """

    name: str
    folder: str
    split: str
    length: int | None
    template: str
    prompting: str
    vocabulary: VocabularyConfig
    system: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        values = asdict(self) | {"vocabulary": self.vocabulary.model_dump()}
        if self.system is None:
            del values["system"]
        return values


def training_tasks(config: RunConfig) -> list[TaskSpec]:
    """Return one task for every chain length of the config's arm.

    Raises:
      UserError: the arm is unknown, or a prompting baseline, which is not tuned.
    """
    arm = find_arm(config.arm)
    if not arm.is_tuned:
        tuned = ", ".join(each.name for each in ARMS.values() if each.is_tuned)
        raise UserError("config.arm", config.arm, f"is prompted, not tuned; to train, choose one of {tuned}")
    split = arm.training_split(config.data.split)
    return [_make_spec(config, f"{split}_length{n}", split, n, arm.prompting) for n in arm.lengths]


def evaluation_task(config: RunConfig, name: str) -> TaskSpec:
    """Return the task of a test set, prompted as the config's arm is.

    Raises:
      UserError: there is no test set of that name, or no such arm.
    """
    test = find_test_set(name)
    return _make_spec(config, name, test.split, test.length, find_arm(config.arm).prompting)


def check_names(config: RunConfig) -> None:
    """Check the arm and the test sets of a config, so that a long run does not end in a misspelt name.

    Raises:
      UserError: there is no such arm, or no such test set; the nearest name is given.
    """
    find_arm(config.arm)
    for test in config.evaluation.tests:
        find_test_set(test, "config.evaluation.tests")


def check_sources(folder: PathLike, names: Iterable[str]) -> str:
    """Check that a dataset may have some test sets, and return its source.

    Args:
      folder: the dataset folder.
      names: of the test sets.

    Raises:
      UserError: there is no dataset, or a test set is for chains of another source.
    """
    source: str = read_manifest(folder, "config.data.folder")["source"]
    for name in names:
        check_source(name, source, folder)
    return source


def _make_spec(config: RunConfig, name: str, split: str, length: int | None, prompting: str) -> TaskSpec:
    data = config.data
    return TaskSpec(name, data.folder, split, length, data.template, prompting, config.vocabulary, data.chat.system)
