"""A dataset folder: `<split>.jsonl` files of chains, the rejected rows, and the manifest that accounts for all.

The manifest is written last, so a folder that has one is whole.
"""

import collections
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from coi_jax.chains.chain import Chain
from coi_jax.common import files
from coi_jax.common.errors import UserError, nearest

MANIFEST = "manifest.json"
REJECTED = "rejected"


class DatasetWriter:
    """Streams chains into a dataset folder that appears only when it is whole.

    Use as a context: files grow in a hidden neighbour folder, `finish` writes the manifest and gives it its name. An
    exception inside leaves what stood at `folder` before.
    """

    def __init__(self, folder: files.PathLike) -> None:
        self.folder = Path(folder)
        self.counts: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
        self.rejections: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> "DatasetWriter":
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError("out", self.folder, "is a file; name a folder")
        if self.folder.is_dir() and any(self.folder.iterdir()) and not (self.folder / MANIFEST).exists():
            raise UserError("out", self.folder, "holds other files; name a new or empty folder")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._partial = Path(tempfile.mkdtemp(dir=self.folder.parent, prefix=f".{self.folder.name}."))
        self._stack = contextlib.ExitStack()
        self._open: dict[str, IO[str]] = {}
        self._file(REJECTED)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stack.close()
        finally:  # closing fails on a full disk
            shutil.rmtree(self._partial, ignore_errors=True)

    def _file(self, name: str) -> IO[str]:
        if name not in self._open:
            path = self._partial / f"{name}.jsonl"
            self._open[name] = self._stack.enter_context(open(path, "w", encoding="utf-8"))
        return self._open[name]

    def add(self, split: str, chain: Chain) -> None:
        """Appends a chain to a split."""
        self._file(split).write(json.dumps(chain.row(), ensure_ascii=False) + "\n")
        self.counts[split][chain.length] += 1

    def reject(self, row: Any, reason: str, **where: Any) -> None:
        """Keeps a row that is not a chain, whole, with its reason and where it stood."""
        self._file(REJECTED).write(json.dumps({"reason": reason, **where, "row": row}, ensure_ascii=False) + "\n")
        self.rejections[reason] += 1

    def note(self, name: str, row: Any) -> None:
        """Appends a row to another file of the folder, `<name>.jsonl`, which holds no chains."""
        self._file(name).write(json.dumps(row, ensure_ascii=False) + "\n")

    def finish(self, source: str, licence: str, notes: dict[str, Any]) -> None:
        """Writes the manifest and gives the folder its name; `notes` are the importer's own (how rows were read …)."""
        self._stack.close()
        files.write_json(self._partial / MANIFEST, self._manifest(source, licence, notes))
        self._partial.chmod(0o755)
        if self.folder.exists():
            shutil.rmtree(self.folder)
        os.replace(self._partial, self.folder)

    def _manifest(self, source: str, licence: str, notes: dict[str, Any]) -> dict[str, Any]:
        counts = {split: {str(n): by[n] for n in sorted(by)} for split, by in sorted(self.counts.items())}
        hashes = {f"{name}.jsonl": files.sha256(self._partial / f"{name}.jsonl") for name in sorted(self._open)}
        return {
            "source": source,
            "licence": licence,
            "counts": counts,
            "rejected": dict(sorted(self.rejections.items())),
            "sha256": hashes,
            "notes": notes,
        }


def read_manifest(folder: files.PathLike) -> dict[str, Any]:
    """The manifest of a dataset folder.

    Raises:
      UserError: the folder is missing or is not a (whole) dataset.
    """
    path = Path(folder) / MANIFEST
    if not path.exists():
        raise UserError("dataset folder", folder, f"has no {MANIFEST}; build or import the dataset first")
    return files.read_json(path, "dataset folder")


def split_path(folder: files.PathLike, split: str) -> Path:
    """The file of a split.

    Raises:
      UserError: the folder is missing or is not a (whole) dataset, or has no such split.
    """
    splits = list(read_manifest(folder)["counts"])
    if split not in splits:
        raise UserError("split", split, f"{nearest(split, splits)} (in {folder})")
    return Path(folder) / f"{split}.jsonl"


def read_chains(folder: files.PathLike, split: str, length: int | None = None) -> Iterator[Chain]:
    """Yields the chains of a split, or those of one length, in the file's order.

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
