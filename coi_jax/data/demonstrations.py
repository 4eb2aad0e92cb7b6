"""Demonstrations: the chains with all their outputs that a prompting baseline shows before the question.

They are the user's own, from a JSON-lines file with the rows of a dataset (`evaluation.demonstrations`), or else
training chains, of the test set's own length if there are any. Where the dataset has none, as those of benchmarks,
they are the chains of this project's own file, `demonstrations.jsonl`.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import read_chains, read_manifest, split_path
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike
from coi_jax.common.wording import count_of
from coi_jax.config.run import RunConfig
from coi_jax.data.arms import find_arm
from coi_jax.data.prompts import SHOTS, choose_examples, is_complete
from coi_jax.data.task_specs import TaskSpec
from coi_jax.parallel import processes

OWN = Path(__file__).with_name("demonstrations.jsonl")
FIELD = "config.evaluation.demonstrations"


def find_demonstrations(config: RunConfig, spec: TaskSpec) -> list[Chain]:
    """Return the demonstrations of a task; none where it is prompted directly.

    Args:
      config: says which and how many they are.
      spec: the task.

    Raises:
      UserError: the file cannot be read, has a row that is no chain with all outputs, or has too few of them.
    """
    settings = config.evaluation
    if spec.prompting == "direct":
        return []
    if settings.demonstrations is not None:
        return read_demonstrations(settings.demonstrations, settings.shots)
    same_length = choose_examples(_training_chains(config, spec, spec.length), settings.shots)
    found = same_length or choose_examples(_training_chains(config, spec, None), settings.shots)
    if found and len(found) < settings.shots and settings.shots > SHOTS:  # fewer than the default are shown as they are
        hint = f"{spec.folder} has {len(found)} training chains with all outputs; give at most as many"
        raise UserError("config.evaluation.shots", settings.shots, hint)
    return found or read_demonstrations(OWN, settings.shots)


def check_file(config: RunConfig) -> None:
    """Read the demonstrations that a user named, if an arm shows any, to raise an error as `read_demonstrations`."""
    settings = config.evaluation
    if settings.demonstrations is not None and find_arm(config.arm).prompting != "direct":
        read_demonstrations(settings.demonstrations, settings.shots)


def note_unused(config: RunConfig, named: Collection[str]) -> None:
    """Say which settings of worked examples an arm does not use, because it shows none.

    Args:
      config: of the run, resolved.
      named: the fields that a command line sets, as "evaluation.shots".
    """
    if find_arm(config.arm).prompting != "direct":
        return
    used_in = {"evaluation.shots": False, "evaluation.demonstrations": config.evaluation.demonstrations is not None}
    for field in (field for field, is_set in used_in.items() if is_set or field in named):
        processes.log_primary(f"arm {config.arm} is shown no worked examples, so that {field} is not used")


def demonstrations_key(config: RunConfig, spec: TaskSpec) -> list[str | int]:
    """Return what the hash of a task's token cache has of its demonstrations; nothing where it is prompted directly.

    Args:
      config: says which and how many they are.
      spec: the task.
    """
    settings = config.evaluation
    if spec.prompting == "direct":
        return []
    if settings.demonstrations is None and any(map(is_complete, _training_chains(config, spec, None))):
        split = files.cached_sha256(split_path(spec.folder, config.data.split))
        return [split] if settings.shots == SHOTS else [split, settings.shots]
    return [files.digest([chain.row() for chain in find_demonstrations(config, spec)])]


def read_demonstrations(path: PathLike, shots: int) -> list[Chain]:
    """Return the first demonstrations of a file, all rows of which are checked.

    Args:
      path: of a JSON-lines file; a row is that of a dataset.
      shots: how many are returned.

    Raises:
      UserError: the file cannot be read, has a row that is no chain with all outputs, or has too few of them.
    """
    chains = [_read_row(place, row) for place, row in files.read_placed_jsonl(path, FIELD)]
    if not chains:
        raise UserError(FIELD, path, "is empty; write a chain on each line, with the row of a dataset")
    if len(chains) < shots:
        raise UserError(
            "config.evaluation.shots", shots, f"{path} has {count_of(len(chains), 'chain')}; give at most as many"
        )
    return chains[:shots]


def _read_row(place: str, row: dict[str, object]) -> Chain:
    try:
        chain = Chain.from_row(row)
    except UserError as error:
        raise UserError(FIELD, place, str(error)) from None
    if not is_complete(chain):
        step = chain.outputs.index(None) + 1
        raise UserError(FIELD, place, f"output of step {step} is null; a demonstration shows the output of every step")
    return chain


def _training_chains(config: RunConfig, spec: TaskSpec, length: int | None) -> Iterator[Chain]:
    """Yield the training chains of a task's dataset, of one length or of all; none where it has no such split."""
    if config.data.split in read_manifest(spec.folder, "config.data.folder")["counts"]:
        yield from read_chains(spec.folder, config.data.split, length)
