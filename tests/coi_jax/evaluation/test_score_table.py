import pytest

from coi_jax.evaluation.score_table import COLUMNS, show

SCORE = {"value": 51.25, "low": 40.0, "high": 60.04}


def test_every_score_stands_with_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    scores = dict.fromkeys([*COLUMNS, "step1_exact_match", "step2_exact_match"], SCORE)
    result = {
        "task": "coi2_test",
        "arm": "coi12",
        "examples": 588,
        "scores": scores,
        "label_only_baseline": {"rouge_l": 39.1},
        "steps": [{"step": 1}, {"step": 2}],
    }
    show([result, result | {"task": "bbh", "scores": {}, "label_only_baseline": {}, "steps": []}])
    printed = capsys.readouterr().out
    assert printed.count("40.0–60.0") == len(COLUMNS)
    for part in ("coi12", "coi2_test", "588", "39.1", "51 / 51", "bbh", "–"):
        assert part in printed


def test_tasks_and_scores_of_other_benchmarks_are_shown_where_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {name: {"examples": 9, "scores": {"rouge_l": SCORE}} for name in ("test_snarks", "test_navigate")}
    result = {
        "task": "bbh",
        "arm": "coi12",
        "examples": 18,
        "scores": {"rouge_l": SCORE, "instructions_followed": SCORE},
        "label_only_baseline": {},
        "steps": [],
        "by_task": {"tasks": tasks, "mean": {"rouge_l": SCORE}},
    }
    show([result])
    printed = capsys.readouterr().out
    assert printed.count("40.0–60.0") == 5
    for part in ("test_snarks", "test_navigate", "mean over tasks", "2 tasks", "followed"):
        assert part in printed
    assert "SIFo" not in printed
