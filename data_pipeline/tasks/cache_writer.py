"""Write the token caches of tasks: the examples that SeqIO makes, as ids in ArrayRecord files."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from coi_jax.chains.dataset import read_chains, read_manifest
from coi_jax.common import files
from coi_jax.common.errors import UserError, nearest
from coi_jax.common.progress import track
from coi_jax.common.storage import PathLike, atomic_folder, check_not_kept, local_writer
from coi_jax.common.wording import count_of
from coi_jax.config.run import RunConfig
from coi_jax.data.arms import ARMS, find_arm
from coi_jax.data.prompts import is_complete
from coi_jax.data.task_specs import TaskSpec, available_tests, evaluation_task, training_tasks, validation_tasks
from coi_jax.data.test_sets import TEST_SETS
from coi_jax.data.token_cache import (
    INFO,
    LENGTHS,
    RECORDS,
    cache_content,
    cache_folder,
    count_rows,
    mixture_content,
    mixture_path,
    open_cache,
    pack_record,
)
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.vocabulary import load_vocabulary
from data_pipeline.tasks.quiet_tensorflow import tf  # before all that imports TensorFlow
from data_pipeline.tasks.sentencepiece_training import ensure_trained
from data_pipeline.tasks.seqio_tasks import make_mixture, make_task

# One record a chunk reads fastest at random; the ids of one example compress too little to be worth the time.
WRITER_OPTIONS = "group_size:1,uncompressed"


def write(config: RunConfig, names: Sequence[str], vocabulary_copy: PathLike | None = None) -> list[epath.Path]:
    """Write the caches of some tasks where they are missing, and the mixtures of the arms; return the folders.

    Args:
      config: the run's.
      names: of training tasks ("train_length2") and test sets ("coi2_test").
      vocabulary_copy: a run's own copy of its vocabulary.

    Raises:
      UserError: a task is unknown or has no rows, the dataset or vocabulary cannot be read, or the folder of the caches
        is that of a dataset or a run.
    """
    check_not_kept(config.data.cache_folder, "config.data.cache_folder")
    if config.vocabulary.kind == "trained" and vocabulary_copy is None:
        vocabulary_copy = ensure_trained(config)
    vocabulary = load_vocabulary(config, vocabulary_copy)
    specs = [_spec(config, name) for name in names]
    for spec in _training(config):
        if spec in specs and open_cache(*cache_folder(config, spec, vocabulary)) is None:
            check_outputs(spec)
    folders = [_write_task(config, spec, vocabulary) for spec in specs]
    for arm in dict.fromkeys([*ARMS, config.arm]):
        _write_mixture(config.model_copy(update={"arm": arm}), vocabulary)
    return folders


def check_outputs(spec: TaskSpec) -> None:
    """Raise UserError where a chain of a task has a step without an output: a model would learn to answer nothing."""
    bare = [chain.id for chain in spec.read_rows() if not is_complete(chain)]
    if bare:
        hint = f"{count_of(len(bare), 'chain')} of the task, as {bare[0]!r}, lacks the output of a step"
        raise UserError(spec.name, f"{spec.folder}/{spec.split}.jsonl", f"{hint}; fill it in, or leave the chain out")


def _training(config: RunConfig) -> list[TaskSpec]:
    """Return the tasks that training reads: those of the arm, and those of the validation split."""
    if not find_arm(config.arm).is_tuned:
        return []
    validation = config.train.validation
    return [*training_tasks(config), *(validation_tasks(config, validation.split) if validation else [])]


def _spec(config: RunConfig, name: str) -> TaskSpec:
    training = {spec.name: spec for spec in _training(config)}
    if name not in training and name not in TEST_SETS:
        raise UserError("--tasks", name, nearest(name, [*training, *TEST_SETS]))
    return training[name] if name in training else evaluation_task(config, name)


def _write_task(config: RunConfig, spec: TaskSpec, vocabulary: Vocabulary) -> epath.Path:
    rows = count_rows(spec)
    folder, key = cache_folder(config, spec, vocabulary)
    if open_cache(folder, key):
        return folder
    _check_replaceable(folder)

    def is_damaged(_: epath.Path) -> bool:  # else another process was first, whose cache is as good and stays
        return open_cache(folder, key) is None

    with atomic_folder(folder, marker=INFO, field="config.data.cache_folder", replace=is_damaged) as partial:
        examples = track(_examples(config, spec, vocabulary), f"tokens of {spec.name}", rows)
        with local_writer(partial / RECORDS) as path:
            lengths = _write_records(path, examples)
        _write_array(partial / LENGTHS, lengths)
        info = cache_content(partial, key, lengths) | {
            "ids": lengths.sum(0).tolist(),
            "vocabulary": vocabulary.name,
            "task": spec.to_dict(),
        }
        files.write_json(partial / INFO, info)
    if not open_cache(folder, key):
        raise UserError("token cache", folder, "could not be written; remove what stands there and run again")
    return folder


def _check_replaceable(folder: epath.Path) -> None:
    """Raise UserError where a folder holds anything but the files of a (damaged) cache."""
    if folder.exists() and not folder.is_dir():
        raise UserError("token cache", folder, "is a file; remove it and run again")
    unknown = {path.name for path in folder.iterdir()} - {RECORDS, LENGTHS, INFO} if folder.exists() else set()
    if unknown:
        raise UserError("token cache", folder, f"holds {min(unknown)}, which is not of a cache; move it and run again")


def _write_array(path: epath.Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    files.write_bytes(path, buffer.getvalue())


def _examples(config: RunConfig, spec: TaskSpec, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    """Yield what the SeqIO task makes of the rows, in their order."""
    dataset = make_task(config, spec, vocabulary).get_dataset(split=spec.split, shuffle=False)
    try:
        yield from dataset.as_numpy_iterator()
    except tf.errors.OpError:
        # TensorFlow wraps what reading a row raised; reading the rows without it raises that plainly.
        for _ in read_chains(spec.folder, spec.split):
            pass
        raise


def _write_records(path: PathLike, examples: Iterator[dict[str, Any]]) -> np.ndarray:
    """Write the examples; return their numbers of input and target ids, [examples, 2]."""
    writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
    lengths = []
    try:
        for example in examples:
            writer.write(pack_record(example["inputs"], example["targets"], example["chain"]))
            lengths.append((len(example["inputs"]), len(example["targets"])))
    finally:
        try:
            writer.close()
        except RuntimeError as error:
            raise UserError("config.data.cache_folder", path, f"{error}; make room and run again") from None
    return np.array(lengths, np.int32).reshape(-1, 2)


def _write_mixture(config: RunConfig, vocabulary: Vocabulary) -> None:
    """Write the SeqIO mixture of an arm, its caches with their rates, once they are all there."""
    specs = training_tasks(config) if find_arm(config.arm).is_tuned else []
    splits = read_manifest(config.data.folder)["counts"]
    if not specs or any(spec.split not in splits for spec in specs):
        return
    folders = [cache_folder(config, spec, vocabulary) for spec in specs]
    if not all(open_cache(*folder) for folder in folders):
        return
    tasks = [make_task(config, spec, vocabulary) for spec in specs]
    mixture = make_mixture(config.arm, tasks)
    rows = [
        {"name": task.name, "rate": mixture.get_rate(task), "folder": folder.name, "hash": key}
        for task, (folder, key) in zip(tasks, folders, strict=True)
    ]
    files.write_json(mixture_path(config, [key for _, key in folders]), mixture_content(config.arm, rows))


def needed(config: RunConfig) -> list[str]:
    """Return the names of a config's tasks: those that training reads, and the test sets that the dataset has."""
    return [*(spec.name for spec in _training(config)), *(available_tests(config) or config.evaluation.tests)]
