"""Token caches: a task's examples as ids, written once by `python -m data_pipeline.cache`, read here at random.

A cache is a folder `<task>-<hash>/` with the examples (ArrayRecord), their lengths, and `cache.json`. The hash is made
of all that the ids follow from, so a cache is never out of date: another dataset, vocabulary or preprocessing has
another name. A mixture is a file `mixture-<hash>.json` that names the caches of an arm with their mixing rates.

ArrayRecord reads local files alone: the records of a cache in a bucket are copied once into the user's cache folder.
"""

import functools
import hashlib
import importlib.util
import io
import os
import struct
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from etils import epath
from grain.sources import ArrayRecordDataSource
from jaxtyping import Int32

from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import read_manifest, split_path
from coi_jax.common import child_processes, files
from coi_jax.common.errors import UserError, nearest, one_line
from coi_jax.common.json_reader import parse_json
from coi_jax.common.storage import PathLike, as_path, check_not_kept, file_size, local_copy, open_input
from coi_jax.config.run import RunConfig
from coi_jax.data.arms import VARIANTS, find_arm
from coi_jax.data.demonstrations import demonstrations_key
from coi_jax.data.task_specs import TaskSpec, training_tasks
from coi_jax.parallel import processes
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.vocabulary import load_vocabulary, trained_path

ROOT = Path(__file__).parents[2]
# Raise it with every change that gives other ids for the same rows and vocabulary; tests/goldens/ids.json notices them.
PREPROCESSING_VERSION = 1
FORMAT = 1  # of a record

RECORDS, LENGTHS, INFO = "examples.array_record", "lengths.npy", "cache.json"
_HINT = "choose another arm or test set, or build such chains"
_HEADER = struct.Struct("<ii")  # numbers of input and target ids


Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Example:
    """A prompt and an answer as ids (the answer ends with the end id), and the chain they were made of."""

    inputs: Int32[np.ndarray, " inputs"]
    targets: Int32[np.ndarray, " targets"]
    chain: Chain


def pack_record(inputs: Int32[np.ndarray, " inputs"], targets: Int32[np.ndarray, " targets"], chain: bytes) -> bytes:
    """Pack an example into the bytes of a record.

    Args:
      inputs: ids of the prompt.
      targets: ids of the answer.
      chain: the chain's row as JSON.
    """
    ids = np.concatenate([inputs, targets]).astype("<i4")
    record: bytes = _HEADER.pack(len(inputs), len(targets)) + ids.tobytes() + chain
    return record


def _split_record(record: bytes) -> tuple[Int32[np.ndarray, " inputs"], Int32[np.ndarray, " targets"], bytes]:
    inputs, targets = _HEADER.unpack_from(record)
    if min(inputs, targets) < 0:
        raise ValueError(f"{inputs} and {targets} ids")
    ids = np.frombuffer(record, "<i4", inputs + targets, _HEADER.size).astype(np.int32, copy=False)
    return ids[:inputs], ids[inputs:], record[_HEADER.size + 4 * (inputs + targets) :]


def _read_example(record: bytes) -> Example:
    inputs, targets, chain = _split_record(record)
    return Example(inputs, targets, Chain.from_row(parse_json(chain)))


@dataclass(frozen=True)
class TokenCache:
    """A cache that has been written. Indexing is random access and may be done from any thread.

    Attributes:
      folder: of its files.
      hash: of all that it follows from.
      lengths: numbers of input and target ids of each example.
      rate: SeqIO's mixing rate of the task in its arm's mixture; the number of examples outside one.
    """

    folder: epath.Path
    hash: str
    lengths: Int32[np.ndarray, "examples 2"]
    rate: float

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def task(self) -> str:
        """The name of the task, as `train_length2`."""
        name: str = self.folder.name
        return name.rpartition("-")[0]

    @functools.cached_property
    def _records(self) -> ArrayRecordDataSource:
        return ArrayRecordDataSource(str(local_copy(self.folder / RECORDS, f"token_caches/{self.hash}.array_record")))

    def ids(self, indices: Sequence[int]) -> list[tuple[Int32[np.ndarray, "_"], Int32[np.ndarray, "_"]]]:
        """Read the input and target ids of some examples in one call; raise UserError where they are damaged."""
        return self._read(indices, lambda record: _split_record(record)[:2])

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.examples([index])[0]

    def examples(self, indices: Sequence[int]) -> list[Example]:
        """Read some examples in one call; raise UserError where they are damaged."""
        return self._read(indices, _read_example)

    def _read(self, indices: Sequence[int], parse: Callable[[bytes], Parsed]) -> list[Parsed]:
        try:
            return [parse(record) for record in self._records.__getitems__(indices)]
        except (RuntimeError, ValueError, OSError, struct.error) as error:
            reason = one_line(str(error), 160) or type(error).__name__
            hint = f"cannot be read ({reason}); if the disk is sound, remove this folder, and it is written again"
            raise UserError("token cache", self.folder, hint) from None


