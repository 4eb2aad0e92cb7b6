import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coi_jax import compare
from coi_jax.common import cli, files
from coi_jax.common.progress import Bar
from coi_jax.config.run import load_config
from coi_jax.data.prompts import has_steps
from coi_jax.data.task_specs import evaluation_task
from coi_jax.data.token_cache import Example
from coi_jax.evaluate import main
from coi_jax.evaluation import evaluator
from coi_jax.evaluation.predictions import PREDICTIONS, Prediction
from coi_jax.evaluation.stages import count_outputs, make_prompts
from coi_jax.inference.model import load_model
from coi_jax.runs.run_folder import RunFolder
from tests.helpers.token_caches import make_chain, write_caches, write_demonstrations
from tests.helpers.trained_runs import TESTS, make_run, save

pytestmark = pytest.mark.xdist_group("evaluate")  # its fixtures take long: one worker makes them


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody changes: tests take copies."""
    path: Path = make_run(tmp_path_factory.mktemp("made")).path
    return path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture(scope="module")
def whole(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of an evaluation that nothing interrupted."""
    run = shutil.copytree(made, tmp_path_factory.mktemp("whole") / "run")
    evaluate(run)
    return results(run)


def evaluate(run: Path, *options: str) -> int:
    return cli.run(lambda: main(["--workdir", str(run), *options]))


def results(run: Path) -> dict[str, Any]:
    """What the evaluation of a run says, but for the run's own name."""
    found = {path.parent.name: files.read_json(path) for path in run.glob("eval/*/results.json")}
    for value in found.values():
        value["provenance"].pop("run")
        value.pop("sha256")
    return found


def test_scores_every_test_set_of_the_config(whole: dict[str, Any], made: Path) -> None:
    assert set(whole) == set(TESTS)
    found = whole["proc2_test"]
    assert found["examples"] == 9
    assert found["task"] == "proc2_test"
    assert found["arm"] == "coi12"
    assert all(score["low"] <= score["value"] <= score["high"] for score in found["scores"].values())
    assert found["label_only_baseline"]["rouge_l"] > found["label_only_baseline"]["content_rouge_l"] == 0
    assert found["gold_prefix_baseline"]["step1_exact_match"] == 100
    assert [step["references"] for step in found["steps"]] == [9, 9]
    assert set(found["provenance"]) >= {"checkpoint", "test_set", "predictions"}
    assert found["provenance"]["dataset"] == files.sha256(made.parent / "data" / "train.jsonl")


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_scores_do_not_move_with_the_batch(run: Path, whole: dict[str, Any], batch: int) -> None:
    assert evaluate(run, f"--config.evaluation.batch={batch}") == 0
    assert results(run) == whole


def test_answers_that_waited_for_a_compilation_are_not_in_the_estimate(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, seen = Bar.advance, []

    def record(self: Bar, count: int = 1, note: str = "", *, is_typical: bool = True) -> None:
        if note.endswith("shapes compiled"):
            seen.append((int(note.split()[0]), is_typical))
        advance(self, count, note, is_typical=is_typical)

    monkeypatch.setattr(Bar, "advance", record)
    assert evaluate(run, "--tasks=proc2_test", "--config.evaluation.batch=1") == 0
    compiled = [0] + [shapes for shapes, _ in seen]
    assert [is_typical for _, is_typical in seen] == [a == b for a, b in itertools.pairwise(compiled)]
    assert {is_typical for _, is_typical in seen} == {False, True}


def test_answers_of_another_batch_are_not_mixed_in_low_precision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides: dict[str, Any] = {"model.dtype": "bfloat16", "evaluation.tests": ("proc1_test",)}
    run = make_run(tmp_path, **overrides).path
    assert evaluate(run) == 0
    assert evaluate(run, "--config.evaluation.bootstrap=60") == 0
    assert "are replaced" not in capsys.readouterr().err
    assert evaluate(run, "--config.evaluation.batch=3") == 0
    assert "proc1_test: predictions of another checkpoint" in capsys.readouterr().err
    assert results(run)["proc1_test"]["provenance"]["evaluation"]["batch"] == 3


def test_an_interrupted_file_goes_on_to_the_same_results(run: Path, made: Path, whole: dict[str, Any]) -> None:
    evaluate(run, "--tasks=proc2_test")
    path = run / "eval/proc2_test" / PREDICTIONS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:-3])
    assert evaluate(run) == 0
    assert results(run) == whole
    assert path.read_bytes() == b"".join(lines)


