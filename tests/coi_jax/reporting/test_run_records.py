import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.evaluation.span_results import MADE_BY
from coi_jax.reporting import table4
from coi_jax.reporting.run_records import load
from tests.helpers.scored_runs import write_results, write_run

SCORES = {"proc2_test": {"rouge_l": 50.0}}


def test_runs_are_found_in_a_folder_or_named_each(tmp_path: Path) -> None:
    one = write_run(tmp_path / "sweep" / "a", {"arm": "coi1"}, SCORES)
    other = write_run(tmp_path / "b", {"arm": "coi12"}, SCORES)
    assert load([tmp_path]) == load([one, other]) == load([tmp_path, other])
    assert load([tmp_path]).arms == ["coi1", "coi12"]


def test_links_that_go_round_in_circles_are_not_followed(tmp_path: Path) -> None:
    one = write_run(tmp_path / "sweep" / "a", {}, SCORES)
    for name in ("loop", "again"):
        (tmp_path / name).symlink_to(tmp_path)
        (tmp_path / "sweep" / name).symlink_to(tmp_path / "sweep")
    assert load([tmp_path]) == load([one])


def test_test_sets_stand_by_length_then_by_name(tmp_path: Path) -> None:
    names = ("wikilingua_en_fr", "proc3_test", "bbh", "coi2_test", "proc1_test")
    write_run(tmp_path / "a", {}, {name: {"rouge_l": 1.0} for name in names})
    assert load([tmp_path]).test_sets == ["coi2_test", "proc1_test", "proc3_test", "bbh", "wikilingua_en_fr"]


def test_a_copy_of_a_run_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {}, SCORES)
    for path in run.rglob("*.json"):
        copy = tmp_path / "copy" / path.relative_to(run)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert len(load([tmp_path]).rows) == 1


@pytest.mark.parametrize(
    ("second", "scores", "test_set", "message"),
    [
        ({"arm": "coi1"}, {"proc2_test": {"rouge_l": 51.0}}, "t0", "both are coi1 with seed 0"),
        ({"arm": "coi1", "seed": 1, "model.layers": 2}, SCORES, "t0", r"more than their seed \(model.layers\)"),
        ({"arm": "coi12"}, SCORES, "t1", "different versions of the test set"),
    ],
)
def test_records_that_contradict_one_another(
    tmp_path: Path, second: dict[str, Any], scores: dict[str, dict[str, float]], test_set: str, message: str
) -> None:
    write_run(tmp_path / "one", {"arm": "coi1"}, SCORES)
    write_run(tmp_path / "two", second, scores, test_set)
    with pytest.raises(UserError, match=message) as caught:
        load([tmp_path])
    for name in ("one", "two"):
        assert str(tmp_path / name / "eval" / "proc2_test" / "results.json") in str(caught.value)


def test_runs_may_differ_in_what_changes_no_score(tmp_path: Path) -> None:
    write_run(tmp_path / "one", {"arm": "coi1"}, SCORES)
    changes = {"train.log_every": 7, "mesh.tensor": 2, "evaluation.batch": 3, "data.cache_folder": "elsewhere"}
    changes |= {"train.checkpoint_minutes": 5.0, "model.scan_unroll": 2, "logging.group": "a"}
    write_run(tmp_path / "two", {"arm": "coi1", "seed": 1, **changes}, SCORES)
    records = load([tmp_path])
    cell = records.cell("coi1", "proc2_test", "rouge_l")
    assert cell is not None
    assert len(cell.records) == 2
    assert records.varying == []


def test_a_partial_evaluation_is_not_compared_with_a_whole_one(tmp_path: Path) -> None:
    write_run(tmp_path / "one", {"arm": "coi1"}, SCORES)
    path = write_run(tmp_path / "two", {"arm": "coi12"}, SCORES) / "eval" / "proc2_test" / "results.json"
    write_results(path, files.read_json(path) | {"examples": 10})
    with pytest.raises(UserError, match="100 and 10 examples"):
        load([tmp_path])


def set_scores(value: Any) -> Callable[[Path], None]:
    return lambda path: files.write_json(path, files.read_json(path) | {"scores": value})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text(path.read_text()[:40]),
        lambda path: path.write_text(""),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("5"),
        lambda path: path.write_text("{}"),
        lambda path: path.write_bytes(b"\xff\xfe"),
        set_scores({"rouge_l": 3}),
        set_scores({"rouge_l": {"value": "x", "low": 1, "high": 2}}),
        set_scores(None),
        set_scores({"rouge_l": {"value": 99.5, "low": 99.0, "high": 99.9}}),
    ],
)
def test_a_spoiled_file_is_named_in_one_line(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = write_run(tmp_path / "a", {}, SCORES) / "eval" / "proc2_test" / "results.json"
    spoil(path)
    with pytest.raises(UserError, match=r"results\.json") as caught:
        load([tmp_path])
    assert "\n" not in str(caught.value)
    assert "Error(" not in str(caught.value)  # no Python in a message for users


def test_damaged_results_leave_an_empty_cell_with_the_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"arm": "coi1"}, SCORES)
    path = write_run(tmp_path / "b", {"arm": "coi12"}, SCORES) / "eval" / "proc2_test" / "results.json"
    set_scores({"rouge_l": {"value": 99.5, "low": 99.0, "high": 99.9}})(path)
    records = load([tmp_path])
    assert records.cell("coi12", "proc2_test", "rouge_l") is None
    assert records.cell("coi1", "proc2_test", "rouge_l") is not None
    assert f"Left out: results: {path}: was changed since it was written" in table4.markdown(records)


