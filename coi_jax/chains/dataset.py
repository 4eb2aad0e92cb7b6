"""A dataset folder: `<split>.jsonl` files of chains, the rejected rows, and the manifest that accounts for all.

The manifest is written last, so a folder that has one is whole.
"""

import collections
import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from etils import epath

from coi_jax.chains.chain import Chain
from coi_jax.common import files
from coi_jax.common.errors import UserError, nearest
from coi_jax.common.storage import PathLike, as_path, atomic_folder

MANIFEST = "manifest.json"
REJECTED = "rejected"


def check_replaceable(folder: PathLike, source: str) -> None:
    """Check that a folder is absent, empty, or an earlier dataset of the same source and nothing else.

    Args:
      folder: the dataset folder that a command is about to write.
      source: the `source` that its manifest will name.

    Raises:
      UserError: the folder holds anything else, which the command would destroy.
    """
    target = as_path(folder, "out")
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError("out", folder, "is a file; name a folder")
    names = {path.name for path in target.iterdir()}
    if names and MANIFEST not in names:
        raise UserError("out", folder, "holds other files; name a new or empty folder")
    manifest = files.read_json(target / MANIFEST, "out") if names else {}
    if names and (not isinstance(manifest, dict) or manifest.get("source") != source):
        found = manifest.get("source") if isinstance(manifest, dict) else manifest
        hint = f"holds a dataset of source {found!r}, and this command writes {source!r}; name a new folder"
        raise UserError("out", folder, hint)
    unknown = sorted(names - {MANIFEST, *manifest.get("sha256", {})})
    if unknown:
        raise UserError("out", folder, f"holds {unknown[0]}, which is not of the dataset; move it or name a new folder")


class DatasetWriter:
    """Streams chains into a dataset folder that appears only when it is whole.

    Use as a context: files grow in a hidden neighbor folder, and `finish` writes the manifest. The folder gets its name
    when the block ends; an exception inside, or a block without `finish`, leaves what stood there before.
    """

    def __init__(self, folder: PathLike, source: str) -> None:
        """Name the folder.

        Args:
          folder: absent, empty, or an earlier dataset of the same source, which is replaced.
          source: where the chains come from; the same for every run of a command.
        """
        self.folder = as_path(folder, "out")
        self.source = source
        self.counts: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
        self.rejections: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> "DatasetWriter":
        """Open the folder; raise UserError where it holds anything else."""
        check_replaceable(self.folder, self.source)
        self._stack = contextlib.ExitStack()
        folder = atomic_folder(self.folder, marker=MANIFEST, replace=lambda _: True)
        self._partial: epath.Path = self._stack.enter_context(folder)
        self._open: dict[str, _HashedFile] = {}
        self._file(REJECTED)
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def _file(self, name: str) -> "_HashedFile":
        if name not in self._open:
            self._open[name] = _HashedFile(self._partial / f"{name}.jsonl")
            self._stack.callback(self._open[name].close)
        return self._open[name]

    def add(self, split: str, chain: Chain) -> None:
        """Append a chain to a split."""
        self._file(split).write(chain.row())
        self.counts[split][chain.length] += 1

    def reject(self, row: Any, reason: str, **where: Any) -> None:
        """Keep a row that is not a chain, whole.

        Args:
          row: as it was read, a JSON value.
          reason: why it is not a chain.
          **where: its place in the source, as `file` and `number`.
        """
        self._file(REJECTED).write({"reason": reason, **where, "row": row})
        self.rejections[reason] += 1

    def note(self, name: str, row: Any) -> None:
        """Append a row to another file of the folder, `<name>.jsonl`, which holds no chains."""
        self._file(name).write(row)

    def finish(self, licence: str, notes: dict[str, Any]) -> None:
        """Write the manifest; `notes` are the importer's own, such as how irregular rows were read."""
        for file in self._open.values():
            file.close()
        files.write_json(self._partial / MANIFEST, self._manifest(licence, notes))

    def _manifest(self, licence: str, notes: dict[str, Any]) -> dict[str, Any]:
        return {
            "source": self.source,
            "licence": licence,
            "counts": {split: {str(n): by[n] for n in sorted(by)} for split, by in sorted(self.counts.items())},
            "rejected": dict(sorted(self.rejections.items())),
            "sha256": {f"{name}.jsonl": self._open[name].digest for name in sorted(self._open)},
            "notes": notes,
        }


class _HashedFile:
    """A JSON-lines file that is hashed while it is written."""

    def __init__(self, path: epath.Path) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._hash = hashlib.sha256()

    def write(self, row: Any) -> None:
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8")
        self._file.write(line)
        self._hash.update(line)

    def close(self) -> None:
        self._file.close()

    @property
    def digest(self) -> str:
        """SHA-256 of what was written."""
        return self._hash.hexdigest()


def read_manifest(folder: PathLike) -> dict[str, Any]:
    """Read the manifest of a dataset folder.

    Raises:
      UserError: the folder is missing or is not a (whole) dataset.
    """
    path = as_path(folder, "dataset folder") / MANIFEST
    if not path.exists():
        raise UserError("dataset folder", folder, f"has no {MANIFEST}; build or import the dataset first")
    manifest: dict[str, Any] = files.read_json(path, "dataset folder")
    return manifest


def split_path(folder: PathLike, split: str) -> epath.Path:
    """Return the file of a split.

    Raises:
      UserError: the folder is missing or is not a (whole) dataset, or has no such split.
    """
    splits = list(read_manifest(folder)["counts"])
    if split not in splits:
        raise UserError("split", split, f"{nearest(split, splits)} (in {folder})")
    return as_path(folder) / f"{split}.jsonl"


def read_chains(folder: PathLike, split: str, length: int | None = None) -> Iterator[Chain]:
    """Yield the chains of a split, in the file's order.

    Args:
      folder: the dataset folder.
      split: a name in its manifest.
      length: of the chains; all lengths where None.

    Raises:
      UserError: the folder has no such split, or a row is not a chain; it names file and line.
    """
    path = split_path(folder, split)
    for number, row in enumerate(files.read_jsonl(path, "dataset"), 1):
        try:
            chain = Chain.from_row(row)
        except UserError as error:
            raise UserError("dataset", f"{path}:{number}", str(error)) from None
        if length is None or chain.length == length:
            yield chain


def write_chains(folder: PathLike, splits: Mapping[str, Iterable[Chain]], *, source: str, licence: str) -> None:
    """Write a dataset folder, which appears when it is whole.

    Args:
      folder: a new folder, or an earlier dataset of the same source, which is replaced.
      splits: the chains of each split, as `{"train": …, "test": …}`.
      source: where the chains come from, for the manifest.
      licence: of the chains, for the manifest.

    Raises:
      UserError: the folder holds other files.
    """
    with DatasetWriter(folder, source) as writer:
        for split, chains in splits.items():
            for chain in chains:
                writer.add(split, chain)
        writer.finish(licence, {})
