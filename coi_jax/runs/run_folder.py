"""The folder of a run, local or in a bucket: its config, environment, vocabulary, checkpoints and metrics."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from etils import epath

from coi_jax.chains.dataset import split_path
from coi_jax.common import files
from coi_jax.common.child_processes import without_secrets
from coi_jax.common.errors import UserError
from coi_jax.common.schema import flatten
from coi_jax.common.seals import write_sealed
from coi_jax.common.storage import PathLike, as_path
from coi_jax.config.model import SPEED_FIELDS
from coi_jax.config.run import (
    RunConfig,
    SentencePieceVocabularyConfig,
    TokenizerVocabularyConfig,
    TrainedVocabularyConfig,
    read_run_config,
)
from coi_jax.data.arms import find_arm
from coi_jax.families.published_config import text_config
from coi_jax.parallel import hardware, processes
from coi_jax.runs.checkpoint_steps import steps
from coi_jax.runs.damage import BEST
from coi_jax.runs.early_checks import CHECKPOINTS, CONFIG, check_folder
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.vocabulary import load_vocabulary, trained_path

# Fields that change no step and no weight, so that they may change between launches of a run.
HARMLESS_FIELDS = (
    *SPEED_FIELDS,
    "mesh.",
    "evaluation.",
    "data.folder",  # the checkpoint knows which data it was trained on
    "data.cache_folder",
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoint_minutes",
    "train.preemption_hours",
    "train.keep_checkpoints",
    "train.on_not_finite",  # a step that was taken was finite, or was left out
    "train.validation",
    "logging.",
)
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "qwix",
    "orbax-checkpoint",
    "grain",
    "array_record",
    "numpy",
    "sentencepiece",
)


@dataclass(frozen=True, init=False)
class RunFolder:
    """The paths of the parts of a run."""

    path: epath.Path

    def __init__(self, path: PathLike) -> None:
        """Name the folder of a run; raise UserError where nothing here reads its kind of URL."""
        object.__setattr__(self, "path", as_path(path, "workdir"))

    @property
    def config(self) -> epath.Path:
        """The resolved config, every field."""
        return self.path / CONFIG

    @property
    def environment(self) -> epath.Path:
        """Versions, devices, commit, hashes of the data: of the last launch."""
        return self.path / "environment.json"

    @property
    def vocabulary(self) -> epath.Path:
        """The vocabulary's own file, where it has one."""
        return self.path / "vocabulary.model"

    @property
    def tokenizer(self) -> epath.Path:
        """The files of a published model's tokenizer, where the run has such."""
        return self.path / "tokenizer"

    @property
    def kept_vocabulary(self) -> epath.Path | None:
        """The run's own copy of its vocabulary, a file or a folder; None where it has none."""
        if self.vocabulary.exists():
            return self.vocabulary
        has_tokenizer = any((self.tokenizer / name).exists() for name in ("tokenizer.json", "tokenizer.model"))
        return self.tokenizer if has_tokenizer else None

    @property
    def checkpoints(self) -> epath.Path:
        """One folder per checkpoint, named by its step."""
        return self.path / CHECKPOINTS

    @property
    def best(self) -> epath.Path:
        """The checkpoint that did best on the validation split, in a folder named by its step."""
        return self.path / BEST

    @property
    def published(self) -> epath.Path:
        """The small files of the published folder that the run began from: config.json and the tokenizer's."""
        return self.path / "published"

    @property
    def published_positions(self) -> int | None:
        """The positions that the published model reads; None where there is none, or its files do not say."""
        path = self.published / CONFIG
        found = text_config(files.read_object(path)).get("max_position_embeddings") if path.exists() else None
        return found if isinstance(found, int) else None

    @property
    def base(self) -> epath.Path:
        """The frozen base of a run that trains adapters, unless it is a published folder."""
        return self.path / "base"

    @property
    def metrics(self) -> epath.Path:
        """One line per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def has_begun(self) -> bool:
        """Return whether anything was made with the config: not so where training failed before it saved."""
        return bool((self.path / "eval").exists() or steps(self.checkpoints))

    @property
    def tensorboard(self) -> epath.Path:
        """The same numbers as `metrics`."""
        return self.path / "tensorboard"

    def load_config(self) -> RunConfig:
        """Load the config of the run; raise UserError where there is none."""
        return read_run_config(self.config, "workdir")

    def load_vocabulary(self) -> Vocabulary:
        """Load the vocabulary of the run, from its own copy where it has one."""
        return load_vocabulary(self.load_config(), self.kept_vocabulary)


def open_run(path: PathLike, config: RunConfig) -> RunFolder:
    """Begin a run in an empty or absent folder, or continue one of the same config.

    Raises:
      UserError: the arm is unknown, the folder's run has another config (the first field that differs is named;
        those of `HARMLESS_FIELDS` may, and `train.length.count` may grow), or the folder holds what is no run.
    """
    find_arm(config.arm)
    run = RunFolder(path)
    processes.on_primary(lambda: _open(run, run.path, config))
    processes.check_shared("workdir", run.config)
    return run


def _open(run: RunFolder, path: epath.Path, config: RunConfig) -> None:
    check_folder(path)
    if run.config.exists():
        old = run.load_config()
        if run.has_begun:
            _check_same(old, config, path)
        elif old != config:
            _remove_copies(run)
    write_sealed(run.config, config.model_dump(mode="json"), "workdir")


def _remove_copies(run: RunFolder) -> None:
    """Remove what a launch of another config copied into a run that has not begun."""
    for folder in (run.tokenizer, run.published, run.base):
        if folder.exists():
            folder.rmtree()
    for file in (run.vocabulary, run.environment):
        file.unlink(missing_ok=True)


def _check_same(old: RunConfig, new: RunConfig, path: epath.Path) -> None:
    then, now = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    changed = [name for name in then | now if then.get(name) != now.get(name)]
    for name in changed:
        if not (name.startswith(HARMLESS_FIELDS) or _is_longer(name, old, new)):
            hint = f"the run in {path} has {then.get(name)!r}; go on with that, or name another --workdir"
            raise UserError(f"config.{name}", now.get(name), hint)
    for name in changed:
        print(f"config.{name}: {now.get(name)!r} from here on, it was {then.get(name)!r}", file=sys.stderr)


def _is_longer(name: str, old: RunConfig, new: RunConfig) -> bool:
    """Return whether a field that differs makes a run longer than it was meant to be."""
    then, now = old.train.length, new.train.length
    return name == "train.length.count" and then.unit == now.unit and then.count < now.count


def keep_vocabulary(run: RunFolder, config: RunConfig) -> None:
    """Copy the vocabulary's files into the run, which can then be evaluated without the folder they came from."""
    match config.vocabulary:
        case TrainedVocabularyConfig() if not run.vocabulary.exists():
            files.write_bytes(run.vocabulary, trained_path(config).read_bytes(), "workdir")
        case SentencePieceVocabularyConfig(file=file) if not run.vocabulary.exists():
            files.write_bytes(run.vocabulary, as_path(file).read_bytes(), "workdir")
        case TokenizerVocabularyConfig(folder=folder) if run.kept_vocabulary is None:
            _keep_tokenizer(run, folder)