def test_a_killed_process_goes_on_to_the_same_results(run: Path, whole: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "coi_jax.evaluate", "--workdir", str(run), "--config.evaluation.batch=1"]
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    path = run / "eval/proc1_test" / PREDICTIONS
    while child.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") > 2):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = path.read_bytes()
    assert before.count(b"\n") > 2
    assert evaluate(run) == 0
    assert results(run) == whole
    assert path.read_bytes().startswith(before[: before.rfind(b"\n") + 1])


def test_finished_work_is_not_done_again(run: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(run)
    monkeypatch.setattr("coi_jax.inference.model.checkpoint.restore_params", None)
    assert evaluate(run) == 0
    assert results(run) == whole


def test_predictions_of_earlier_versions_get_what_they_lack_and_are_not_generated_again(
    run: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(run)
    path = run / "eval" / "proc2_test" / PREDICTIONS
    lines = path.read_bytes()
    kept = ("id", "prediction", "complete", "target")
    rows = [{key: json.loads(line)[key] for key in kept} for line in lines.splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr("coi_jax.inference.model.checkpoint.restore_params", None)
    capsys.readouterr()
    assert evaluate(run) == 0
    assert path.read_bytes() == lines
    assert results(run) == whole
    assert "proc2_test: predictions.jsonl has the instructions and today's scores now" in capsys.readouterr().err


def test_lines_have_the_scores_that_the_results_are_means_of(
    run: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(run)
    rows = list(files.read_jsonl(run / "eval" / "proc2_test" / PREDICTIONS))
    for key in ("rouge_l", "content_exact_match", "well_formed"):
        mean = sum(row["scores"][key] for row in rows) / len(rows)
        assert mean == pytest.approx(whole["proc2_test"]["scores"][key]["value"])
    assert cli.run(lambda: compare.main([str(run), str(run), "--tasks=proc2_test", "--scores=rouge_l", "--json"])) == 0
    (found,) = json.loads(capsys.readouterr().out.splitlines()[-1])["comparisons"]
    assert (found["a"], found["difference"]) == (pytest.approx(whole["proc2_test"]["scores"]["rouge_l"]["value"]), 0)
    steps = [row["steps"][1]["scores"]["rouge_l"] for row in rows]
    assert sum(steps) / len(rows) == pytest.approx(whole["proc2_test"]["scores"]["step2_rouge_l"]["value"])


def test_another_checkpoint_begins_anew(run: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(run)
    save(RunFolder(run), RunFolder(run).load_config(), step=7)
    assert evaluate(run) == 0
    assert "proc1_test: predictions of another checkpoint" in capsys.readouterr().err
    found = results(run)["proc1_test"]["provenance"]
    assert found["checkpoint"].startswith("7-")
    assert found["predictions"] != whole["proc1_test"]["provenance"]["predictions"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_evaluated(
    run: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(run)
    save(folder, folder.load_config(), step=9)
    shutil.rmtree(run / "checkpoints" / "9" / "params")
    assert evaluate(run) == 0
    assert re.search(r"/9 is damaged \(.*\); it is kept as damaged-9, and the one before", capsys.readouterr().err)
    assert (run / "checkpoints" / "damaged-9").is_dir()
    assert results(run) == whole
    predictions = run / "eval" / "proc1_test" / "predictions.jsonl"
    before = predictions.read_bytes()
    shutil.rmtree(run / "checkpoints" / "3" / "params")
    assert evaluate(run, "--config.evaluation.max_new_tokens=3") == 2
    assert predictions.read_bytes() == before
    assert "remove the folder to train from the beginning" in capsys.readouterr().err.splitlines()[-1]


def test_limit_takes_the_first_rows(run: Path, whole: dict[str, Any]) -> None:
    assert evaluate(run, "--tasks=proc1_test", "--limit=2") == 0
    assert files.read_json(run / "eval" / "proc1_test" / "results_first_2.json")["examples"] == 2
    assert evaluate(run) == 0
    assert results(run) == whole


def test_a_limited_evaluation_leaves_the_results_of_the_whole_set(run: Path, whole: dict[str, Any]) -> None:
    assert evaluate(run) == 0
    assert evaluate(run, "--limit=2") == 0
    assert results(run) == whole
    assert evaluate(run, "--tasks=proc1_test", f"--limit={whole['proc1_test']['examples']}") == 0
    assert not list(run.glob("eval/proc1_test/results_first_9*"))


def test_a_sample_is_of_the_same_examples_in_every_run_and_grows_to_the_whole(
    run: Path, made: Path, tmp_path: Path, whole: dict[str, Any]
) -> None:
    other = shutil.copytree(made, tmp_path / "other")
    for folder in (run, other):
        assert evaluate(folder, "--config.evaluation.examples=4", f"--config.evaluation.batch={len(folder.name)}") == 0
    assert results(run) == results(other)
    small = results(run)["proc2_test"]
    assert (small["examples"], small["provenance"]["available_examples"]) == (4, 9)
    path = run / "eval" / "proc2_test" / PREDICTIONS
    lines = path.read_bytes().splitlines()
    assert evaluate(run, "--config.evaluation.examples=6") == 0
    assert (len(lines), path.read_bytes().splitlines()[:4]) == (4, lines)
    assert evaluate(run, "--config.evaluation.examples=100") == 0
    assert results(run) == whole
    assert len(path.read_bytes().splitlines()) == 9


def test_a_trial_with_other_settings_has_predictions_of_its_own(run: Path, whole: dict[str, Any]) -> None:
    assert evaluate(run) == 0
    folder = run / "eval" / "proc1_test"
    before = {path.name: path.read_bytes() for path in folder.glob("*.json*")}
    assert evaluate(run, "--tasks=proc1_test", "--limit=2", "--config.evaluation.max_new_tokens=3") == 0
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert len((folder / "first_2" / "predictions.jsonl").read_text().splitlines()) == 2
    assert files.read_json(folder / "results_first_2.json")["examples"] == 2


def test_scores_go_with_the_predictions_that_they_are_of(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate(run, "--tasks=proc1_test") == 0
    monkeypatch.setattr(evaluator, "_predict", lambda *_: signal.raise_signal(signal.SIGINT))
    assert evaluate(run, "--tasks=proc1_test", "--config.evaluation.max_new_tokens=3") == cli.EXIT_INTERRUPTED
    assert not (run / "eval" / "proc1_test" / "results.json").exists()


def test_a_test_set_of_another_source_is_refused_before_anything_is_generated(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(run, "--tasks=proc1_test,coi2_test") == cli.EXIT_USER_ERROR
    assert "chains of source 'procedural', whose test set is proc2_test" in capsys.readouterr().err
    assert not (run / "eval").exists()


def test_json_is_what_the_files_say(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(run, "--json", "--tasks=proc2_test") == 0
    assert json.loads(capsys.readouterr().out) == [files.read_json(run / "eval/proc2_test/results.json")]


def test_table_names_the_test_sets(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(run) == 0
    printed = capsys.readouterr()
    assert all(name in printed.out for name in TESTS)
    assert "reached max_new_tokens = 6" in printed.err


def test_long_prompts_are_shown_whole_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides: dict[str, Any] = {"data.length": 20, "evaluation.tests": ("proc2_test",)}
    run = make_run(tmp_path, **overrides).path
    assert evaluate(run) == 0
    assert "9 of 9 prompts are longer than the 20 positions" in capsys.readouterr().err


def test_a_baseline_prompts_the_network_of_another_run(run: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "base"
    options = ("--source", str(run), "--config.arm=base", "--tasks=proc1_test")
    assert evaluate(baseline, *options) == 0
    assert results(baseline)["proc1_test"]["arm"] == "base"
    assert files.read_json(baseline / "config.json")["arm"] == "base"
    assert not (run / "eval").exists()


def test_predictions_follow_from_the_demonstrations(
    run: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline, shown = tmp_path / "cot", tmp_path / "shown.jsonl"
    for lengths in ((2, 2), (3, 3)):
        write_demonstrations(shown, *lengths)
        fields = {"arm": "cot", "evaluation.demonstrations": str(shown), "evaluation.shots": 2}
        config = load_config(run / "config.json", fields | {"evaluation.tests": ("proc1_test",)})
        write_caches(config, [evaluation_task(config, "proc1_test")])
        options = ("--source", str(run), "--config.arm=cot", "--tasks=proc1_test", f"--demonstrations={shown}")
        assert evaluate(baseline, *options, "--shots=2") == 0
    assert "proc1_test: predictions of another checkpoint" in capsys.readouterr().err
    before = (baseline / "config.json").read_bytes()
    assert evaluate(baseline, *options, "--shots=3") == 2
    assert "config.evaluation.shots: 3: " in capsys.readouterr().err
    assert (baseline / "config.json").read_bytes() == before
    assert evaluate(run, "--tasks=proc1_test", f"--demonstrations={shown}") == 0
    assert (
        "arm coi12 is shown no worked examples, so that evaluation.demonstrations is not used"
        in capsys.readouterr().err
    )


@pytest.fixture(scope="module")
def decomposed(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation in two calls that nothing interrupted, with the network that `made` has."""
    config = load_config(made / "config.json", {"arm": "ltm"})
    write_caches(config, [evaluation_task(config, "proc2_test")])
    folder = tmp_path_factory.mktemp("decomposed") / "ltm"
    assert evaluate(folder, *two_calls(made)) == 0
    return folder


def two_calls(source: Path) -> tuple[str, ...]:
    return ("--source", str(source), "--config.arm=ltm", "--tasks=proc2_test")


def test_least_to_most_keeps_the_steps_that_the_model_found(decomposed: Path) -> None:
    found = results(decomposed)["proc2_test"]
    folder = decomposed / "eval" / "proc2_test"
    rows = list(files.read_jsonl(folder / "decompose" / PREDICTIONS))
    first = {row["id"]: row["prediction"] for row in rows}
    last = {row["id"]: row for row in files.read_jsonl(folder / PREDICTIONS)}
    assert {id: row["stages"] for id, row in last.items()} == {id: {"decompose": text} for id, text in first.items()}
    assert len(first) == found["examples"] == 9
    assert any(row["prediction"] != first[id] for id, row in last.items())
    unusable, incomplete = sum(not has_steps(text) for text in first.values()), sum(not row["complete"] for row in rows)
    assert found["stages"] == {"decompose": {"unusable": unusable, "incomplete": incomplete}}
    assert files.read_json(folder / "decompose" / "generated_from.json") == files.read_json(
        folder / "generated_from.json"
    )


@pytest.mark.parametrize(
    ("kept", "options"),
    [
        ((4, 0), ["--config.evaluation.batch=3"]),
        ((9, 3), ["--config.evaluation.batch=1"]),
        ((0, 5), ["--config.mesh.fsdp=4", "--config.mesh.replica=2"]),
    ],
)
def test_interrupted_calls_go_on_to_the_same_results(
    made: Path, decomposed: Path, tmp_path: Path, kept: tuple[int, int], options: list[str]
) -> None:
    run = shutil.copytree(decomposed, tmp_path / "ltm")
    folder = run / "eval" / "proc2_test"
    (folder / "results.json").unlink()
    for path, count in zip((folder / "decompose" / PREDICTIONS, folder / PREDICTIONS), kept, strict=True):
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:count]) + lines[count - 1][:-3] * (count < len(lines)))
    assert evaluate(run, *two_calls(made), *options) == 0
    assert results(run) == results(decomposed)


def test_the_second_call_is_shown_the_steps_of_the_first(made: Path) -> None:
    config = load_config(made / "config.json", {"arm": "ltm"})
    spec = evaluation_task(config, "proc2_test")
    model = replace(load_model(made, {}), config=config)
    empty = np.zeros(0, np.int32)
    examples = [Example(empty, empty, make_chain(number, 2)) for number in range(2)]
    texts = ("1. Look.\n2. Leap.", "Nothing.")
    outputs = [Prediction(example.chain.id, text, True) for example, text in zip(examples, texts, strict=True)]
    first, second = make_prompts(model, spec, examples, {"decompose": outputs})
    assert first.id == examples[0].chain.id
    assert model.vocabulary.decode(first.tokens.tolist()).endswith(f"1. Look.\n2. Leap.\n{examples[0].chain.input}\n")
    whole = f"1. {examples[1].chain.instruction}\n{examples[1].chain.input}\n"
    assert model.vocabulary.decode(second.tokens.tolist()).endswith(whole)
    assert count_outputs("ltm", {"decompose": outputs}) == {"decompose": {"unusable": 1, "incomplete": 0}}


def test_outputs_of_earlier_calls_are_not_mixed_with_those_of_other_settings(
    made: Path, decomposed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(decomposed, tmp_path / "ltm")
    assert evaluate(run, *two_calls(made), "--config.evaluation.max_new_tokens=4", "--limit=2") == 0
    assert results(run) == results(decomposed)
    folder = run / "eval" / "proc2_test"
    assert len(list(files.read_jsonl(folder / "first_2" / "decompose" / PREDICTIONS))) == 2
    assert evaluate(run, *two_calls(made), "--config.evaluation.max_new_tokens=4") == 0
    said = capsys.readouterr().err
    assert "proc2_test: predictions of another checkpoint" in said
    assert re.search(r"proc2_test, decompose: \d of 9 outputs list no steps; the whole instruction is their step", said)
    before = [
        row["prediction"] for row in files.read_jsonl(decomposed / "eval" / "proc2_test" / "decompose" / PREDICTIONS)
    ]
    after = [row["prediction"] for row in files.read_jsonl(folder / "decompose" / PREDICTIONS)]
    assert len(after) == 9
    assert after != before


def test_mesh_does_not_change_scores(run: Path, whole: dict[str, Any]) -> None:
    assert evaluate(run, "--tasks=proc1_test", "--config.mesh.fsdp=4", "--config.mesh.replica=2") == 0
    found, expected = results(run)["proc1_test"], whole["proc1_test"]
    assert found["scores"] == expected["scores"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tasks=proc2_tset"], "--tasks: proc2_tset: unknown; did you mean"),
        (["--tasks=proc3_test"], "has no chain of length 3"),
        (["--tasks=bbh"], "bbh"),
        (["--limit=0"], "limit: 0: give at least 1"),
        (["--config.evaluation.boostrap=2"], "did you mean 'evaluation.bootstrap'"),
        (["--config.model.layers=2"], "config.model.layers: 2: is fixed by the training"),
        (["--config.arm=base"], "config.arm: base: is fixed by the training"),
        (["--dataset=nowhere"], "--dataset: nowhere: no such folder"),
    ],
)
def test_mistakes_are_one_line(run: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert evaluate(run, *options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (run / "eval").exists()


def test_no_run_and_no_checkpoint_are_told_apart(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(tmp_path / "none") == 2
    shutil.rmtree(run / "checkpoints")
    assert evaluate(run) == 2
    none, untrained = capsys.readouterr().err.splitlines()
    assert "none" in none
    assert "has no checkpoint yet" in untrained
