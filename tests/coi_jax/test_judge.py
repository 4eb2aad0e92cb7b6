"""Two runs compared by a judge behind a real server on loopback, and by people."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coi_jax import judge
from coi_jax.common import cli, files
from coi_jax.judging import preference
from coi_jax.judging.answer_pairs import read_pairs
from coi_jax.judging.verdicts import Choice, Judgement
from tests.helpers.paths import CONFIGS
from tests.helpers.scripted_server import Response, completion, serving

GOOD, BAD = "the good answer", "a bad answer"
Better = Callable[[str, str], str]  # of the first and the second answer


def write_predictions(run: Path, answers: dict[str, str], **changes: Any) -> Path:
    rows = [
        {"id": id, "instruction": f"Do {id}.", "input": "x", "target": GOOD, "prediction": text, **changes}
        for id, text in answers.items()
    ]
    files.write_text(run / "eval" / "coi2_test" / "predictions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return run


def double(path: Path) -> None:
    path.write_text(2 * path.read_text(encoding="utf-8"), encoding="utf-8")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Run A is right about six of eight chains, B about one; the answers to the last are the same."""
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("COI_LLM_MODEL", "m")
    a = {f"c{k}": GOOD if k < 6 else f"{BAD} {k}" for k in range(8)}
    b = {f"c{k}": GOOD if k == 6 else f"{BAD} {k}" for k in range(8)}
    return write_predictions(tmp_path / "a", a), write_predictions(tmp_path / "b", b)


def answering(better: Better) -> Callable[[dict[str, Any], int], Response]:
    def answer(request: dict[str, Any], _: int) -> Response:
        text = request["messages"][1]["content"]  # a repair quotes it and says what was wrong
        first, second = text.split("The first answer:")[1].split("The second answer:")
        verdict = better(first, second)
        return completion(verdict if verdict.startswith("{") else json.dumps({"reason": "It is.", "better": verdict}))

    return answer


def fair(first: str, second: str) -> str:
    return "tie" if (GOOD in first) == (GOOD in second) else "first" if GOOD in first else "second"


def compare(runs: tuple[Path, Path], *options: str, url: str = "http://127.0.0.1:9/v1") -> int:
    a, b = runs
    task = [] if any(option.startswith("--task") for option in options) else ["--task=coi2_test"]
    fixed = [f"--a={a}", f"--b={b}", *task, f"--config={CONFIGS / 'judge/pairwise.py'}"]
    fixed += [f"--config.endpoint.base_url={url}", f"--config.store={a.parent / 'replies.sqlite'}"]
    return cli.run(lambda: judge.main([*fixed, *options]))


def result(runs: tuple[Path, Path], by: str = "model") -> Any:
    return files.read_json(runs[0] / "judge" / f"coi2_test_vs_b_by_{by}.json")


@pytest.fixture
def fair_url() -> Iterator[str]:
    with serving(answering(fair)) as served:
        yield served.url


