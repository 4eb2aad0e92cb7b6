"""The shell commands of the documentation pass a linter, each block as a script of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.doc_pages import blocks
from tests.helpers.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_SHELL = [path for path in PAGES if blocks(path, "bash(?: run)?")]
# Files that are not there when a page is checked, as .venv/bin/activate; a `cd` that fails, which one who types sees.
LEFT_OUT = "SC1091,SC2164"


@pytest.mark.parametrize("page", WITH_SHELL, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_linter_finds_nothing(page: Path, tmp_path: Path) -> None:
    for number, (_, block) in enumerate(blocks(page, "bash(?: run)?")):
        (tmp_path / f"{number}.sh").write_text(block, encoding="utf-8")
    command = [
        str(Path(sys.executable).with_name("shellcheck")),
        "--shell=bash",
        f"--exclude={LEFT_OUT}",
        "--format=gcc",
    ]
    done = subprocess.run(
        [*command, *sorted(map(str, tmp_path.iterdir()))], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
