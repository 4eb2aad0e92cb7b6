"""The files of the page, and the paths that they are served at."""

from pathlib import Path

PAGE = Path(__file__).parent / "page"
PAGE_FILES = {"/": "page.html"} | {
    f"/{path.name}": path.name for path in sorted(PAGE.iterdir()) if path.suffix in (".css", ".js")
}
