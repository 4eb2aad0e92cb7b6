"""The tasks behind arms and test sets, as plain data.

SeqIO tasks are made from a `TaskSpec` (`data_pipeline.tasks`), and the key of a token cache is computed from one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import MANIFEST, read_chains, read_manifest
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, as_path
from coi_jax.config.run import RunConfig, VocabularyConfig
from coi_jax.data.arms import ARMS, Arm, find_arm
from coi_jax.data.mixture import check_mixture
from coi_jax.data.prompts import stages_of
from coi_jax.data.step_weights import check_loss_on
from coi_jax.data.test_sets import check_source, find_test_set

# The variants whose chains have other lengths than those that they were made from, with the lengths that they may have
# besides: the answer alone to an instruction of several steps, and answers worked in the parts of a strategy.
OTHER_LENGTHS: dict[str, tuple[int, ...]] = {"final": (1,), "erased": (1, 2), "kept": (1, 2)}
ADDED_FIELDS = ("system", "lengths_of", "stage")  # of a task, since the first version of token caches


@dataclass(frozen=True)
class TaskSpec:
    """Rows of a dataset folder as inputs and targets: which rows, in which template, in which vocabulary.

    Attributes:
      name: of the task, and of its token cache.
      folder: the dataset folder.
      split: the split that holds the rows.
      length: takes chains of this length only; None takes all.
      template: a name in `prompts.TEMPLATES` or `prompts.CHATS`.
      prompting: "direct", or a name in `prompts.PROMPTINGS`.
      vocabulary: turns the text into ids.
      system: the system prompt of conversations, if any.
      lengths_of: the split of the chains that the rows were made from, which say their lengths; None: the rows do.
      stage: the call whose prompts these are, where the way of prompting has several; it is the first one.
    """

    name: str
    folder: str
    split: str
    length: int | None
    template: str
    prompting: str
    vocabulary: VocabularyConfig
    system: str | None = None
    lengths_of: str | None = None
    stage: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON values, without the fields that were added later where they are not set."""
        values = asdict(self) | {"vocabulary": self.vocabulary.model_dump()}
        return {key: value for key, value in values.items() if key not in ADDED_FIELDS or value is not None}

    @property
    def size(self) -> int:
        """Return the number of rows, by the dataset's manifest; 0 where it has no such split or length."""
        counts: dict[str, int] = read_manifest(self.folder, "config.data.folder")["counts"].get(self.split, {})
        if self.lengths_of is not None and counts:
            return sum(1 for _ in self.read_rows())
        return sum(counts.values()) if self.length is None else counts.get(str(self.length), 0)

    def read_rows(self) -> Iterator[Chain]:
        """Yield the chains of the task, in the file's order.

        Raises:
          UserError: a split cannot be read.
        """
        if self.lengths_of is None:
            yield from read_chains(self.folder, self.split, self.length)
            return
        made_from = {chain.id for chain in read_chains(self.folder, self.lengths_of, self.length)}
        for chain in read_chains(self.folder, self.split):
            if chain.id.rpartition("-")[0] in made_from:  # the id of a variant is that of its chain, and its name
                yield chain


def training_tasks(config: RunConfig) -> list[TaskSpec]:
    """Return one task for every chain length of the config's arm.

    Raises:
      UserError: the arm is unknown, or a prompting baseline, which is not tuned.
    """
    arm = find_arm(config.arm)
    if not arm.is_tuned:
        tuned = ", ".join(each.name for each in ARMS.values() if each.is_tuned)
        raise UserError("config.arm", config.arm, f"is prompted, not tuned; to train, choose one of {tuned}")
    return [_training_task(config, arm, length) for length in arm.lengths]


