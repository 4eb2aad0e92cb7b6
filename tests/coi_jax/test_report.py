"""The report page, read as JSON and looked at in a real browser."""

import json
import os
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from coi_jax import report
from coi_jax.chains.chain import render
from coi_jax.common import cli, files
from coi_jax.reporting import run_report
from tests.helpers.browsers import FOUND, opened, text, until
from tests.helpers.scored_runs import write_run

pytestmark = pytest.mark.xdist_group("report")  # its large page takes long: one worker makes it
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "islet", "jetty", "knoll", "lagoon"]
SCORES = {"rouge_l": 60.0, "content_exact_match": 50.0}
HOSTILE = "</script><script>window.hacked = 1</script><b>bold</b> \u2028"


def write_answers(run: Path, test: str, rows: list[dict[str, Any]]) -> None:
    path = run / "eval" / test / "predictions.jsonl"
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def row(number: int, references: list[str], outputs: list[str], **more: Any) -> dict[str, Any]:
    scores = [{"scores": {"rouge_l": 80.0}}] if outputs == ["amber birch", "amber grove"] else []
    values: dict[str, Any] = {"steps": scores}
    values |= {"id": f"c{number}", "target": render(references), "prediction": render(outputs), "complete": True}
    return values | {"instruction": "Reverse it. and then Drop a word.", "input": f"input {number}"} | more


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs on chains of two steps: one is wrong at the second step of the second chain, one everywhere."""
    folder = tmp_path / "runs"
    for name, arm, second in (("base", "base", ["x", "y"]), ("coi12", "coi12", ["amber birch", "amber grove"])):
        run = write_run(folder / name, {"arm": arm}, {"proc2_test": SCORES}, source="procedural")
        first = ["birch amber", "amber"] if arm == "coi12" else ["no"]
        write_answers(
            run,
            "proc2_test",
            [
                row(1, ["birch amber", "amber"], first),
                row(2, ["amber birch", "amber cedar"], second, instruction=HOSTILE, complete=arm != "base"),
            ],
        )
        rows = [{"step": step, "loss": 4.0 / step} for step in range(1, 2001)]
        files.write_text(run / "metrics.jsonl", "".join(json.dumps(each) + "\n" for each in rows))
    return folder


def write_page(runs: Path) -> Path:
    assert cli.run(lambda: report.main(["--runs", str(runs)])) == 0
    return runs / "report.html"


def data_of(page: Path) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.S)
    assert found
    return json.loads(found[1])


def test_the_page_has_every_answer_beside_its_reference(runs: Path) -> None:
    data = data_of(write_page(runs))
    assert [run["name"] for run in data["runs"]] == ["base", "coi12"]
    chains = data["tests"]["proc2_test"]["chains"]
    assert [chain["steps"] for chain in chains] == [["birch amber", "amber"], ["amber birch", "amber cedar"]]
    assert chains[1]["instruction"] == HOSTILE
    found = [[answer["right"] for answer in by_test["proc2_test"]] for by_test in data["answers"]]
    assert found == [["00", "00"], ["11", "10"]]
    assert [answer.get("cut") for answer in data["answers"][0]["proc2_test"]] == [None, 1]


def test_curves_are_thinned_out_and_keep_their_ends(runs: Path) -> None:
    curve = data_of(write_page(runs))["runs"][0]["curves"]["training"]
    assert curve[0] == [1, 4.0]
    assert curve[-1] == [2000, 0.002]
    assert len(curve) <= run_report.MOST_POINTS + 1


def test_damaged_files_are_named_and_leave_the_rest_of_the_page(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = runs / "base" / "eval" / "proc2_test" / "predictions.jsonl"
    predictions.write_text('{"id": 3}\n{"broken')
    (runs / "base" / "metrics.jsonl").write_bytes(b"\xff")
    (runs / "coi12" / "metrics.jsonl").unlink()
    data = data_of(write_page(runs))
    assert [len(by_test["proc2_test"]) for by_test in data["answers"]] == [0, 2]
    assert [run["curves"] for run in data["runs"]] == [{}, {}]
    for said in (capsys.readouterr().err, "\n".join(data["faults"])):
        assert str(predictions) in said
        assert f"{runs / 'base' / 'metrics.jsonl'}" in said
        assert f"{runs / 'coi12'}" not in said.replace(f"{runs / 'coi12' / 'eval'}", "")


def test_answers_that_are_missing_are_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = runs / "base" / "eval" / "proc2_test" / "predictions.jsonl"
    predictions.unlink()
    data = data_of(write_page(runs))
    said = f"{predictions} is missing; the page has the scores of its answers alone"
    assert said in data["faults"]
    assert f"left out: {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value", [{"steps": [{"scores": {"rouge_l": "x"}}]}, {"steps": {}}, {"steps": [3]}, {"instruction": 5}]
)
def test_answers_whose_fields_have_another_kind_are_left_out_by_name(runs: Path, value: dict[str, Any]) -> None:
    write_answers(runs / "base", "proc2_test", [row(1, ["a", "b"], ["c"], **value)])
    (runs / "base" / "metrics.jsonl").write_text('{"loss": 3.0}\n')  # and no step
    data = data_of(write_page(runs))
    assert [len(by_test["proc2_test"]) for by_test in data["answers"]] == [0, 2]
    assert f"{runs / 'base' / 'eval' / 'proc2_test' / 'predictions.jsonl'}" in "\n".join(data["faults"])
    assert data["runs"][0]["curves"] == {}


def test_runs_of_a_sweep_are_shown_with_the_reason_why_they_are_no_table(runs: Path) -> None:
    for rate in (1e-3, 1e-4):
        overrides = {"arm": "coi12", "optimizer.learning_rate": rate}
        write_run(runs / f"rate{rate}", overrides, {"proc2_test": SCORES}, source="procedural")
    data = data_of(write_page(runs))
    assert {1e-3, 1e-4} <= {run["fields"].get("optimizer.learning_rate") for run in data["runs"]}
    assert data["tables"] == {}
    assert "do not go into one table: coi12 on proc2_test: " in data["notes"][0]


def test_another_file_is_not_replaced(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_page(write_page(runs).parent)
    (runs / "notes.html").write_text("<p>mine</p>")
    assert cli.run(lambda: report.main(["--runs", str(runs), "--out", str(runs / "notes.html")])) == 2
    assert "was not written by this command" in capsys.readouterr().err
    assert (runs / "notes.html").read_text() == "<p>mine</p>"
    os.mkfifo(runs / "pipe")  # which opening would wait for
    assert cli.run(lambda: report.main(["--runs", str(runs), "--out", str(runs / "pipe")])) == 2
    assert cli.run(lambda: report.main(["--runs", ""])) == 2
    assert "error: --runs: '': is empty; name a path" in capsys.readouterr().err


def write_many(folder: Path) -> Path:
    """Ten runs on six test sets of 200 chains."""
    draw = random.Random(0)
    for number in range(10):
        tests = {f"proc{length}_test": SCORES for length in range(1, 7)}
        run = write_run(folder / f"run{number}", {"arm": "coi12", "seed": number}, tests, source="procedural")
        for length in range(1, 7):
            rows = []
            for chain in range(200):
                lines = [" ".join(draw.choices(WORDS, k=6)) for _ in range(length)]
                rows.append(row(chain, lines, [line if draw.random() < 0.7 else line[2:] for line in lines]))
            write_answers(run, f"proc{length}_test", rows)
    return folder


@pytest.fixture(scope="module")
def large_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(write_many(tmp_path_factory.mktemp("large") / "runs"))


def test_ten_runs_on_six_test_sets_are_a_page_of_at_most_5_mb(large_page: Path) -> None:
    assert 1e6 < large_page.stat().st_size <= 5e6


@pytest.mark.browser
@pytest.mark.parametrize("path", FOUND)
def test_a_reader_finds_the_step_at_which_a_model_goes_wrong(path: str, runs: Path, tmp_path: Path) -> None:
    page = write_page(runs)
    with opened(path, tmp_path / "profile") as driver:
        driver.get(page.as_uri())
        cells = driver.find_elements("css selector", "#heat button")
        assert [cell.text.split("\n") for cell in cells] == [["0"], ["0"], ["100"], ["50", "(50)"]]
        cells[3].click()
        assert text(driver, "#count") == "1 of 2 answers."
        rows = driver.find_elements("css selector", "#detail tbody tr")
        assert [each.text for each in rows[1].find_elements("css selector", "td")] == ["amber cedar", "✗ amber grove"]
        marked = [each.text for each in rows[1].find_elements("css selector", "mark")]
        assert marked == ["cedar", "grove"]
        assert HOSTILE.split("\u2028")[0].strip() in text(driver, "#detail .text")
        assert driver.execute_script("return window.hacked") is None
        driver.find_element("id", "outcome").send_keys("all answers")
        until(driver, lambda driver: text(driver, "#count") == "2 of 2 answers.")
        driver.find_element("id", "list").click()
        driver.find_element("tag name", "body").send_keys("j")
        assert "c2" in text(driver, "#detail")
        driver.find_element("id", "list").send_keys(Keys.ARROW_UP)
        assert "c1" in text(driver, "#detail")
        assert len(driver.find_elements("css selector", "#plots path.line")) == 2
        driver.find_element("id", "measure").send_keys("ROUGE-L")
        rouge = ["–", "–", "80", "–"]
        until(
            driver,
            lambda driver: [cell.text for cell in driver.find_elements("css selector", "#heat td")][-4:] == rouge,
        )


@pytest.mark.browser
@pytest.mark.parametrize("path", FOUND)
def test_a_large_page_is_there_at_once(path: str, large_page: Path, tmp_path: Path) -> None:
    with opened(path, tmp_path / "profile") as driver:
        start = time.monotonic()
        driver.get(large_page.as_uri())
        assert "12,000 answers" in text(driver, "#summary")
        assert len(driver.find_elements("css selector", "#heat button")) == 10 * 21
        assert time.monotonic() - start < 20  # it takes 1 s; here it must not depend on what else the machine does
        driver.find_element("id", "outcome").send_keys("step 1 wrong")
        until(driver, lambda driver: text(driver, "#count") != "200 of 200 answers.")
