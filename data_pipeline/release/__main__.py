"""Imports the official Chain-of-Instructions release into a dataset folder.

Takes whatever files of the release lie in --src; without --src it first downloads them all, at a pinned commit, with
checksums. Every row comes out as a chain, is counted as a repeat (union files such as coi_12.json repeat the rows of
others), or goes whole into rejected.jsonl. manifest.json accounts for all of them.

  python -m data_pipeline.release --src ../shared/data/coi_release --out data/coi

The release is CC BY-NC 4.0: do not redistribute what this writes.
"""

import collections
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import DatasetWriter, read_manifest
from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.common.progress import track
from data_pipeline.json_stream import read_array
from data_pipeline.release import download, manifest
from data_pipeline.release.manifest import Form, ReleaseFile
from data_pipeline.release.rows import KNOWN_KEYS, NotAChain, Reading, Survey, read, row_key, writable

FIRST_STEP = "#first_step"


@dataclass
class Account:
    """Where the rows of one file went.

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
        """The account as the manifest holds it."""
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

    def __init__(self, folder: Path, writer: DatasetWriter) -> None:
        self._folder, self._writer = folder, writer
        self._survey = Survey()
        self._seen: dict[str, str] = {}
        self.accounts: dict[str, Account] = {}
        self.irregular: list[dict[str, Any]] = []
        self._first_steps: dict[str, Chain] = {}

    def _rows(self, file: ReleaseFile) -> Iterator[Any]:
        return read_array(self._folder / file.path, "release file")

    def learn(self, known: Sequence[ReleaseFile]) -> None:
        """Reads the files for what their regular rows teach about irregular ones."""
        for file in known:
            if file.form is Form.SUMMARY or max(file.lengths) == 1:
                continue
            for row in self._rows(file):
                # summarized_coi_3 has fused and explicit instructions, so its rows teach too.
                if file.form is Form.CHAIN or (isinstance(row, dict) and "summarized_coi" in row):
                    self._survey.learn(row)
        self._survey.settle()

    def take(self, file: ReleaseFile) -> None:
        """Imports a file.

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
        return manifest.git_blob(self._folder / file.path) == manifest.CHECKSUMS[file.path]

    def _is_repeat(self, row: Any, file: ReleaseFile, account: Account) -> bool:
        """Whether a union file repeats a row of another training file; counts it, or remembers a new row."""
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
        """Where no file gave training chains of length 1: writes the distinct first steps of the longer ones.

        Returns how many, by source.
        """
        if self._writer.counts["train"][1]:
            return {}
        for chain in self._first_steps.values():
            self._writer.add("train", chain)
        return dict(collections.Counter(chain.source for chain in self._first_steps.values()))


def first_step(chain: Chain) -> Chain:
    """The first step of a chain as a chain of its own, labelled so."""
    step = chain.steps[0]
    return Chain(chain.id + FIRST_STEP, chain.source + FIRST_STEP, chain.input, step.instruction, (step,))


def import_release(src: Path, out: Path, first_steps: bool = True) -> dict[str, Any]:
    """Imports the release in `src` (a copy of its repository, or of its data folder) into the dataset folder `out`.

    Args:
      src: any subset of the release's files may be there.
      out: appears only when it is whole.
      first_steps: whether the first steps of longer chains stand in where there are no single instructions.

    Returns:
      What the manifest notes about this import.

    Raises:
      UserError: `src` is not the release, or one of its files is not what it should be.
    """
    folder = manifest.data_folder(src)
    known, unknown = manifest.present(folder)
    if not known:
        raise UserError("src", src, "holds no file of the release; leave --src out to download it")
    with DatasetWriter(out) as writer:
        importer = Importer(folder, writer)
        importer.learn(known)
        for file in track(known, "importing files"):
            importer.take(file)
        added = importer.add_first_steps() if first_steps else {}
        notes = _notes(importer, known, unknown, added)
        writer.finish(manifest.REPOSITORY, manifest.LICENCE, notes)
    return notes


def _notes(importer: Importer, known: list[ReleaseFile], unknown: list[str], added: dict[str, int]) -> dict[str, Any]:
    here = {file.path for file in known}
    return {
        "pinned_commit": manifest.COMMIT,
        "files": {path: account.record() for path, account in importer.accounts.items()},
        "missing_files": [file.path for file in manifest.FILES if file.path not in here],
        "unknown_files": unknown,
        "first_steps": added,
        "irregular_rows": importer.irregular,
    }


def summary(out: Path, manifest: dict[str, Any]) -> str:
    """What an import did, in a few lines."""
    notes = manifest["notes"]
    lines = [f"{'split':<18}{'length':>6}{'chains':>9}"]
    lines += [
        f"{split:<18}{length:>6}{count:>9,}" for split, by in manifest["counts"].items() for length, count in by.items()
    ]
    repeated = sum(sum(file["repeats"].values()) for file in notes["files"].values())
    rows = sum(file["rows"] for file in notes["files"].values())
    lines.append(
        f"{rows:,} rows of {len(notes['files'])} files: {sum(manifest['rejected'].values()):,} rejected, "
        f"{repeated:,} repeats, {len(notes['irregular_rows'])} irregular"
    )
    if notes["first_steps"]:
        lines.append(f"no single instructions given: {sum(notes['first_steps'].values()):,} first steps stand in")
    changed = [path for path, file in notes["files"].items() if not file["published"]]
    lines += [f"differs from the published file: {path}" for path in changed]
    lines += [f"unknown file, not imported: {path}" for path in notes["unknown_files"]]
    lines.append(f"{manifest['licence']}, {manifest['source']}; how each row was read: {out / 'manifest.json'}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("--src", type=Path, help="folder of the release; without it the release is downloaded")
    parser.add_argument("--out", type=Path, required=True, help="dataset folder to write")
    parser.add_argument("--no_first_steps", action="store_true", help="leave length 1 empty where coi_1.json is absent")
    parser.add_argument(
        "--download_folder", type=Path, default=download.default_folder(), help="where downloaded files are kept"
    )
    parser.add_argument("--base_url", default=manifest.BASE_URL, help="where data/ is served")
    arguments = parser.parse_args(argv)
    src = arguments.src or download.download(arguments.download_folder, arguments.base_url)
    import_release(src, arguments.out, first_steps=not arguments.no_first_steps)
    print(summary(arguments.out, read_manifest(arguments.out)))
    return 0


def command() -> int:
    """Run the command `coi-release`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
