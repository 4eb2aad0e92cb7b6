"""Token caches: a task's examples as ids, written once by `python -m data_pipeline.cache`, read here at random.

A cache is a folder `<task>-<hash>/` with the examples (ArrayRecord), their lengths, and `cache.json`. The hash is made
of all that the ids follow from, so a cache is never out of date: another dataset, vocabulary or preprocessing has
another name. A mixture is a file `mixture-<hash>.json` that names the caches of an arm with their mixing rates.
"""

import functools
import importlib.util
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from grain.sources import ArrayRecordDataSource
from jaxtyping import Int32

from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import read_manifest, split_path
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.data.arms import find_arm
from coi_jax.data.task_specs import TaskSpec, training_tasks
from coi_jax.parallel import processes
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.vocabulary import load_vocabulary, trained_path

ROOT = Path(__file__).parents[2]
# Raise it with every change that gives other ids for the same rows and vocabulary; tests/goldens/ids.json notices them.
PREPROCESSING_VERSION = 1
FORMAT = 1  # of a record

RECORDS, LENGTHS, INFO = "examples.array_record", "lengths.npy", "cache.json"
_HEADER = struct.Struct("<ii")  # numbers of input and target ids


@dataclass(frozen=True)
class Example:
    """A prompt and an answer as ids (the answer ends with the end id), and the chain they were made of."""

    inputs: Int32[np.ndarray, " inputs"]
    targets: Int32[np.ndarray, " targets"]
    chain: Chain


def pack_record(inputs: Int32[np.ndarray, " inputs"], targets: Int32[np.ndarray, " targets"], chain: bytes) -> bytes:
    """The bytes of an example; `chain` is its row as JSON."""
    ids = np.concatenate([inputs, targets]).astype("<i4")
    return _HEADER.pack(len(inputs), len(targets)) + ids.tobytes() + chain


def _split_record(record: bytes) -> tuple[Int32[np.ndarray, " inputs"], Int32[np.ndarray, " targets"], bytes]:
    inputs, targets = _HEADER.unpack_from(record)
    ids = np.frombuffer(record, "<i4", inputs + targets, _HEADER.size).astype(np.int32, copy=False)
    return ids[:inputs], ids[inputs:], record[_HEADER.size + 4 * (inputs + targets) :]


@dataclass(frozen=True)
class TokenCache:
    """A cache on disk. Indexing is random access and may be done from any thread.

    Attributes:
      folder: where it lies.
      hash: of all that it follows from.
      lengths: numbers of input and target ids of each example.
      rate: SeqIO's mixing rate of the task in its arm's mixture; the number of examples outside one.
    """

    folder: Path
    hash: str
    lengths: Int32[np.ndarray, "examples 2"]
    rate: float

    def __len__(self) -> int:
        return len(self.lengths)

    @functools.cached_property
    def _records(self) -> ArrayRecordDataSource:
        return ArrayRecordDataSource(str(self.folder / RECORDS))

    def ids(self, indices: Sequence[int]) -> list[tuple[Int32[np.ndarray, "_"], Int32[np.ndarray, "_"]]]:
        """The input and target ids of some examples, read in one go."""
        return [_split_record(record)[:2] for record in self._read(indices)]

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        inputs, targets, chain = _split_record(self._read([index])[0])
        return Example(inputs, targets, Chain.from_row(json.loads(chain)))

    def _read(self, indices: Sequence[int]) -> Sequence[bytes]:
        try:
            return self._records.__getitems__(indices)
        except (RuntimeError, ValueError, OSError):
            raise UserError(
                "token cache", self.folder, "cannot be read; remove this folder, and it is written again"
            ) from None


def ensure(config: RunConfig, specs: Sequence[TaskSpec], kept: Path | None = None) -> list[TokenCache]:
    """The caches of some tasks, written first by a child process where one is missing, out of date or damaged.

    Args:
      config: says where caches are kept, and which vocabulary.
      specs: the tasks, from `tasks.training_tasks` or `tasks.evaluation_task` of the same config.
      kept: a run's own copy of its vocabulary.

    Raises:
      UserError: the dataset is missing or has no row for a task, or the vocabulary cannot be had.
    """
    for spec in specs:
        check_rows(spec)
    processes.on_primary(lambda: _write_missing(config, specs, kept))
    caches = find(config, specs, kept)
    if caches is None:
        hint = "changed while it was read, or is not shared by all hosts; run again, or name another folder"
        raise UserError("config.data.cache_folder", config.data.cache_folder, hint)
    return caches


