"""A dataset folder: `<split>.jsonl` files of chains, the rejected rows, and the manifest that accounts for all.

The manifest is written last, so a folder that has one is whole.
"""

import collections
import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Annotated, Any

import pydantic
from etils import epath
from pydantic import Field

from coi_jax.chains.chain import Chain
from coi_jax.common import arguments, files
from coi_jax.common.arguments import Text, checked
from coi_jax.common.errors import UserError, nearest
from coi_jax.common.json_reader import HALF_A_PAIR
from coi_jax.common.schema import check_value
from coi_jax.common.storage import PathLike, as_path, atomic_folder, file_version, is_there, open_input, recover_folder

MANIFEST = "manifest.json"
REJECTED = "rejected"
MOST_NAMED = 5  # settings in an error

SPLIT = re.compile(r"[^/\\\x00]{1,240}")  # the name of a file, without .jsonl
Split = Annotated[str, Field(pattern=f"^{SPLIT.pattern}$")]
Length = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
Count = Annotated[int, Field(ge=0)]


class Manifest(pydantic.BaseModel):
    """The schema of `manifest.json`.

    Attributes:
      source: where the chains come from.
      licence: of the chains.
      counts: chains of each length, by split.
      rejected: rows that were not chains, by reason.
      sha256: of each file.
      notes: the importer's own.
    """

    source: str
    licence: str
    counts: dict[Split, dict[Length, Count]]
    rejected: dict[str, Count]
    sha256: dict[str, str]
    notes: dict[str, Any]


def check_replaceable(folder: PathLike, source: str) -> None:
    """Check that a folder is absent, empty, or an earlier dataset of the same source and nothing else.

    Args:
      folder: the dataset folder that a command is about to write.
      source: the `source` that its manifest will name.

    Raises:
      UserError: the folder holds anything else, which the command would destroy.
    """
    target = as_path(folder, "out")
    recover_folder(target, MANIFEST)
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError("out", folder, "is a file; name a folder")
    names = {path.name for path in target.iterdir()}
    if names and MANIFEST not in names:
        raise UserError("out", folder, "holds other files; name a new or empty folder")
    manifest = read_manifest(folder) if names else {"source": source, "sha256": {}}
    if manifest["source"] != source:
        hint = (
            f"holds a dataset of source {manifest['source']!r}, and this command writes {source!r}; name a new folder"
        )
        raise UserError("out", folder, hint)
    unknown = sorted(names - {MANIFEST, *manifest["sha256"]})
    if unknown:
        raise UserError("out", folder, f"holds {unknown[0]}, which is not of the dataset; move it or name a new folder")