def open_or_write(
    config: RunConfig, specs: Sequence[TaskSpec], vocabulary_copy: PathLike | None = None
) -> list[TokenCache]:
    """Open the caches of some tasks, written first by a child process where one is missing or damaged.

    Args:
      config: names the folder of the caches, and the vocabulary.
      specs: the tasks, from `training_tasks` or `evaluation_task` of the same config.
      vocabulary_copy: a run's own copy of its vocabulary.

    Raises:
      UserError: the dataset is missing or has no row for a task, or the vocabulary cannot be read.
    """
    check_not_kept(config.data.cache_folder, "config.data.cache_folder")
    for spec in specs:
        count_rows(spec)
    processes.on_primary(lambda: _write_missing(config, specs, vocabulary_copy))
    caches = find(config, specs, vocabulary_copy)
    if caches is None:
        hint = "changed while it was read, or is not shared by all hosts; run again, or name another folder"
        raise UserError("config.data.cache_folder", config.data.cache_folder, hint)
    return caches


def _write_missing(config: RunConfig, specs: Sequence[TaskSpec], vocabulary_copy: PathLike | None) -> None:
    if find(config, specs, vocabulary_copy) is None:
        _write_in_child(config, specs, vocabulary_copy)


def count_rows(spec: TaskSpec) -> int:
    """Return the number of rows that a task has, by its dataset's manifest; raise UserError where it has none."""
    splits = read_manifest(spec.folder, "config.data.folder")["counts"]
    if spec.split not in splits:
        hint = f"split {spec.split} is {nearest(spec.split, [*splits])}; {_HINT}"
        raise UserError(spec.name, spec.folder, hint)
    split_path(spec.folder, spec.split, "config.data.folder")
    rows = spec.size
    if not rows:
        counts: dict[str, int] = splits[spec.split]
        has = ", ".join(n for n in counts if counts[n]) or "none"
        variant = spec.split.rpartition("_")[2]
        is_variant = spec.length == 1 and variant in VARIANTS
        hint = f"arm coi12_{variant} takes single instructions from the plain split" if is_variant else _HINT
        raise UserError(
            spec.name,
            f"{spec.folder}/{spec.split}.jsonl",
            f"has no chain of length {spec.length}, only of: {has}; {hint}",
        )
    return rows


def cache_folder(config: RunConfig, spec: TaskSpec, vocabulary: Vocabulary) -> tuple[epath.Path, str]:
    """Return the folder of a task's cache, and its hash.

    Args:
      config: names the folder of all caches.
      spec: the task.
      vocabulary: that its ids are of.
    """
    splits = [spec.split, *filter(None, [spec.lengths_of])]
    data: list[str | int] = [files.cached_sha256(split_path(spec.folder, split)) for split in splits]
    data += demonstrations_key(config, spec)
    task = {key: value for key, value in spec.to_dict().items() if key not in ("folder", "vocabulary")}
    key = files.digest([FORMAT, PREPROCESSING_VERSION, task, data, vocabulary.fingerprint])
    return _root(config) / f"{spec.name}-{key[:16]}", key


def _root(config: RunConfig) -> epath.Path:
    return as_path(config.data.cache_folder, "config.data.cache_folder")


def mixture_path(config: RunConfig, hashes: Sequence[str]) -> epath.Path:
    """Return the file of the mixture of some caches."""
    return _root(config) / f"mixture-{files.digest(list(hashes))[:16]}.json"