def test_the_better_run_wins_by_as_much_as_it_is_better(
    runs: tuple[Path, Path], fair_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(runs, url=fair_url) == 0
    found = result(runs)
    assert [found[name]["value"] for name in ("wins", "ties", "losses")] == [75.0, 12.5, 12.5]
    assert found["win_rate"]["value"] == 81.25
    assert found["win_rate"]["low"] < 81.25 < found["win_rate"]["high"]
    assert (found["order_agreement"], found["first_rate"], found["same"], found["unusable"]) == (100.0, 50.0, 1, 0)
    assert {row["better"] for row in found["verdicts"]} == {"a", "b"}
    assert "A preferred (ties count half): 81.2% [" in capsys.readouterr().out


def test_a_judge_that_takes_what_stands_first_gives_ties(runs: tuple[Path, Path]) -> None:
    with serving(answering(lambda first, second: "first")) as served:
        assert compare(runs, url=served.url) == 0
    found = result(runs)
    assert found["ties"]["value"] == 100.0
    assert (found["order_agreement"], found["first_rate"]) == (0.0, 100.0)


def test_the_same_command_asks_nothing_twice(runs: tuple[Path, Path]) -> None:
    with serving(answering(fair)) as served:
        assert compare(runs, url=served.url) == 0
        asked, before = len(served.requests), result(runs)
        assert asked == 14  # seven pairs in both orders
        assert compare(runs, url=served.url) == 0
        assert len(served.requests) == asked
    assert result(runs) == before


def test_a_spent_budget_is_one_line_and_a_larger_one_goes_on(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(answering(fair)) as served:
        assert compare(runs, "--budget=0.0008", "--config.endpoint.concurrency=1", url=served.url) == 2
        error = capsys.readouterr().err
        assert "--budget: spent: " in error
        assert "no reply yet to " in error
        assert " questions; replies are kept" in error
        assert 0 < len(served.requests) < 14
        assert compare(runs, "--budget=1", url=served.url) == 0
        assert len(served.requests) == 14


def test_nonsense_leaves_a_pair_out_and_the_rest_goes_on(runs: tuple[Path, Path]) -> None:
    with serving(
        answering(lambda first, second: "{}" if f"{BAD} 3" in first + second else fair(first, second))
    ) as served:
        assert compare(runs, url=served.url) == 0
    found = result(runs)
    assert (found["unusable"], found["pairs"]) == (1, 8)
    (left_out,) = [row for row in found["verdicts"] if row["better"] is None]
    assert left_out["id"] == "c3"
    assert "not of the wanted form" in left_out["reasons"][0]


def test_a_model_that_says_only_nonsense_is_one_line(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(answering(lambda first, second: "{}")) as served:
        assert compare(runs, url=served.url) == 2
    assert "endpoint.model: m: no reply could be used" in capsys.readouterr().err
    assert not (runs[0] / "judge").exists()


def test_an_answer_cannot_speak_for_the_other(runs: tuple[Path, Path]) -> None:
    with serving(answering(fair)) as served:
        assert compare(runs, url=served.url) == 0
    text = served.requests[0]["messages"][-1]["content"]
    marks = [line for line in text.splitlines() if line.startswith("<<") or line.endswith(">>")]
    assert len(marks) == 2 * 4  # instruction, input and both answers, each within its marks
    assert GOOD not in text.split("The first answer:")[0]  # the reference is not shown


def test_the_reference_is_shown_where_the_config_says_so(runs: tuple[Path, Path]) -> None:
    with serving(answering(fair)) as served:
        assert compare(runs, "--config.shows_reference", url=served.url) == 0
    assert GOOD in served.requests[0]["messages"][-1]["content"].split("The first answer:")[0]


def fill_in(path: Path, choose: Callable[[dict[str, str]], str]) -> None:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(path, "w", encoding="utf-8-sig", newline="") as file:  # as a spreadsheet saves it
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"choice": choose(row)} for row in rows)


def choose_good(row: dict[str, str]) -> str:
    return " Left" if GOOD in row["left"] else "RIGHT " if GOOD in row["right"] else "tie"


@pytest.mark.parametrize(("side", "url"), [("--a", "http://localhost:9/x"), ("--b", "abc://x")])
def test_a_run_of_an_unknown_kind_of_url_is_named(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path, side: str, url: str
) -> None:
    given = {"--a": str(runs[0]), "--b": str(runs[1]), side: url, "--ballots": str(tmp_path / "ballots.csv")}
    assert cli.run(lambda: judge.main(["--task=coi2_test", *(f"{name}={value}" for name, value in given.items())])) == 2
    assert capsys.readouterr().err.startswith(f"error: {side}: {url}: cannot be reached; name a local path")


def test_verdicts_that_were_changed_are_not_compared_with_those_of_people(
    runs: tuple[Path, Path], fair_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ballots = tmp_path / "ballots.csv"
    assert compare(runs, f"--ballots={ballots}") == 0
    fill_in(ballots, choose_good)
    assert compare(runs, url=fair_url) == 0
    (path,) = (runs[0] / "judge").iterdir()
    path.write_text(path.read_text().replace('"better"', '"best"', 1))
    assert compare(runs, f"--score={ballots}") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: verdicts: {path}: verdicts.0.better: ")
    assert error.count("\n") == 1


def test_people_choose_blindly_and_agree_with_the_judge(
    runs: tuple[Path, Path], fair_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ballots = tmp_path / "ballots.csv"
    assert compare(runs, f"--ballots={ballots}") == 0
    assert "7 pairs in" in capsys.readouterr().out
    text = ballots.read_text()
    assert str(runs[0]) not in text
    fill_in(ballots, choose_good)
    assert compare(runs, url=fair_url) == 0
    assert compare(runs, f"--score={ballots}") == 0
    found = result(runs, "people")
    assert [round(found[name]["value"], 1) for name in ("wins", "losses")] == [85.7, 14.3]
    assert found["agreement_with_model"] == {"pairs": 7, "agreement": 100.0, "kappa": 1.0}
    for others, more in (((runs[1], runs[0]), ()), (runs, ("--task=coi3_test",))):  # the second --task wins
        capsys.readouterr()
        assert compare(others, f"--score={ballots}", *more) == 2
        said = f"--score: {ballots}: compares {runs[0]} as A with {runs[1]} as B on "
        assert said in capsys.readouterr().err
    sides = files.read_json(f"{ballots}.key.json")["left"]
    assert set(sides.values()) == {"a", "b"}  # the sides do not give the run away


def test_several_people_are_summed_up_by_the_majority_and_their_agreement(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def always_a(row: dict[str, str]) -> str:
        is_left_of_a = files.read_json(tmp_path / "0.csv.key.json")["left"][row["id"]] == "a"
        return "left" if is_left_of_a else "right"

    for number, choose in enumerate((choose_good, choose_good, always_a)):
        assert compare(runs, f"--ballots={tmp_path / f'{number}.csv'}") == 0
        fill_in(tmp_path / f"{number}.csv", choose)
    capsys.readouterr()
    assert compare(runs, "--score", *(str(tmp_path / f"{number}.csv") for number in range(3))) == 0
    found = result(runs, "people")
    assert (found["people"], found["pairs"]) == (3, 7)
    assert [round(found[name]["value"], 1) for name in ("wins", "losses")] == [85.7, 14.3]
    assert [round(one["agreement"], 1) for one in found["agreement_between_people"]] == [100.0, 85.7, 85.7]
    assert "two people agree: 100.0% of 7 pairs, Cohen's kappa 1.00" in capsys.readouterr().out


def test_people_of_two_minds_are_a_tie() -> None:
    people: list[dict[str, Choice]] = [{"x": "a", "y": "a", "z": "b"}, {"x": "b", "y": "tie"}]
    assert preference.majority(people) == {"x": "tie", "y": "a", "z": "b"}


def test_choices_that_were_made_are_not_overwritten(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ballots = tmp_path / "ballots.csv"
    for _ in range(2):
        assert compare(runs, f"--ballots={ballots}") == 0
    assert compare(runs, f"--score={ballots}") == 2
    assert "has no choice yet" in capsys.readouterr().err
    fill_in(ballots, choose_good)
    assert compare(runs, f"--ballots={ballots}") == 2
    fill_in(ballots, lambda row: "lefft" if row["number"] == "2" else "tie")
    capsys.readouterr()
    assert compare(runs, f"--score={ballots}") == 2
    assert "choice of pair 2: lefft: unknown; did you mean 'left'" in capsys.readouterr().err


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_any_text_of_an_answer_comes_back_from_a_spreadsheet(
    runs: tuple[Path, Path], tmp_path: Path, delimiter: str
) -> None:
    texts = {"c0": "a\rb", "c1": 'say "no", then\n\nstop', "c2": "x\r\ny;z"}
    a = write_predictions(tmp_path / "a", texts)
    ballots = tmp_path / "b.csv"
    assert compare((a, runs[1]), f"--ballots={ballots}") == 0
    with open(ballots, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["left"] if row["left"] in texts.values() else row["right"] for row in rows) == sorted(
        texts.values()
    )
    with open(ballots, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(row | {"choice": "tie"} for row in rows)
    assert compare((a, runs[1]), f"--score={ballots}") == 0
    assert result((a, runs[1]), "people")["pairs"] == 3


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: [*lines, lines[1]], "has 2 rows of the pair c"),
        (lambda lines: [f"{lines[0]},choice", *(f"{line},left" for line in lines[1:])], "the column 'choice' twice"),
        (lambda lines: [lines[0].replace("choice", "Choice"), *lines[1:]], "has no column 'choice' (its columns are"),
        (lambda lines: [lines[0], lines[1].rpartition(",")[0], *lines[2:]], "the row has 6 values, where the header"),
        (lambda lines: [*lines[:2], f"{lines[2]},left", *lines[3:]], ".csv:3: the row has 8 values, where the header"),
        (lambda lines: lines[:1], "has no pair"),
        (lambda lines: [*lines[:-1], lines[-1][:-1]], "is not CSV (unexpected end of data)"),
        (lambda lines: ["a,b", "1,2"], "was not written by this command"),
        (lambda lines: [lines[0], *(line.replace('"c', '"0c') for line in lines[1:])], "do not change the column `id`"),
    ],
)
def test_a_table_that_was_changed_names_its_fault(
    runs: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[list[str]], list[str]],
    said: str,
) -> None:
    ballots = tmp_path / "b.csv"
    assert compare(runs, f"--ballots={ballots}") == 0
    lines = ballots.read_text().splitlines()
    ballots.write_text("\n".join(spoil(lines)), encoding="utf-8")
    capsys.readouterr()
    assert compare(runs, f"--score={ballots}") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_long_answers_and_empty_rows_of_a_table_are_read(runs: tuple[Path, Path], tmp_path: Path) -> None:
    a = write_predictions(tmp_path / "a", {"c0": "x" * 200_000})
    ballots = tmp_path / "b.csv"
    assert compare((a, runs[1]), f"--ballots={ballots}") == 0
    fill_in(ballots, lambda row: "left")
    ballots.write_text(ballots.read_text(encoding="utf-8") + ",,,,,,\n\n", encoding="utf-8")
    assert compare((a, runs[1]), f"--score={ballots}") == 0
    assert result((a, runs[1]), "people")["pairs"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ballots=new.csv", "--budget=1"], "--budget: 1.0: is for the calls of a model"),
        (["--score=new.csv", "--budget=1"], "--budget: 1.0: is for the calls of a model"),
        (["--ballots=new.csv", "--out=x.json"], "--out: x.json: is for a result, which --ballots does not write"),
        (["--ballots=new.csv", "--port=80"], "--port: 80: is of the page; give --page too"),
        (["--page"], "--page: without --ballots: fills in a table: name its file with --ballots"),
        (["--no_browser"], "--no_browser: without --page: is of the page; give --page too"),
        (["--score", "new.csv", "./new.csv"], "--score: ./new.csv: is given twice"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert compare(runs, *options) == 2
    assert said in capsys.readouterr().err


def test_a_table_that_cannot_be_written_is_named_as_it_was_given(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(runs, "--ballots=/proc/none.csv") == 2
    assert capsys.readouterr().err.startswith("error: --ballots: /proc/none.csv: cannot be written (")


def test_nothing_to_compare_is_one_line(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = write_predictions(tmp_path / "same", {f"c{k}": GOOD if k < 6 else f"{BAD} {k}" for k in range(8)})
    assert compare((runs[0], same), f"--ballots={tmp_path / 'b.csv'}") == 2
    assert "both runs gave the same answer to every chain" in capsys.readouterr().err
    assert compare((runs[0], runs[0])) == 2
    assert "is run A too" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["notes.csv", "notes.json"])
def test_another_file_is_not_replaced(
    runs: tuple[Path, Path], tmp_path: Path, fair_url: str, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / name
    path.write_text("{}" if name.endswith("json") else "a,b\n1,2\n")
    before = path.read_bytes()
    option = f"--ballots={path}" if name.endswith("csv") else f"--out={path}"
    assert compare(runs, option, url=fair_url) == 2
    assert "was not written by this command" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_text_that_begins_as_a_formula_is_none_in_a_spreadsheet(runs: tuple[Path, Path], tmp_path: Path) -> None:
    a = write_predictions(tmp_path / "a", {"c0": "=HYPERLINK()"})
    assert compare((a, runs[1]), f"--ballots={tmp_path / 'b.csv'}") == 0
    assert "'=HYPERLINK()" in (tmp_path / "b.csv").read_text()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: write_predictions(run, {"z": "other"}), "have answered no chain in common"),
        (lambda run: write_predictions(run, {"c1": "x"}, input="y"), "has another input in the other run"),
        (lambda run: write_predictions(run, {"c1": "x"}, instruction=None), "has no text 'instruction'"),
        (lambda run: (run / "eval" / "coi2_test" / "predictions.jsonl").unlink(), "run python -m coi_jax.evaluate"),
        (
            lambda run: double(run / "eval" / "coi2_test" / "predictions.jsonl"),
            "answers an example for the second time",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_one_line(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], Any], said: str
) -> None:
    spoil(runs[1])
    assert compare(runs) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_pairs_are_in_an_order_that_does_not_follow_from_the_files(runs: tuple[Path, Path]) -> None:
    pairs = read_pairs(*runs, "coi2_test")
    path = runs[0] / "eval" / "coi2_test" / "predictions.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert read_pairs(*runs, "coi2_test") == pairs
    assert read_pairs(*runs, "coi2_test", most=3) == pairs[:3]


def test_agreement_is_that_of_cohen() -> None:
    one = {"1": "a", "2": "a", "3": "b", "4": "b", "5": "tie"}
    other = {"1": "a", "2": "b", "3": "b", "4": "b", "6": "a"}
    found = preference.agreement(one, other)  # type: ignore[arg-type]
    assert found == {"pairs": 4, "agreement": 75.0, "kappa": pytest.approx((0.75 - 0.5) / 0.5)}


@pytest.mark.parametrize(
    ("choices", "settled"),
    [(("a", "a"), "a"), (("a", "b"), "tie"), (("a", "tie"), "tie"), (("a", None), None), (("tie", "tie"), "tie")],
)
def test_a_pair_is_won_where_both_orders_say_so(choices: Any, settled: str | None) -> None:
    assert preference.settle(Judgement("c", choices, ("", ""))) == settled
