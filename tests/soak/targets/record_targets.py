"""Readers of what runs keep: results, predictions, metrics, environment, spans; and of ballots."""

import functools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from coi_jax.chains.chain import Chain, Step
from coi_jax.common.seals import seal
from coi_jax.evaluation import comparison, predictions
from coi_jax.evaluation.predictions import Prediction
from coi_jax.judging.answer_pairs import AnswerPair, read_pairs
from coi_jax.judging.ballots import read_ballots, read_choices, write_ballots
from coi_jax.reporting import run_report
from coi_jax.reporting.run_records import read
from coi_jax.runs.metrics_rows import read_metrics
from tests.helpers.configs import quickstart_config
from tests.helpers.fuzzing import Target
from tests.helpers.mutations import mutate_json_text, mutate_lines, mutate_text
from tests.helpers.scored_runs import BASELINE
from tests.soak.targets.scratch import read_file, read_files

TEST = "proc2_test"
FOLDER = f"eval/{TEST}"


@functools.cache
def _run() -> dict[str, str]:
    """Return the text files of a run folder with two answers, by name."""
    return with_texts("some words")


def with_texts(text: str) -> dict[str, str]:
    """Return such files, in which every text that a user or a model may write is this one."""
    steps = (Step(text, text, text, text), Step(text, text, text, text))
    chains = [Chain(f"{number} {text}", text, text, text, steps, text) for number in (1, 2)]
    answers = [Prediction(chain.id, f"{chain.targets}{text}", complete=True, stages={text: text}) for chain in chains]
    rows = [answer.row(chain, {}) for answer, chain in zip(answers, chains, strict=True)]
    for row in rows:
        row["scores"] = {"rouge_l": 50.0}
        row["steps"] = [step | {"scores": {"rouge_l": 40.0}} for step in row["steps"]]
    digest = predictions.digest(answers)
    provenance = {"run": text, "checkpoint": f"600-{text}", "dataset": text, "source": text, "test_set": text}
    results = {
        "task": TEST,
        "arm": "coi12",
        "examples": 2,
        "scores": {"rouge_l": {"value": 50.0, "low": 40.0, "high": 60.0}},
        "label_only_baseline": BASELINE,
        "steps": [],
        "provenance": provenance | {"predictions": digest, "available_examples": 2},
        "by_task": {
            "tasks": {text: {"examples": 2, "scores": {"rouge_l": {"value": 1, "low": 0, "high": 2}}}},
            "mean": {},
        },
    }
    spans = {"predictions": digest, "judge": text, "prompt_version": 1, "examples": 2, "asked": 1, "labelled": 1}
    spans |= {"unusable": 0, "scores": {"step1_span_rouge_l": {"value": 1.0, "low": 0.0, "high": 2.0}}}
    config = quickstart_config({"evaluation.tests": (TEST,)}).model_dump(mode="json")
    metrics = [{"step": step, "loss": 1.0 / step, "validation_loss": None, "seconds_per_step": 0.1} for step in (1, 2)]
    environment = {"commit": text, "cores": 2, "devices": {"platform": "cpu", "kind": text, "count": 1}}
    timing = [{"seconds": 1.5, "answers": 2, "platform": "cpu", "kind": text, "devices": 1, "cores": 2}]
    return {
        "config.json": json.dumps(config),
        "environment.json": json.dumps(environment),
        "metrics.jsonl": _lines(metrics),
        f"{FOLDER}/results.json": json.dumps(seal(results)),
        f"{FOLDER}/spans.json": json.dumps(seal(spans)),
        f"{FOLDER}/predictions.jsonl": _lines(rows),
        f"{FOLDER}/timing.jsonl": _lines(timing),
    }


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _damaged_run(rng: random.Random) -> dict[str, bytes]:
    """Return a run folder with one damaged file; half of its hashes are made right again, as whoever forges it can."""
    found = dict(_run())
    name = rng.choice([*found])
    mutate = mutate_lines if name.endswith(".jsonl") else mutate_json_text
    data = mutate(found[name], rng)
    if name.endswith(("results.json", "spans.json")) and rng.random() < 0.6:
        data = _with_digest(data)
    return {each: text.encode() for each, text in found.items()} | {name: data}


def _with_digest(data: bytes) -> bytes:
    try:
        value = json.loads(data)
        return json.dumps(seal(value)).encode()
    except (ValueError, TypeError, RecursionError, AttributeError):
        return data


def _report(folder: Path) -> None:
    run_report.render(run_report.content(read([folder], price=1.0)))


def _compare(folder: Path) -> None:
    comparison.compare([folder / "a"], [folder / "b"], [TEST], resamples=20, seed=0)


def _two_runs(rng: random.Random) -> dict[str, bytes]:
    whole = {f"b/{name}": text.encode() for name, text in _run().items()}
    return {f"a/{name}": data for name, data in _damaged_run(rng).items()} | whole


def _pairs(folder: Path) -> None:
    read_pairs(folder / "a", folder / "b", TEST)


@functools.cache
def _ballots() -> dict[str, str]:
    pairs = [AnswerPair(str(n), "Sort;\nit", 'b, "a"', "a b", "=a b", f"b\ra {n}") for n in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ballots.csv"
        key = Path(write_ballots(pairs, path, 0, {"a": "x", "b": "y", "test_set": TEST}))
        lines = path.read_bytes().decode().split("\n")
        chosen = [line[:-2] + '"left"' if line.endswith('""') else line for line in lines]
        return {path.name: "\n".join(chosen), key.name: key.read_text(encoding="utf-8")}


def _damaged_ballots(rng: random.Random) -> dict[str, bytes]:
    found = {name: text.encode() for name, text in _ballots().items()}
    if rng.random() < 0.4:
        return found | {"ballots.csv.key.json": mutate_json_text(_ballots()["ballots.csv.key.json"], rng)}
    return found | {"ballots.csv": mutate_text(_ballots()["ballots.csv"], rng).encode("utf-8", "surrogatepass")}


def _read_ballots(folder: Path) -> None:
    read_ballots(folder / "ballots.csv")
    read_choices(folder / "ballots.csv")


TARGETS: dict[str, Target] = {
    "run_report": Target(_damaged_run, lambda given: read_files(given, _report)),
    "comparison": Target(_two_runs, lambda given: read_files(given, _compare)),
    "answer_pairs": Target(_two_runs, lambda given: read_files(given, _pairs)),
    "metrics": Target(lambda rng: mutate_lines(_run()["metrics.jsonl"], rng), read_file("metrics.jsonl", read_metrics)),
    "predictions": Target(
        lambda rng: mutate_lines(_run()[f"{FOLDER}/predictions.jsonl"], rng),
        read_file("predictions.jsonl", lambda path: [*predictions.read_rows(path.parent)]),
    ),
    "ballots": Target(_damaged_ballots, lambda given: read_files(given, _read_ballots)),
}
