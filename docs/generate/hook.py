"""Fill generated text into pages when MkDocs builds them.

A line `<!-- generated: NAME -->` in a page is replaced by what the function of that name returns.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # MkDocs loads this file by its path

from docs.generate import command_lines, config_fields, layers  # noqa: E402

PARTS: dict[str, Callable[[], str]] = {
    "build-fields": config_fields.build_fields,
    "command-lines": command_lines.markdown,
    "layers": layers.svg,
    "run-fields": config_fields.run_fields,
}
MARKER = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)
# Words after a block's language say what the tests do with it (`bash run`); they mean nothing to the highlighter.
TEST_WORDS = re.compile(r"^(```\w+) (?:run|output)$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the Markdown of a page with its generated parts (MkDocs calls this for each page)."""
    return MARKER.sub(lambda match: PARTS[match[1]](), TEST_WORDS.sub(r"\1", markdown))