def test_results_of_another_test_set_than_their_folder_are_left_out(tmp_path: Path) -> None:
    """Other files are found by the name: one such as "../../x" would lead out of the run."""
    path = write_run(tmp_path / "a", {}, SCORES) / "eval" / "proc2_test" / "results.json"
    for name in ("../../../x", "proc3_test"):
        write_results(path, files.read_object(path) | {"task": name})
        with pytest.raises(UserError, match="by whose name its folder goes"):
            load([tmp_path])


@pytest.mark.parametrize(
    "spans",
    [
        {},
        {"predictions": "p-a", "scores": {}},
        dict.fromkeys(MADE_BY, 1) | {"predictions": "p-a"},
        dict.fromkeys(MADE_BY, 1) | {"predictions": "p-a", "scores": [1]},
        dict.fromkeys(MADE_BY, 1) | {"predictions": "p-a", "scores": {"step1_span_rouge_l": {"value": {}}}},
    ],
)
def test_spans_of_another_form_are_left_out_with_a_reason(tmp_path: Path, spans: dict[str, Any]) -> None:
    run = write_run(tmp_path / "a", {}, SCORES)
    write_results(run / "eval" / "proc2_test" / "spans.json", spans)  # with a hash that is right
    (fault,) = load([tmp_path]).damaged
    assert "spans.json: not as python -m coi_jax.spans writes it" in str(fault)


def test_a_run_whose_config_is_gone_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a", {"arm": "coi1"}, SCORES)
    run = write_run(tmp_path / "b", {"arm": "coi12"}, SCORES)
    (run / "config.json").unlink()
    assert [row.arm for row in load([tmp_path]).rows] == ["coi1"]
    assert f"run skipped: run's config: {run / 'config.json'}" in capsys.readouterr().err
    (run / "config.json").symlink_to("config.json")
    load([tmp_path])
    assert f"run skipped: run's config: {run / 'config.json'}" in capsys.readouterr().err


def test_a_cell_names_the_commit_of_the_code_that_trained_its_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {"arm": "coi1"}, SCORES)
    for text, commit in (('{"commit": "abc+changes"}', "abc+changes"), ('{"commit": null}', None), ("{", None)):
        (run / "environment.json").write_text(text)
        cell = load([tmp_path]).cell("coi1", "proc2_test", "rouge_l")
        assert cell is not None
        assert [source["commit"] for source in cell.to_dict()["sources"]] == [commit]


def test_a_run_that_failed_before_its_first_checkpoint_is_no_missing_result(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {}, SCORES)
    stub = write_run(tmp_path / "stub", {"seed": 1}, {})
    files.write_json(stub / "environment.json", {})
    assert load([tmp_path]).missing == ()
    config = files.read_json(stub / "config.json")
    files.write_json(stub / "config.json", config | {"evaluation": config["evaluation"] | {"tests": ["proc2_test"]}})
    assert load([tmp_path]).missing == ()
    (stub / "checkpoints" / "10").mkdir(parents=True)
    assert [path.parent.name for path in load([tmp_path]).missing] == ["proc2_test"]


def test_a_config_that_is_no_config(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {}, SCORES)
    (run / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json: config\.arm: missing.*another version of the project"):
        load([run])
    (run / "config.json").write_text("[1]")
    with pytest.raises(UserError, match=r"config\.json"):
        load([run])
    with pytest.raises(UserError, match="no such folder"):
        load([tmp_path / "none"])


@pytest.mark.parametrize("text", ["", "{}", '{"arm": ', '{"arm": "coi99"}'])
def test_a_run_whose_config_is_broken_is_named_and_the_others_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    write_run(tmp_path / "a", {}, SCORES)
    broken = write_run(tmp_path / "b", {"seed": 1}, SCORES) / "config.json"
    whole = files.read_json(broken)
    broken.write_text(json.dumps(whole | json.loads(text)) if "coi99" in text else text)
    assert load([tmp_path]) == load([tmp_path / "a"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("run skipped: ")
    assert str(broken) in line