def check_settings(
    folder: PathLike, source: str, wanted: Mapping[str, Any], found: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> None:
    """Check that an earlier dataset of the same source, if there is one, was written with the same settings.

    Args:
      folder: the dataset folder that a command is about to write.
      source: the `source` that its manifest will name.
      wanted: the settings, by name.
      found: returns those of a manifest.

    Raises:
      UserError: it was written with others, and would be lost.
    """
    if not (as_path(folder, "out") / MANIFEST).exists():
        return
    manifest = read_manifest(folder)
    before = found(manifest)
    differing = [name for name in wanted if name not in before or before[name] != wanted[name]]
    if manifest["source"] == source and differing:
        named = ", ".join(differing[:MOST_NAMED]) + (", …" if len(differing) > MOST_NAMED else "")
        hint = f"holds a dataset of other settings ({named}); name another folder, or add --overwrite"
        raise UserError("out", folder, hint)


def _manifest_in(folder: epath.Path) -> bytes | None:
    """Return the manifest of a folder as it is written; None where there is none."""
    path = folder / MANIFEST
    return path.read_bytes() if path.exists() else None


class DatasetWriter:
    """Streams chains into a dataset folder that appears only when it is whole.

    Use as a context: files grow in a hidden neighbor folder, and `finish` writes the manifest. The folder gets its name
    when the block ends; an exception inside, or a block without `finish`, leaves what stood there before.
    """

    @checked
    def __init__(self, folder: PathLike, source: Text, *, overwrite: bool = True) -> None:
        """Name the folder.

        Args:
          folder: absent, empty, or an earlier dataset of the same source, which is replaced.
          source: where the chains come from; the same for every run of a command.
          overwrite: whether an earlier dataset of other rows is replaced; else the end of the block raises UserError.
        """
        self.folder, self._overwrite = as_path(folder, "out"), overwrite
        self.source = source
        self.counts: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
        self.rejections: collections.Counter[str] = collections.Counter()
        self._ids: dict[str, set[str]] = collections.defaultdict(set)
        self._open: dict[str, _HashedFile] = {}
        self._growing: epath.Path | None = None

    def __enter__(self) -> "DatasetWriter":
        """Open the folder; raise UserError where it holds anything else."""
        check_replaceable(self.folder, self.source)
        self._before = _manifest_in(self.folder)
        self._stack = contextlib.ExitStack()
        folder = atomic_folder(self.folder, marker=MANIFEST, replace=self._may_replace)
        self._growing, self._open = self._stack.enter_context(folder), {}
        self._file(REJECTED)
        return self

    def __exit__(self, *error: Any) -> bool | None:
        try:
            return self._stack.__exit__(*error)
        finally:
            self._growing = None

    @property
    def _partial(self) -> epath.Path:
        """Return the folder that grows."""
        if self._growing is None:
            raise UserError("writer", self.folder, "is not open; write in a block of `with DatasetWriter(…) as writer`")
        return self._growing

    def _may_replace(self, earlier: epath.Path) -> bool:
        if _manifest_in(earlier) != self._before:
            hint = "has got another dataset while this one was made; name another folder, or run the command again"
            raise UserError("out", self.folder, hint)
        if not self._overwrite and any(earlier.iterdir()):
            digests = read_manifest(self._partial)["sha256"]
            if read_manifest(earlier)["sha256"] != digests:
                hint = "holds a dataset of other rows; name another folder, or add --overwrite"
                raise UserError("out", self.folder, hint)
        return True

    def _file(self, name: str) -> "_HashedFile":
        partial = self._partial
        if name not in self._open:
            if not SPLIT.fullmatch(name):
                raise UserError("split", name, "is no name of a file; take letters, digits, _ and -")
            self._open[name] = _HashedFile(partial / f"{name}.jsonl")
            self._stack.callback(self._open[name].close)
        return self._open[name]

    @checked
    def add(self, split: Text, chain: Chain) -> None:
        """Append a chain to a split; raise UserError where it could not be read again, or its id is another's."""
        row = chain.row()
        Chain.from_row(row)
        if split == REJECTED:
            raise UserError("split", split, "is the file of rows that are no chains; take another name")
        file = self._file(split)
        if chain.id in self._ids[split]:
            raise UserError("id", chain.id, f"occurs more than once in split {split}; give every chain its own id")
        self._ids[split].add(chain.id)
        file.write(row)
        self.counts[split][chain.length] += 1

    @checked
    def reject(self, row: Any, reason: str, **where: Any) -> None:
        """Keep a row that is not a chain, whole.

        Args:
          row: as it was read, a JSON value.
          reason: why it is not a chain.
          **where: its place in the source, as `file` and `number`.
        """
        self._file(REJECTED).write({"reason": reason, **where, "row": row})
        self.rejections[reason] += 1

    @checked
    def note(self, name: Text, row: Any) -> None:
        """Append a row to another file of the folder, `<name>.jsonl`, which holds no chains."""
        self._file(name).write(row)

    @checked
    def finish(self, licence: Text, notes: dict[str, Any]) -> None:
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
        try:
            line = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8")
        except UnicodeEncodeError:
            raise UserError("row", row, HALF_A_PAIR) from None
        self._file.write(line)
        self._hash.update(line)

    def close(self) -> None:
        self._file.close()

    @property
    def digest(self) -> str:
        """SHA-256 of what was written."""
        return self._hash.hexdigest()


@checked
def read_manifest(folder: PathLike, field: str = "dataset folder") -> dict[str, Any]:
    """Read the manifest of a dataset folder.

    Args:
      folder: of the dataset.
      field: its name in an error.

    Raises:
      UserError: the folder is missing or is not a (whole) dataset, or the manifest is not as its schema has it.
    """
    place = as_path(folder, field)
    path = place / MANIFEST
    if not is_there(path) and not recover_folder(folder, MANIFEST):
        found = f"has no {MANIFEST};" if place.exists() else "no such folder; check the path, or"
        found = "is a file; name a folder, or" if place.exists() and not place.is_dir() else found
        raise UserError(field, folder, f"{found} build or import the dataset first")
    manifest = files.read_object(path, field)
    check_value(Manifest, manifest, field, path)
    return manifest


def split_path(folder: PathLike, split: str, field: str = "dataset folder") -> epath.Path:
    """Return the file of a split, after a check that it is the one that the manifest describes.

    Args:
      folder: of the dataset.
      split: a name in its manifest.
      field: the name of the folder in an error.

    Raises:
      UserError: the folder is missing or is not a (whole) dataset, or has no such split; a row of the split is not a
        chain; or the file differs from the manifest's hash or counts.
    """
    manifest = read_manifest(folder, field)
    if split not in manifest["counts"]:
        named = "config.data.split" if field == "config.data.folder" else "split"
        raise UserError(named, split, f"{nearest(split, list(manifest['counts']))} (in {folder})")
    path = as_path(folder) / f"{split}.jsonl"
    with open_input(path, "dataset"):  # which says what is wrong where it cannot be opened
        counts = _count_chains(os.fspath(path), file_version(path))
    wanted = {length: number for length, number in manifest["counts"][split].items() if number}
    if counts != wanted:
        hint = f"the numbers of chains by length are {counts}, but {wanted} in {MANIFEST}; write the dataset again"
        raise UserError("dataset", path, hint)
    if files.cached_sha256(path) != manifest["sha256"].get(path.name):
        hint = f"has another SHA-256 than in {MANIFEST}: it was changed after the dataset was written; write it again"
        raise UserError("dataset", path, hint)
    return path


@functools.lru_cache(maxsize=64)
def _count_chains(path: str, _: str) -> dict[str, int]:
    """Return the number of chains of each length in a file, counted once for as long as the file stays as it is."""
    counts = collections.Counter(chain.length for chain in _read_file(path))
    return {str(length): counts[length] for length in sorted(counts)}


def _read_file(path: PathLike) -> Iterator[Chain]:
    for place, row in files.read_placed_jsonl(path, "dataset"):
        try:
            chain = Chain.from_row(row)
        except UserError as error:
            raise UserError("dataset", place, str(error)) from None
        yield chain


@checked
def read_chains(folder: PathLike, split: str, length: arguments.Count | None = None) -> Iterator[Chain]:
    """Yield the chains of a split, in the file's order.

    Args:
      folder: the dataset folder.
      split: a name in its manifest.
      length: of the chains; all lengths where None.

    Raises:
      UserError: the split cannot be read; see `split_path`.
    """
    for chain in _read_file(split_path(folder, split)):
        if length is None or chain.length == length:
            yield chain


@checked
def write_chains(
    folder: PathLike,
    splits: Annotated[Mapping[Text, Iterable[Chain]], Field(min_length=1)],
    *,
    source: Text,
    licence: Text,
    overwrite: bool = False,
) -> None:
    """Write a dataset folder, which appears when it is whole.

    Args:
      folder: a new folder, or, to overwrite, an earlier dataset of the same source.
      splits: the chains of each split, as `{"train": …, "test": …}`.
      source: where the chains come from, for the manifest.
      licence: of the chains, for the manifest.
      overwrite: whether an earlier dataset is replaced.

    Raises:
      UserError: the folder holds other files, or a dataset that is not to be replaced; a split has no chain; a chain
        could not be read again, or has the id of another chain of its split.
    """
    if not overwrite and (as_path(folder, "folder") / MANIFEST).exists():
        raise UserError("folder", folder, "holds a dataset; name a new folder, or give overwrite=True")
    with DatasetWriter(folder, source) as writer:
        for split, chains in splits.items():
            for chain in chains:
                writer.add(split, chain)
            if not writer.counts[split]:
                raise UserError(f"splits[{split!r}]", chains, "holds no chain; leave the split out")
        writer.finish(licence, {})
