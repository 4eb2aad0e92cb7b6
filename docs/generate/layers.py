"""Draw the layers of `coi_jax/` as SVG, from the contracts of import-linter in pyproject.toml."""

import ast
import html
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTAINER = "coi_jax"

WIDTH = 960
ROW, GAP = 56, 10
CHARACTERS = 6.1  # average width of a character of a description, in pixels
COLORS = ("#e8eaf6", "#3949ab")  # fill and border


def read_layers() -> list[list[str]]:
    """Return the packages of each layer, the highest layer first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    found = next(contract for contract in contracts if contract.get("containers") == [CONTAINER])
    return [[name.strip(" ()") for name in layer.split("|")] for layer in found["layers"]]


def describe(package: str) -> str:
    """Return the first sentence of a package's docstring; empty for a module, which is a command."""
    path = ROOT / CONTAINER / package / "__init__.py"
    if not path.is_file():
        return ""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    sentence = docstring.split("\n\n")[0].replace("\n", " ").rstrip(".")
    return re.sub(r" \(`.*?`\)|`", "", sentence)


def svg() -> str:
    """Return the picture: a row for each layer, a box for each package, and which way imports point."""
    layers = read_layers()
    height = len(layers) * (ROW + GAP) + 24
    rows = "".join(_row(names, 24 + number * (ROW + GAP)) for number, names in enumerate(layers))
    return (
        f'<svg class="layers" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Packages of coi_jax by layer" font-family="sans-serif">'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
        f'<text x="8" y="14" font-size="12" fill="#555555">A package imports from rows below its own, never from '
        f"its own row or above.</text>{rows}</svg>\n"
    )


def _row(names: list[str], top: int) -> str:
    width = (WIDTH - 8 * (len(names) + 1)) / len(names)
    return "".join(_box(name, 8 + place * (width + 8), top, width) for place, name in enumerate(names))


def _box(name: str, left: float, top: int, width: float) -> str:
    fill, border = COLORS
    middle = left + width / 2
    lines = _wrap(describe(name), int((width - 12) / CHARACTERS))
    title_y = top + (22 if lines else 33)
    text = "".join(
        f'<text x="{middle:.0f}" y="{top + 38 + 12 * number}" font-size="11" text-anchor="middle" fill="#333333">'
        f"{html.escape(line)}</text>"
        for number, line in enumerate(lines)
    )
    return (
        f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{ROW}" rx="5" fill="{fill}" stroke="{border}"/>'
        f'<text x="{middle:.0f}" y="{title_y}" font-size="14" font-weight="bold" text-anchor="middle" fill="#1a237e">'
        f"{html.escape(name)}</text>{text}"
    )


def _wrap(text: str, characters: int) -> list[str]:
    """Return at most two lines of whole words."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + len(word) < characters:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines[:2]
