import json
from collections.abc import Callable
from pathlib import Path

import pytest

from coi_jax.common import cli
from coi_jax.compare import main
from tests.helpers.answered_runs import write_run


def compare(*arguments: str) -> int:
    return cli.run(lambda: main(arguments))


def test_the_table_has_a_row_for_each_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write_run(tmp_path / "a", 24), write_run(tmp_path / "b", 9)
    assert compare(a, b, "--scores=content_exact_match,well_formed") == 0
    printed = capsys.readouterr().out
    assert f"A: {a}" in printed
    assert f"B: {b}" in printed
    (row,) = (line for line in printed.splitlines() if "content_exact_match" in line)
    cells = [cell.strip() for cell in row.strip("│ ").split("│")]
    assert cells[:5] == ["coi2_test", "content_exact_match", "30", "80.0", "30.0"]
    assert cells[5].startswith("+50.0 [+")
    assert cells[6:] == ["0.000", "50% / 0% / 50%"]


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace('"rouge_l": 0.0', '"rouge_l": 100.0'),
        lambda line: line.replace('"prediction": ""', '"prediction": "x"'),
        lambda line: line + line,
        lambda line: "",
    ],
)
def test_answers_that_were_changed_after_they_were_scored_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[str], str]
) -> None:
    a, b = write_run(tmp_path / "a", 24), write_run(tmp_path / "b", 9)
    path = tmp_path / "a" / "eval" / "coi2_test" / "predictions.jsonl"
    path.write_text("".join(map(change, path.read_text().splitlines(keepends=True))))
    assert compare(a, b) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: predictions: {path}:")
    assert "run python -m coi_jax.evaluate" in error


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"value": 80.0',
            '"value": "\u0663"',
            "should be a valid number; it is not as python -m coi_jax.evaluate writes it",
        ),
        ('"value": 80.0', '"value": 80.5', "was changed since it was written; run python -m coi_jax.evaluate again"),
        ('"scores": {', '"marks": {', "scores: Field required"),
    ],
)
def test_results_that_were_changed_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    a, b = write_run(tmp_path / "a", 24), write_run(tmp_path / "b", 9)
    path = tmp_path / "a" / "eval" / "coi2_test" / "results.json"
    changed = path.read_text().replace(old, new, 1)
    assert changed != path.read_text()
    path.write_text(changed)
    assert compare(a, b) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: results: {path}: ")
    assert said in error


def test_json_names_the_runs_of_each_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = (write_run(tmp_path / name, right) for name, right in (("a", 24), ("b", 9), ("c", 12)))
    assert compare(a, f"{b},{c}", "--tasks=coi2_test", "--json", "--resamples=100", "--seed=3") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"], found["b"], found["resamples"], found["seed"]) == ([a], [b, c], 100, 3)
    assert {each["score"] for each in found["comparisons"]} >= {"rouge_l", "content_exact_match", "well_formed"}
    assert {each["task"] for each in found["comparisons"]} == {"coi2_test"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a,,b", "c"], "RUN_A: a,,b: name run folders"),
        (["a", "c,c"], "RUN_B: c,c: name run folders, each once"),
        (["a", "b", "--tasks=coi2_test"], "a has no predictions of it"),
        (["a b;ls", "b", "--tasks=coi2_test"], "run python -m coi_jax.evaluate --workdir 'a b;ls' --tasks coi2_test"),
        (["a", "b", "--tasks=coi2_test ; ls"], "--tasks: coi2_test ; ls: unknown; did you mean 'coi2_test'?"),
        (["a", "b", "--tasks=PROC1_TEST"], "--tasks: PROC1_TEST: unknown; "),
        (["a", "b", "--seed=-1"], "--seed: -1: give 0 or more"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compare(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("flag", ["--tasks", "--scores"])
def test_names_that_are_empty_are_refused(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    with pytest.raises(SystemExit):
        compare("a", "b", f"{flag}=,")
    assert f"argument {flag}: ',' should be different names with commas between them" in capsys.readouterr().err
