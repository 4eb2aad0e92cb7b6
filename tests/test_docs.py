"""The documentation: README.md, CONTRIBUTING.md and the pages of docs/.

All commands are known to their parsers. Blocks marked `bash run` and `python run` are executed in the order of the
navigation in one empty folder, as they stand there but for flags that make them small.
"""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coi_jax.config import loading
from coi_jax.config.run import load_config
from docs.generate import command_lines, config_fields, hook, layers
from launch.sweep import points
from tests.helpers import tokenizer_folders
from tests.helpers.doc_pages import blocks, commands, lines, run, small
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.xdist_group("docs")  # its fixtures take long: one worker makes them

LONGEST_README = 140
LONGEST_HELP = 50  # lines of a screen


def navigation() -> list[str]:
    """The pages of the documentation, in the order of mkdocs.yml."""

    def pages(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from pages(inner)

    return list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs" / page for page in navigation())]
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def module_of(command: str) -> str:
    return shlex.split(command)[2]


ALL = [command for path in PAGES for command in commands(path, "bash(?: run)?")]
MODULES = sorted({module_of(command) for command in ALL if command.startswith("python")} - {"pytest", "venv"})
OURS = [module for module in MODULES if not module.startswith("tests.")]


def test_the_readme_is_short_and_has_the_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_README
    assert "make quickstart" in commands(ROOT / "README.md", "bash")
    assert sum(len(commands(path, "bash run")) for path in PAGES) >= 5
    for module in command_lines.COMMANDS:
        assert module in text or module.count(".") > 1, f"{module} is in the table of jobs"


def test_the_reference_has_every_command_of_the_pages() -> None:
    assert set(OURS) <= set(command_lines.COMMANDS)


@pytest.mark.parametrize("module", command_lines.COMMANDS)
def test_every_flag_is_one_that_the_help_names(module: str) -> None:
    text = command_lines.help_text(module)
    assert 5 < len(text.splitlines()) <= LONGEST_HELP, "help fits a screen"
    assert f"python -m {module}" in text
    for command in ALL:
        if command.startswith("make") or module_of(command) != module:
            continue
        flags = [word.split("=")[0] for word in shlex.split(command) if word.startswith("--")]
        unknown = [flag for flag in flags if not flag.startswith("--config.") and not re.search(rf"{flag}\b", text)]
        assert not unknown, command


CONFIGURED = [
    command
    for command in ALL
    if command.startswith(("python -m coi_jax.train", "python -m data_pipeline.cache", "python -m launch.preflight"))
    and "--config " in command
]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small files of a published model, in place of those that the pages name."""
    folder = tmp_path_factory.mktemp("published")
    tokenizer_folders.llama3(folder)
    tokenizer_folders.write_json(folder / "config.json", {"model_type": "llama"})
    return folder


@pytest.mark.parametrize("command", CONFIGURED)
def test_every_override_is_a_field_that_takes_the_value(command: str, published: Path) -> None:
    words = shlex.split(command)
    overrides = dict(word.removeprefix("--config.").split("=", 1) for word in words if word.startswith("--config."))
    file = words[words.index("--config") + 1]
    if "weights.folder" in overrides:
        overrides["weights.folder"] = str(published)
    config = load_config(f"{ROOT}/{file}", overrides)
    for name, text in overrides.items():
        if name != "model.preset":  # the name of a group of fields, not one itself
            value: Any = config
            for key in name.split("."):
                value = value[key] if isinstance(value, dict) else getattr(value, key)
            assert text in (str(value), str(getattr(value, "kind", value))) or value == ast.literal_eval(text)


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in ALL:
        if command.startswith("make"):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE)


@page
def test_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    new = set(re.findall(r'^```(?!diff)\w+ title="([^"]+)"$', text, re.MULTILINE))  # files that a recipe creates
    for path in re.findall(r"\b(?:configs|docs|launch|coi_jax|data_pipeline|tests|benchmarks)/[\w/]+\.\w+", text):
        assert path in new or (ROOT / path).is_file(), path
    for path in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text):
        assert (page.parent / path).is_file(), path
    assert "{{" not in text
    assert "@@" not in text


def test_the_navigation_has_every_page() -> None:
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages == set(navigation())


@pytest.mark.slow
def test_marked_blocks_run_in_order(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for path in PAGES:
        for info, block in blocks(path, "(?:bash|python) run"):
            for arguments in [["-c", block]] if info.startswith("python") else map(small, lines(block)):
                run(arguments, tmp_path)
    assert (tmp_path / "report" / "figure6.png").is_file()


def test_sweep_and_config_files_that_are_shown_can_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # from which the sweeps name their config
    snippets = [block for path in PAGES for _, block in blocks(path, "python")]
    shown = [block for block in snippets if "def sweep()" in block or "def get_config()" in block]
    for number, block in enumerate(shown):
        file = tmp_path / f"shown{number}.py"
        file.write_text(block, encoding="utf-8")
        assert points.expand(file, {}, None) if "def sweep()" in block else loading.read(file)
    assert len(shown) == 3
    quickstart = (ROOT / "configs" / "sweeps" / "quickstart.py").read_text(encoding="utf-8")
    assert any(quickstart.endswith(f"\n{block}") for block in shown)


def test_every_page_is_filled_with_its_generated_parts() -> None:
    found = set()
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        found |= set(hook.MARKER.findall(text))
    assert found == set(hook.PARTS)
    assert hook.on_page_markdown("a\n<!-- generated: layers -->\nb\n```bash run\n```").startswith("a\n<svg")


def test_the_reference_describes_every_field_of_a_config() -> None:
    text = config_fields.run_fields()
    config = load_config(ROOT / "configs" / "quickstart.py", {}).model_dump(mode="json")

    def names(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
        for field, value in values.items():
            name = f"{prefix}{field}"
            is_section = isinstance(value, dict) and name != "optimizer.options"
            yield from names(value, f"{name}.") if is_section else [name]

    missing = [name for name in names(config) if f"| `{name}` |" not in text and f"### `{name}`:" not in text]
    assert not missing
    assert "| `data.batch.rows` | integer, above 0 or `None` | packed rows per step" in text
    assert "### `lora`: LoraConfig" in text
    assert "`data.overlong` | `'drop'`, `'cut_inputs'`, `'cut_targets'` | what becomes of an example" in text


def test_the_picture_has_every_package() -> None:
    picture = layers.svg()
    packages = {path.parent.name for path in (ROOT / "coi_jax").glob("*/__init__.py")}
    drawn = {name for layer in layers.read_layers() for name in layer}
    assert packages <= drawn
    assert all(f">{name}</text>" in picture for name in drawn)
    assert layers.read_layers()[-1] == ["common"]
