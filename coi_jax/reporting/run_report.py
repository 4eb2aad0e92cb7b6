"""The report page of some runs: curves, tables, the sweep's settings, and every answer beside its reference.

The page is one HTML file with its data as JSON inside; it asks no server for anything.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from etils import epath

from coi_jax.chains.chain import parse
from coi_jax.common.errors import UserError
from coi_jax.common.schema import flatten
from coi_jax.common.storage import is_there
from coi_jax.data.arms import arm_names
from coi_jax.evaluation import predictions
from coi_jax.evaluation.predictions import PREDICTIONS
from coi_jax.evaluation.scores import is_right
from coi_jax.reporting import table4
from coi_jax.reporting.run_records import Record, Records, check_consistent
from coi_jax.runs.metrics_rows import read_metrics

PAGES = Path(__file__).with_name("pages")
MARK = "<!-- Written by python -m coi_jax.report -->"  # near the top of every page
METRICS = "metrics.jsonl"
MOST_POINTS = 400  # of a curve
LOSSES = {"loss": "training", "validation_loss": "validation"}

Json = dict[str, Any]


def render(data: Json) -> str:
    """Return the page of the result of `content`."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(PAGES), autoescape=True, trim_blocks=True)
    parts = {kind: (PAGES / f"run_report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return environment.get_template("run_report.html").render(data=safe, **parts)


def content(records: Records) -> Json:
    """Return the data of the page: runs, test sets with their chains, and answers; `faults` say what is left out."""
    runs, faults = _runs(records), [str(fault) for fault in records.damaged]
    tests: Json = {test: {"chains": {}, "label_only": _baseline(records, test)} for test in records.test_sets}
    answers = [
        {row.test_set: _answers(row, tests[row.test_set]["chains"], faults) for row in rows} for rows in runs.values()
    ]
    for test in tests.values():
        test["chains"] = list(test["chains"].values())
    return {
        "runs": [_run(path, rows, records.varying, faults) for path, rows in runs.items()],
        "tests": tests,
        "answers": answers,
        **_tables(records),
        "faults": faults,
    }


def _tables(records: Records) -> Json:
    """Return table 4 and its notes; the reason alone where the runs do not go into one table, as those of a sweep."""
    try:
        checked = check_consistent(records)
    except UserError as error:
        return {"tables": {}, "notes": [f"These runs do not go into one table: {error}"]}
    grids = {title: table4.grid(checked, key, table4.show_interval) for key, title in table4.METRICS.items()}
    return {"tables": grids, "notes": table4.notes(checked)}


def _runs(records: Records) -> dict[epath.Path, list[Record]]:
    """Return the records of each run folder, in the order of arms and seeds."""
    runs: dict[epath.Path, list[Record]] = {}
    arms = arm_names()
    for row in sorted(records.rows, key=lambda row: (arms.index(row.arm), row.seed)):
        runs.setdefault(row.run, []).append(row)
    return runs


def _run(path: epath.Path, rows: Sequence[Record], varying: Sequence[str], faults: list[str]) -> Json:
    fields = flatten(rows[0].config.model_dump(mode="json"))
    return {
        "name": path.name,
        "arm": rows[0].arm,
        "seed": rows[0].seed,
        "fields": {name: fields.get(name) for name in varying},
        "curves": _curves(path / METRICS, faults),
        "scores": {row.test_set: {key: score.value for key, score in row.scores.items()} for row in rows},
    }


def _curves(path: epath.Path, faults: list[str]) -> dict[str, list[tuple[int, float]]]:
    """Return step and loss of each logged row, thinned out evenly; empty where the run was not trained."""
    before = len(faults)
    rows = _read(path, lambda: read_metrics(path), faults)
    if not rows and len(faults) == before and path.exists():
        faults.append(f"{path}: is empty; the run has no curves")
    curves = {}
    for key, name in LOSSES.items():
        points = [
            (row["step"], float(row[key]))
            for row in rows
            if isinstance(row.get(key), float | int) and isinstance(row.get("step"), int)
        ]
        stride = -(-len(points) // MOST_POINTS) or 1
        if points:
            curves[name] = points[:-1:stride] + points[-1:]
    return curves


def _baseline(records: Records, test: str) -> Json:
    return {key: records.label_only_baseline(test, key) for key in table4.METRICS}


def _answers(row: Record, chains: dict[str, Json], faults: list[str]) -> list[Json]:
    """Return a run's answers to a test set, by the place of their chains in `chains`, which are added to."""
    places = {id: place for place, id in enumerate(chains)}
    answers = []
    for line in _predictions(row, faults):
        if line["id"] not in places:
            places[line["id"]] = len(places)
            chains[line["id"]] = _chain(line)
        references = chains[line["id"]]["steps"]
        outputs = parse(line["prediction"])
        right = [k < len(outputs) and is_right(text, outputs[k]) for k, text in enumerate(references)]
        answers.append(
            {
                "chain": places[line["id"]],
                "steps": outputs,
                "right": "".join(map(str, map(int, right))),
                "rouge": _rouge(line, len(references)),
                **({} if line.get("complete", True) else {"cut": 1}),
            }
        )
    return answers


def _rouge(line: Json, count: int) -> list[int | None]:
    """Return ROUGE-L x 100 of each step with a reference; None where the line has no scores, as earlier ones."""
    scores = [step.get("scores", {}).get("rouge_l") for step in line.get("steps", [])]
    return [None if score is None else round(score) for score in [*scores, *[None] * count][:count]]


def _chain(line: Json) -> Json:
    return {
        "id": line["id"],
        "instruction": line.get("instruction", ""),
        "input": line.get("input", ""),
        "steps": parse(line["target"]),
    }


def _predictions(row: Record, faults: list[str]) -> list[Json]:
    """Return the rows of a record's predictions.jsonl; none, and the reason, where it is missing or damaged."""
    path, known = row.path.parent / PREDICTIONS, len(faults)
    lines = _read(path, lambda: predictions.read_rows(path.parent), faults)
    if not is_there(path):
        faults.append(f"{path} is missing; the page has the scores of its answers alone")
    elif len(faults) == known and len(lines) < row.examples:
        faults.append(f"{path} has {len(lines)} of the {row.examples} answers that were scored")
    elif len(lines) == row.examples and predictions.digest_of_rows(lines) != row.provenance["predictions"]:
        faults.append(f"{path} was changed after it was scored; run python -m coi_jax.evaluate again")
    return [line for line in lines if line.get("target")]


def _read(path: epath.Path, rows: Callable[[], Iterable[Json]], faults: list[str]) -> list[Json]:
    """Return the rows of a file; none where it is damaged, and none where it is missing, as before the first step."""
    if not is_there(path):
        return []
    try:
        return list(rows())
    except UserError as error:
        faults.append(str(error))
        return []