def mixture_content(arm: str, tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the content of a mixture's file, with a hash by which a damaged one is noticed.

    Args:
      arm: the arm that it is the mixture of.
      tasks: name, rate, folder and hash of each cache.
    """
    return {"mixture": arm, "tasks": list(tasks), "sha256": files.digest([arm, list(tasks)])}


def cache_content(folder: epath.Path, key: str, lengths: Int32[np.ndarray, "examples 2"]) -> dict[str, Any]:
    """Return what `cache.json` says of the other files of a cache, by which damaged ones are noticed.

    Args:
      folder: of the cache.
      key: the hash of all that it follows from.
      lengths: numbers of input and target ids of each example.
    """
    size, digest = file_size(folder / RECORDS), files.sha256(folder / LENGTHS)
    return {"hash": key, "examples": len(lengths), "bytes": size, "lengths_sha256": digest}


def open_cache(folder: PathLike, key: str) -> TokenCache | None:
    """Return the cache in a folder; None where there is none, or a damaged one."""
    place = as_path(folder)
    try:
        info = parse_json(files.read_bytes(place / INFO))
        with open_input(place / LENGTHS) as file:
            data = file.read()
        found = (info["hash"], info["bytes"], info["lengths_sha256"])
        if found != (key, file_size(place / RECORDS), hashlib.sha256(data).hexdigest()):
            return None
        lengths = _load_lengths(data, info["examples"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return TokenCache(place, key, lengths, float(len(lengths)))


def _load_lengths(data: bytes, examples: int) -> Int32[np.ndarray, "examples 2"]:
    """Return the lengths in a file of NumPy; raise ValueError where it does not hold those of so many examples."""
    try:
        lengths = np.load(io.BytesIO(data))
    except (EOFError, MemoryError, SyntaxError, TypeError, tokenize.TokenError) as error:  # of its header
        raise ValueError(str(error)) from None
    if not isinstance(lengths, np.ndarray) or lengths.dtype != np.int32 or lengths.shape != (examples, 2):
        raise ValueError("other values than lengths")
    return lengths


def find(
    config: RunConfig, specs: Sequence[TaskSpec], vocabulary_copy: PathLike | None = None
) -> list[TokenCache] | None:
    """Return the caches of some tasks, as `open_or_write`; None where one is missing. Write nothing.

    Args:
      config: names the folder of the caches, and the vocabulary.
      specs: the tasks.
      vocabulary_copy: a run's own copy of its vocabulary.
    """
    if config.vocabulary.kind == "trained" and not as_path(vocabulary_copy or trained_path(config)).exists():
        return None
    vocabulary = load_vocabulary(config, vocabulary_copy)
    found = [open_cache(*cache_folder(config, spec, vocabulary)) for spec in specs]
    caches = [cache for cache in found if cache is not None]
    if len(caches) < len(found):
        return None
    is_mixture = find_arm(config.arm).is_tuned and list(specs) == training_tasks(config)
    return _with_rates(config, caches) if is_mixture else caches


def _with_rates(config: RunConfig, caches: list[TokenCache]) -> list[TokenCache] | None:
    try:
        path = mixture_path(config, [cache.hash for cache in caches])
        mixture = parse_json(files.read_bytes(path))
        if mixture != mixture_content(mixture["mixture"], mixture["tasks"]):
            return None
        rates = {task["hash"]: task["rate"] for task in mixture["tasks"]}
        return [replace(cache, rate=float(rates[cache.hash])) for cache in caches]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_in_child(config: RunConfig, specs: Sequence[TaskSpec], vocabulary_copy: PathLike | None) -> None:
    """Run `python -m data_pipeline.cache`: TensorFlow stays in that process. Its progress bar is shown as it comes.

    Raises:
      UserError: TensorFlow and SeqIO are not installed here, or the child process failed.
    """
    names = ",".join(spec.name for spec in specs)
    if importlib.util.find_spec("seqio") is None:
        hint = (
            "lacks a token cache, and the packages that write one are not installed: pip install 'coi-jax[data]', "
            f"or run python -m data_pipeline.cache where they are and copy the folder (tasks: {names})"
        )
        raise UserError("config.data.cache_folder", config.data.cache_folder, hint)
    print(
        f"writing token caches into {config.data.cache_folder} (once; all runs share them)", file=sys.stderr, flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        files.write_json(path, config.model_dump(mode="json"))
        command = [
            sys.executable,
            "-m",
            "data_pipeline.cache",
            f"--config={path}",
            "--json",
            f"--tasks={names}",
        ]
        if vocabulary_copy:
            command.append(f"--vocabulary={vocabulary_copy}")
        child = subprocess.run(command, stdout=subprocess.PIPE, env=_child_environment(), check=False, text=True)
    if child.returncode:
        _relay(child)


def _child_environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return (
        child_processes.without_secrets(os.environ, child_processes.STORES)
        | quiet
        | {"PYTHONPATH": os.pathsep.join(paths)}
        | child_processes.environment()
    )


def _relay(child: subprocess.CompletedProcess[str]) -> NoReturn:
    """Raise the child's own UserError, which it printed as JSON."""
    try:
        error: dict[str, Any] = parse_json(child.stdout.rstrip("\n").rpartition("\n")[2])["error"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            "python -m data_pipeline.cache",
            f"exit status {child.returncode}",
            "the lines above say why; run it by hand with --config to look closer",
        ) from None
    raise UserError(error["field"], error["value"], error["hint"])
