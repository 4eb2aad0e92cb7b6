"""Imports the official Chain-of-Instructions release into a dataset folder.

Takes whatever files of the release lie in --src; without --src it first downloads them all, at a pinned commit, with
checksums. Every row comes out as a chain, is counted as a repeat (union files such as coi_12.json repeat the rows of
others), or goes whole into rejected.jsonl. manifest.json accounts for all of them.

  python -m data_pipeline.release --out data/coi

The release is CC BY-NC 4.0: do not redistribute what this writes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coi_jax.chains.dataset import check_replaceable, read_manifest
from coi_jax.common import cli
from coi_jax.common.storage import PathLike, local_path
from coi_jax.common.wording import count_of
from data_pipeline.release import download, release_files
from data_pipeline.release.importer import import_release
from data_pipeline.text_tables import text_table


def summary(out: PathLike, manifest: dict[str, Any]) -> str:
    """Return a summary of an import, in a few lines."""
    notes = manifest["notes"]
    counts = manifest["counts"].items()
    lines = text_table(
        ["split", "length", "chains"],
        [[split, length, count] for split, by_length in counts for length, count in by_length.items()],
    )
    repeated = sum(sum(file["repeats"].values()) for file in notes["files"].values())
    rows = sum(file["rows"] for file in notes["files"].values())
    lines.append(
        f"{count_of(rows, 'row')} of {count_of(len(notes['files']), 'file')}: "
        f"{sum(manifest['rejected'].values()):,} rejected, "
        f"{count_of(repeated, 'repeat')}, {len(notes['irregular_rows'])} irregular"
    )
    if notes["first_steps"]:
        lines.append(f"no single instructions given: {sum(notes['first_steps'].values()):,} first steps stand in")
    changed = [path for path, file in notes["files"].items() if not file["published"]]
    lines += [f"differs from the published file: {path}" for path in changed]
    lines += [f"unknown file, not imported: {path}" for path in notes["unknown_files"]]
    lines.append(f"{manifest['licence']}, {manifest['source']}; how each row was read: {out}/manifest.json")
    return "\n".join(lines)


def _downloads(folder: PathLike) -> Path:
    return local_path(folder, "download_folder", "holds unfinished files that grow")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("--src", help="folder of the release; without it the release is downloaded")
    parser.add_argument("--out", required=True, help="dataset folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an import of other rows")
    parser.add_argument("--no_first_steps", action="store_true", help="leave length 1 empty where coi_1.json is absent")
    parser.add_argument("--download_folder", default=download.default_folder(), help="where downloaded files are kept")
    parser.add_argument("--base_url", default=release_files.BASE_URL, help="where data/ is served")
    arguments = parser.parse_args(argv)
    check_replaceable(arguments.out, release_files.REPOSITORY)  # before anything is downloaded
    src = (
        arguments.src
        if arguments.src is not None
        else download.download(_downloads(arguments.download_folder), arguments.base_url)
    )
    import_release(src, arguments.out, first_steps=not arguments.no_first_steps, overwrite=arguments.overwrite)
    print(summary(arguments.out, read_manifest(arguments.out)))
    return 0


def command() -> int:
    """Run the command `coi-release`: `main`, with mistakes as one line and an exit status."""
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
