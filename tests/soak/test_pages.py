"""Pages hold what people and models wrote as text: no element, attribute or script comes of it."""

import html.parser
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask
import pytest

from coi_jax.common import files
from coi_jax.judging.answer_pairs import AnswerPair
from coi_jax.judging.ballot_page import BallotSession
from coi_jax.judging.ballot_page import application as ballot_page
from coi_jax.judging.ballots import write_ballots
from coi_jax.reporting import run_report
from coi_jax.reporting.run_records import read
from coi_jax.serving.page_files import PAGE, PAGE_FILES
from data_pipeline.build.review.chain_outcomes import WRITTEN, Outcome
from data_pipeline.build.review.curation import CurationSession
from data_pipeline.build.review.curation_page import application as curation_page
from tests.helpers.drafts import draft, opinion
from tests.soak.targets.record_targets import with_texts

PAYLOADS = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "javascript:alert(1)",
    "<!--<script>",
    "]]></style><b>",
    "{{ 7 * 7 }}{% raw %}",
    "\u2028\u2029<\\/script>",
)
SAFE = "plain words"


class _Elements(html.parser.HTMLParser):
    """The elements of a page with the names of their attributes, in order, and the links among their values."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[Any] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(name for name, _ in attrs)))
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]

    def handle_comment(self, data: str) -> None:
        self.found.append("comment")


def run_page(folder: Path, text: str) -> str:
    for name, content in with_texts(text).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    data = run_report.content(read([folder]))
    assert text in json.dumps(data, ensure_ascii=False).replace("\\\\", "\\").replace('\\"', '"')
    return run_report.render(data)


def _page_of(app: flask.Flask) -> str:
    return app.test_client().get("/", headers={"Host": "localhost"}).get_data(as_text=True)


def curation(folder: Path, text: str) -> str:
    chains = [Outcome(draft(text, 2, opinion(score)), WRITTEN, text) for score in (2, 5)]
    return _page_of(curation_page(CurationSession(chains, folder / "decisions.jsonl", text, 4, 0)))


def ballots(folder: Path, text: str) -> str:
    write_ballots([AnswerPair("1", text, text, text, text, f"{text}.")], folder / "ballots.csv", 0, {"a": text})
    return _page_of(ballot_page(BallotSession(folder / "ballots.csv")))


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("page", [run_page, curation, ballots])
def test_a_page_has_the_same_elements_whatever_its_texts_are(
    tmp_path: Path, page: Callable[[Path, str], str], payload: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours, theirs = _Elements(page(tmp_path / "a", SAFE)), _Elements(page(tmp_path / "b", payload))
    assert theirs.found == ours.found
    assert theirs.links == ours.links


def test_scripts_put_data_into_pages_as_text_alone() -> None:
    """No script of a page reads data as HTML or as a program; the page of the server holds no data at all."""
    root = PAGE.parents[2]
    scripts = [
        path for kind in ("*.js", "*.html") for top in ("coi_jax", "data_pipeline") for path in _under(root, top, kind)
    ]
    assert len(scripts) > 10
    for path in scripts:
        text = files.read_text(path)
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "srcdoc",
        ):
            assert way not in text, f"{path} uses {way}"
    assert all("{{" not in files.read_text(PAGE / name) for name in PAGE_FILES.values())


def _under(root: Path, top: str, kind: str) -> list[Path]:
    return sorted((root / top).rglob(kind))
