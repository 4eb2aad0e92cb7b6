"""Carries the rows of the official release into a dataset folder, and accounts for every row."""

import collections
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from etils import epath

from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import DatasetWriter
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.progress import track
from coi_jax.common.storage import PathLike
from data_pipeline.json_array import read_array
from data_pipeline.release import release_files
from data_pipeline.release.release_files import Form, ReleaseFile
from data_pipeline.release.row_reading import KNOWN_KEYS, NotAChain, Reading, Survey, read, row_key, writable

FIRST_STEP = "#first_step"


@dataclass
class Account:
    """An account of the rows of one file.

    `chains` counts the imported ones by length, `repeats` a union file's rows that came in (or were rejected) from
    another file, by that file, and `unknown_keys` what rows have besides the release's own keys.
    """

    split: str
    published: bool
    rows: int = 0
    chains: collections.Counter[int] = field(default_factory=collections.Counter)
    repeats: collections.Counter[str] = field(default_factory=collections.Counter)
    rejected: int = 0
    unknown_keys: collections.Counter[str] = field(default_factory=collections.Counter)

    def record(self) -> dict[str, Any]:
        """Return the account as the manifest holds it."""
        chains = {str(length): count for length, count in sorted(self.chains.items())}
        return {
            "split": self.split,
            "published": self.published,
            "rows": self.rows,
            "chains": chains,
            "repeats": dict(self.repeats),
            "rejected": self.rejected,
            "unknown_keys": dict(self.unknown_keys),
        }


class Importer:
    """Carries rows from a release's data folder to a dataset."""

    def __init__(self, folder: epath.Path, writer: DatasetWriter) -> None:
        self._folder, self._writer = folder, writer
        self._survey = Survey()
        self._seen: dict[str, str] = {}
        self.accounts: dict[str, Account] = {}
        self.irregular: list[dict[str, Any]] = []
        self._first_steps: dict[str, Chain] = {}

    def _rows(self, file: ReleaseFile) -> Iterator[Any]:
        return read_array(self._folder / file.path, "release file", allow_surrogates=True)  # such a row is rejected

    def learn(self, known: Sequence[ReleaseFile]) -> None:
        """Read the files for what their regular rows teach about irregular ones."""
        for file in known:
            if file.form is Form.SUMMARY or max(file.lengths) == 1:
                continue
            for number, row in enumerate(self._rows(file)):
                # summarized_coi_3 has fused and explicit instructions, so its rows teach too.
                if file.form is Form.CHAIN or (isinstance(row, dict) and "summarized_coi" in row):
                    self._survey.learn(row, number if file.split == "train" and not file.union else None)
        self._survey.settle()
        for file in known:
            if file.form is Form.FUSED and not file.union:
                self._survey.locate(file.source, self._rows(file))

    def take(self, file: ReleaseFile) -> None:
        """Import a file.

        Raises:
          UserError: not one of its rows has the form that is due, so it is another file.
        """
        account = self.accounts[file.path] = Account(file.split, self._is_published(file))
        reason = "it has none"
        for number, row in enumerate(self._rows(file)):
            account.rows += 1
            if self._is_repeat(row, file, account):
                continue
            try:
                self._place(read(row, file, number, self._survey), row, file, account)
            except NotAChain as error:
                account.rejected += 1
                reason = str(error)
                self._writer.reject(writable(row), reason, file=file.path, number=number)
        if account.rejected == account.rows:
            where = self._folder / file.path
            raise UserError("release file", where, f"no row is readable ({reason}); fetch it again")

    def _is_published(self, file: ReleaseFile) -> bool:
        return release_files.git_blob(self._folder / file.path) == release_files.CHECKSUMS[file.path]

    def _is_repeat(self, row: Any, file: ReleaseFile, account: Account) -> bool:
        """Return whether a union file repeats a row of another training file; count it, or remember a new row."""
        if not file.is_training:
            return False
        key = row_key(row)
        if file.union and key in self._seen:
            account.repeats[self._seen[key]] += 1
            return True
        self._seen.setdefault(key, file.source)
        return False

    def _place(self, reading: Reading, row: dict[str, Any], file: ReleaseFile, account: Account) -> None:
        chain = reading.chain
        account.unknown_keys.update(row.keys() - KNOWN_KEYS)
        account.chains[chain.length] += 1
        self._writer.add(file.split, chain)
        if file.split == "train" and chain.length > 1 and chain.steps[0].instruction:
            first = first_step(chain)
            self._first_steps.setdefault(files.digest([first.instruction, first.input, first.outputs]), first)
        if reading.note:
            self._note(reading, file)

    def _note(self, reading: Reading, file: ReleaseFile) -> None:
        instructions = [step.instruction for step in reading.chain.steps]
        self.irregular.append(
            {
                "file": file.path,
                "id": reading.chain.id,
                "reading": reading.note,
                "instruction": reading.chain.instruction,
                "steps": instructions,
            }
        )

    def add_first_steps(self) -> dict[str, int]:
        """Write the distinct first steps of longer training chains, where no file had chains of length 1.

        Returns how many, by source.
        """
        if self._writer.counts["train"][1]:
            return {}
        for chain in self._first_steps.values():
            self._writer.add("train", chain)
        return dict(collections.Counter(chain.source for chain in self._first_steps.values()))


def first_step(chain: Chain) -> Chain:
    """Return the first step of a chain as a chain of its own, labelled so."""
    step = chain.steps[0]
    return Chain(chain.id + FIRST_STEP, chain.source + FIRST_STEP, chain.input, step.instruction, (step,))


def import_release(src: PathLike, out: PathLike, first_steps: bool = True, *, overwrite: bool = True) -> dict[str, Any]:
    """Import the release in `src` (a copy of its repository, or of its data folder) into the dataset folder `out`.

    Args:
      src: any subset of the release's files may be there; local or in a bucket.
      out: appears only when it is whole.
      first_steps: whether the first steps of longer chains stand in where there are no single instructions.
      overwrite: whether an earlier import of other rows is replaced.

    Returns:
      What the manifest notes about this import.

    Raises:
      UserError: `src` is not the release, one of its files is not what it should be, or `out` holds other rows.
    """
    folder = release_files.data_folder(src)
    known, unknown = release_files.present(folder)
    if not known:
        raise UserError("src", src, "holds no file of the release; leave --src out to download it")
    with DatasetWriter(out, release_files.REPOSITORY, overwrite=overwrite) as writer:
        importer = Importer(folder, writer)
        importer.learn(known)
        for file in track(known, "importing files"):
            importer.take(file)
        added = importer.add_first_steps() if first_steps else {}
        notes = _notes(importer, known, unknown, added)
        writer.finish(release_files.LICENCE, notes)
    return notes


def _notes(importer: Importer, known: list[ReleaseFile], unknown: list[str], added: dict[str, int]) -> dict[str, Any]:
    here = {file.path for file in known}
    return {
        "pinned_commit": release_files.COMMIT,
        "files": {path: account.record() for path, account in importer.accounts.items()},
        "missing_files": [file.path for file in release_files.FILES if file.path not in here],
        "unknown_files": unknown,
        "first_steps": added,
        "irregular_rows": importer.irregular,
    }