def _keep_tokenizer(run: RunFolder, folder: str) -> None:
    """Copy a published tokenizer's files into a run."""
    from coi_jax.tokenizers.tokenizer_files import read_tokenizer  # half a second to import

    read_tokenizer(folder).write(run.tokenizer)


def write_environment(
    run: RunFolder, config: RunConfig, data: Mapping[str, Any], parameters: Mapping[str, int]
) -> None:
    """Write what this launch runs on and which data it reads: hashes, no secrets, no environment variables.

    Args:
      run: that gets `environment.json`.
      config: that names the dataset.
      data: hashes of caches and vocabulary, and the loader's statistics.
      parameters: the number of trained ones, and of all.
    """
    device = jax.devices()[0]
    dataset = files.sha256(split_path(config.data.folder, config.data.split, "config.data.folder"), "dataset")
    values = {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "hosts": jax.process_count(),
        "cores": hardware.cpu_cores(),
        "commit": git_commit(Path(__file__).parent),
        "parameters": dict(parameters),
        "data": {"sha256": dataset, **data},
    }
    write_sealed(run.environment, values, "workdir")


def git_commit(folder: Path) -> str | None:
    """Return the commit of the working copy that `folder` belongs to, with "+changes" where files differ from it."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
        env=without_secrets(os.environ),
    )
    return done.stdout.strip()