def _write_missing(config: RunConfig, specs: Sequence[TaskSpec], kept: Path | None) -> None:
    if find(config, specs, kept) is None:
        _write_in_child(config, specs, kept)


def check_rows(spec: TaskSpec) -> int:
    """The number of rows that a task has, by its dataset's manifest; raises UserError where it has none."""
    split_path(spec.folder, spec.split)
    counts: dict[str, int] = read_manifest(spec.folder)["counts"][spec.split]
    rows = sum(counts.values()) if spec.length is None else counts.get(str(spec.length), 0)
    if not rows:
        has = ", ".join(n for n in counts if counts[n]) or "none"
        raise UserError(
            spec.name,
            f"{spec.folder}/{spec.split}.jsonl",
            f"has no chain of length {spec.length}, only of: {has}; "
            "choose another arm or test set, or build such chains",
        )
    return rows


def cache_folder(config: RunConfig, spec: TaskSpec, vocabulary: Vocabulary) -> tuple[Path, str]:
    """The folder of a task's cache, and its hash."""
    splits = [spec.split]
    if spec.prompting != "direct":
        splits.append(config.data.split)  # its worked examples are rows of it
    data = [_sha256(split_path(spec.folder, split)) for split in splits]
    task = {key: value for key, value in spec.to_dict().items() if key not in ("folder", "vocabulary")}
    key = files.digest([FORMAT, PREPROCESSING_VERSION, task, data, vocabulary.fingerprint])
    return Path(config.data.cache_folder) / f"{spec.name}-{key[:16]}", key


def _sha256(path: Path) -> str:
    """A large file's hash, worked out once in a process for as long as the file stays as it is."""
    status = path.stat()
    return _sha256_as_of(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)
def _sha256_as_of(path: Path, mtime_ns: int, size: int) -> str:
    return files.sha256(path)


def mixture_path(config: RunConfig, hashes: Sequence[str]) -> Path:
    """The file of the mixture of some caches."""
    return Path(config.data.cache_folder) / f"mixture-{files.digest(list(hashes))[:16]}.json"


def open_cache(folder: Path, key: str) -> TokenCache | None:
    """The cache in a folder; None where there is none, or a damaged one."""
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        lengths = np.load(folder / LENGTHS)
        whole = (info["hash"], info["examples"], info["bytes"]) == (key, len(lengths), _size(folder / RECORDS))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return TokenCache(folder, key, lengths, float(len(lengths))) if whole else None


def _size(path: Path) -> int:
    return path.stat().st_size


def find(config: RunConfig, specs: Sequence[TaskSpec], kept: Path | None = None) -> list[TokenCache] | None:
    """The caches of some tasks, as `ensure`; None where one is missing. Nothing is written."""
    if config.vocabulary.kind == "trained" and not (kept or trained_path(config)).exists():
        return None
    vocabulary = load_vocabulary(config, kept)
    caches = [open_cache(*cache_folder(config, spec, vocabulary)) for spec in specs]
    whole = [cache for cache in caches if cache is not None]
    if len(whole) < len(caches):
        return None
    is_mixture = find_arm(config.arm).is_tuned and list(specs) == training_tasks(config)
    return _with_rates(config, whole) if is_mixture else whole


def _with_rates(config: RunConfig, caches: list[TokenCache]) -> list[TokenCache] | None:
    try:
        path = mixture_path(config, [cache.hash for cache in caches])
        rates = {task["hash"]: task["rate"] for task in json.loads(path.read_text(encoding="utf-8"))["tasks"]}
        return [replace(cache, rate=float(rates[cache.hash])) for cache in caches]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_in_child(config: RunConfig, specs: Sequence[TaskSpec], kept: Path | None) -> None:
    """Runs `python -m data_pipeline.cache`: TensorFlow stays in that process. Its progress bar is shown as it comes.

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
        if kept:
            command.append(f"--vocabulary={kept}")
        child = subprocess.run(command, stdout=subprocess.PIPE, env=_child_environment(), check=False, text=True)
    if child.returncode:
        _relay(child)


def _child_environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    return os.environ | quiet | {"PYTHONPATH": os.pathsep.join(paths)}


def _relay(child: subprocess.CompletedProcess[str]) -> NoReturn:
    """Raises the child's own UserError, which it printed as JSON."""
    lines = child.stdout.splitlines()
    try:
        error: dict[str, Any] = json.loads(lines[-1])["error"]
    except (IndexError, ValueError, KeyError, TypeError):
        raise UserError(
            "python -m data_pipeline.cache",
            f"exit status {child.returncode}",
            "the lines above say why; run it by hand with --config to look closer",
        ) from None
    raise UserError(error["field"], error["value"], error["hint"])