def validation_tasks(config: RunConfig, split: str) -> list[TaskSpec]:
    """Return one task of a held-out split for every chain length of the config's arm that it has.

    Args:
      config: of the run.
      split: of the dataset.

    Raises:
      UserError: there is no dataset, or the split has no chain of the arm's lengths.
    """
    arm = find_arm(config.arm)
    specs = [_make_spec(config, f"{split}_length{n}", split, n, arm.prompting) for n in arm.lengths]
    if found := [spec for spec in specs if spec.size]:
        return found
    splits = read_manifest(config.data.folder, "config.data.folder")["counts"]
    has = f"has chains of the splits {', '.join(splits)}, none of lengths {', '.join(map(str, arm.lengths))} in this"
    way = f"hold chains back from training and write both: coi_jax.write_chains(folder, {{'train': …, {split!r}: …}})"
    hint = f"{config.data.folder} {has}; {way}; or name another split, or set config.train.validation=None"
    raise UserError("config.train.validation.split", split, hint)


def _training_task(config: RunConfig, arm: Arm, length: int) -> TaskSpec:
    """Return the task of the chains of a length; variants have the single instructions of the training split."""
    plain = config.data.split
    if arm.variant is None or length == 1:
        return _make_spec(config, f"{plain}_length{length}", plain, length, arm.prompting)
    split = find_variant(config.data.folder, plain, arm.variant)
    spec = _make_spec(config, f"{split}_length{length}", split, length, arm.prompting)
    return replace(spec, lengths_of=plain) if arm.variant in OTHER_LENGTHS else spec


def find_variant(folder: PathLike, split: str, variant: str) -> str:
    """Return the split of a variant: `train_irrelevant` of a built dataset, or `irrelevant` of the paper's release.

    Args:
      folder: the dataset folder.
      split: the split that the variant is of.
      variant: its name.
    """
    built = f"{split}_{variant}"
    if not (as_path(folder) / MANIFEST).exists():
        return built
    splits = read_manifest(folder, "config.data.folder")["counts"]
    return variant if variant in splits and built not in splits else built


def evaluation_task(config: RunConfig, name: str) -> TaskSpec:
    """Return the task of a test set, prompted as the config's arm is.

    Raises:
      UserError: there is no test set of that name, or no such arm.
    """
    test = find_test_set(name)
    prompting = find_arm(config.arm).prompting
    first, *others = stages_of(prompting)
    spec = _make_spec(config, name, test.split, test.length, prompting)
    return replace(spec, lengths_of=test.lengths_of, stage=first.name if others else None)


def question_task(config: RunConfig, length: int) -> TaskSpec:
    """Return the task of one question of some steps, which is of no dataset, prompted as the config's arm is.

    Raises:
      UserError: there is no such arm.
    """
    return _make_spec(config, "question", config.data.split, length, find_arm(config.arm).prompting)


def available_tests(config: RunConfig) -> list[str]:
    """Return those of the config's test sets that its dataset has rows of; none where it cannot be read."""
    try:
        source = read_manifest(config.data.folder, "config.data.folder")["source"]
        return [test for test in config.evaluation.tests if _is_available(config, test, source)]
    except UserError:
        return []


def _is_available(config: RunConfig, test: str, source: str) -> bool:
    try:
        check_source(test, source, config.data.folder)
    except UserError:
        return False
    return evaluation_task(config, test).size > 0


def check_names(config: RunConfig) -> None:
    """Check names, so that a long run does not end in a misspelt one, and what the config says of chain lengths.

    Raises:
      UserError: there is no such arm, or no such test set (the nearest name is given), or the mixture or the loss do
        not fit the arm.
    """
    arm = find_arm(config.arm)
    check_mixture(config)
    check_loss_on(config.train.loss_on, _written_lengths(arm))
    for test in config.evaluation.tests:
        find_test_set(test, "config.evaluation.tests")


def _written_lengths(arm: Arm) -> set[int]:
    """Return the numbers of steps that the answers of an arm's chains may have."""
    others = OTHER_LENGTHS.get(arm.variant or "", ())
    return {*others, *(() if arm.variant == "final" else arm.lengths)}


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
