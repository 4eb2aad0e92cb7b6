"""The pages "add a …" of docs/contributing/, followed literally in a copy of the project.

A block with a title is a change: `diff` edits the file of that name, any other language is a new file. Blocks of `bash`
are run, as they stand there but for flags that make them small. A block `text output` holds lines that the commands
before it must have printed.
"""

import re
import shutil
from pathlib import Path

import pytest

from tests.helpers.doc_pages import lines, run, small
from tests.helpers.paths import ROOT

pytestmark = [pytest.mark.xdist_group("recipes"), pytest.mark.slow]  # one worker makes the run that all begin with

PAGES = sorted(path for path in (ROOT / "docs" / "contributing").glob("*.md") if path.stem != "index")
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?( output)?\n(.*?)^```$', re.MULTILINE | re.DOTALL)

FOLDERS = ("coi_jax", "configs", "data_pipeline", "launch", "tests")

# What the tutorial "Quickstart" leaves behind; one process writes all of its token caches.
QUICKSTART = (
    "python -m data_pipeline.procedural --out data/lists --operations lists --max_level 1",
    "python -m data_pipeline.cache --config configs/quickstart.py --config.arm=coi12 --config.data.folder=data/lists",
    "python -m coi_jax.train --config configs/quickstart.py --workdir runs/coi12 --config.arm=coi12"
    " --config.data.folder=data/lists",
)


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data/` and `runs/` of the tutorial."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "configs").symlink_to(ROOT / "configs")
    for command in QUICKSTART:
        run(small(command), folder)
    return folder


@pytest.fixture
def tree(tutorial: Path, tmp_path: Path) -> Path:
    """A copy of the project, with what the tutorial leaves behind."""
    copied = tmp_path / "project"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copied / name, ignore=shutil.ignore_patterns("goldens"))  # with compiled modules
    for name in ("data", "runs"):
        shutil.copytree(tutorial / name, copied / name)
    shutil.copy(ROOT / "pyproject.toml", copied)
    return copied


def apply(diff: str, path: Path) -> None:
    """Replace the lines of a file that a diff begins with by those that it ends with; they must stand there once."""
    changes = [(line[:1] or " ", line[1:]) for line in diff.splitlines()]
    before, after = ("".join(f"{text}\n" for sign, text in changes if sign in keep) for keep in (" -", " +"))
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1, f"{path} has not exactly once:\n{before}"
    path.write_text(content.replace(before, after), encoding="utf-8")


def follow(page: Path, tree: Path) -> None:
    """Do what a page says."""
    printed = ""
    for language, title, output, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if output:
            missing = [line for line in lines(block) if " ".join(line.split()) not in " ".join(printed.split())]
            assert not missing, f"{missing} not in\n{printed}"
        elif title and language == "diff":
            apply(block, tree / title)
        elif title:
            assert not (tree / title).exists(), f"{title} is there already"
            (tree / title).parent.mkdir(parents=True, exist_ok=True)
            (tree / title).write_text(block, encoding="utf-8")
        elif language == "bash":
            printed = "".join(run(small(line), tree, tree) for line in lines(block))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_reader_can_follow_the_page(page: Path, tree: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "```bash\n" in text
    assert " output\n" in text
    follow(page, tree)


def test_a_diff_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("x = 1\ny = 2\n")
    apply(" x = 1\n+z = 3\n-y = 2\n", file)
    assert file.read_text() == "x = 1\nz = 3\n"
    with pytest.raises(AssertionError, match="not exactly once"):
        apply(" y = 2\n+z = 3\n", file)
