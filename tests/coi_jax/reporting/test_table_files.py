import csv
import io

from coi_jax.reporting.table_files import Table, as_csv, as_latex, as_page

TABLE = Table(
    name="table9",
    title="Table 9: a & b",
    sections={"100% of x_1": [["arm", "a_b"], ["coi12", "70.0 ± 1.0"], ["base", "12.5 (−3.0)"]]},
    notes=["The first.", "The second."],
    cells=[],
    rows=[{"arm": "coi12", "mean": 70.0}, {"arm": "base, as it is", "mean": None}],
    content={},
    appendix="## The end",
)


def test_latex_escapes_what_would_not_compile() -> None:
    text = as_latex(TABLE)
    assert r"\caption{Table 9: a \& b: 100\% of x\_1}" in text
    assert r"70.0 $\pm$ 1.0" in text
    assert r"12.5 ($-$3.0)" in text
    assert r"a\_b" in text
    assert [text.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]
    assert text.isascii()
    assert text.startswith("% The first.\n% The second.\n")


def test_a_page_has_sections_notes_and_appendix_in_order() -> None:
    page = as_page(TABLE)
    parts = ["# Table 9", "## 100% of x_1", "| coi12 | 70.0 ± 1.0  |", "## Notes", "- The second.", "## The end"]
    assert [page.index(part) for part in parts] == sorted(page.index(part) for part in parts)


def test_csv_reads_back() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(TABLE))))
    assert rows == [{"arm": "coi12", "mean": "70.0"}, {"arm": "base, as it is", "mean": ""}]
