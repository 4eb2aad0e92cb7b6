"""The scores of the steps of a run's answers, by the spans that a language model marks: `spans.json`."""

import hashlib
import os
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.seals import write_sealed
from coi_jax.common.storage import PathLike, as_path
from coi_jax.evaluation import predictions
from coi_jax.evaluation.metrics import ExampleScores
from coi_jax.evaluation.predictions import PREDICTIONS, RESULTS, Row
from coi_jax.evaluation.results import with_intervals
from coi_jax.evaluation.scores import ScoreKey, content_rouge_l
from coi_jax.evaluation.span_results import SPAN_FOUND, SPAN_ROUGE_L, SPAN_ROUGE_L_UNJUDGED, SPANS
from coi_jax.judging.judge_config import SpansConfig
from coi_jax.judging.spans import ChainAnswer, MarkedAnswer, Span, mark, occurs, read_prompt
from coi_jax.llm import Client

StepScores = dict[str, float]  # of a span, by the kind of the score


def score_spans(workdir: PathLike, test_set: str, client: Client, config: SpansConfig) -> dict[str, Any]:
    """Ask a model where the steps of a run's answers are, score them, and write and return `spans.json`.

    Args:
      workdir: the run folder.
      test_set: its name.
      client: that is asked.
      config: of the spans.

    Raises:
      UserError: the answers are not there, not scored, or without references; or the model did not answer usably.
    """
    folder = as_path(workdir) / "eval" / test_set
    rows = _read(folder, f"python -m coi_jax.evaluate --workdir {shlex.quote(os.fspath(workdir))} --tasks {test_set}")
    marked = mark([_answer(row) for row in rows[: config.examples]], client, config)
    faults = [each.fault for each in marked if each.spans is None]
    asked = [each for each in marked if each.marked_by == "model"]
    if faults and len(faults) == len(asked):
        raise UserError("endpoint.model", config.endpoint.model, f"no reply could be used: {faults[0]}")
    results = _results(test_set, marked, config) | {
        "available_examples": len(rows),
        "predictions": predictions.digest_of_rows(rows),
    }
    write_sealed(folder / SPANS, results, "workdir")
    return results


def _read(folder: PathLike, command: str) -> list[Row]:
    """Return the lines of predictions that the results beside them are of, by the hashes of their ids.

    Those of a sample (`evaluation.examples`) are the first ones in that order.
    """
    path, scored = as_path(folder) / PREDICTIONS, as_path(folder) / RESULTS
    if not path.exists() or not scored.exists():
        raise UserError("predictions", path, f"are not there, or not scored yet; run {command} first")
    examples: int = files.read_value(scored, ("examples",), int, "results")
    rows = sorted(predictions.read_rows(folder), key=lambda row: hashlib.sha256(row["id"].encode()).digest())[:examples]
    if any(not isinstance(row.get("steps"), list) for row in rows):
        raise UserError("predictions", path, f"are of an earlier version, without steps; run {command} again")
    if files.read_value(scored, ("provenance", "predictions"), str, "results") != predictions.digest_of_rows(rows):
        raise UserError("predictions", path, f"are not those that were scored; run {command} again")
    return rows


def _answer(row: Row) -> ChainAnswer:
    steps = [step for step in row["steps"] if step["instruction"] is not None]
    instructions, references = zip(*((step["instruction"], step["reference"]) for step in steps), strict=True)
    return ChainAnswer(row["id"], row["input"], instructions, references, row["prediction"])


def score_span(span: Span, reference: str, text: str) -> StepScores:
    """Return the scores of the span of a step, in [0, 1].

    Args:
      span: as it was marked.
      reference: of the step.
      text: the whole answer.
    """
    is_found = span.span is not None and occurs(span.span, text)
    rouge = content_rouge_l(reference, span.span) if is_found else 0.0
    return {
        SPAN_ROUGE_L: rouge if span.correct else 0.0,
        SPAN_ROUGE_L_UNJUDGED: rouge,
        SPAN_FOUND: float(is_found),
    }


def _step_scores(marked: MarkedAnswer) -> list[StepScores]:
    """Return the scores of each step; empty where it has no reference."""
    answer = marked.answer
    return [
        {} if reference is None else score_span(span, reference, answer.text)
        for span, reference in zip(marked.spans or (), answer.references, strict=True)
    ]


def _results(test_set: str, marked: Sequence[MarkedAnswer], config: SpansConfig) -> dict[str, Any]:
    usable = [each for each in marked if each.spans is not None]
    scores = [_step_scores(each) for each in usable]
    table = _table(scores)
    if not table:
        raise UserError("--tasks", test_set, "has no reference outputs of steps, which spans are compared with")
    return {
        "task": test_set,
        "judge": config.endpoint.model,
        "prompt_version": read_prompt().version,
        "examples": len(usable),
        "asked": sum(each.marked_by == "model" for each in marked),
        "labelled": sum(each.marked_by == "labels" for each in marked),
        "empty": sum(each.marked_by == "nobody" for each in marked),
        "unusable": len(marked) - len(usable),
        "scores": with_intervals(table, config.bootstrap, config.seed),
        "answers": [
            *(_row(each, of_steps) for each, of_steps in zip(usable, scores, strict=True)),
            *({"id": each.answer.id, "fault": each.fault} for each in marked if each.spans is None),
        ],
    }


def _row(marked: MarkedAnswer, scores: Sequence[StepScores]) -> dict[str, Any]:
    spans = zip(marked.spans or (), scores, strict=True)
    steps = [span.model_dump() | {kind: 100 * value for kind, value in of_step.items()} for span, of_step in spans]
    return {"id": marked.answer.id, "marked_by": marked.marked_by, "steps": steps}


def _table(scores: Sequence[Sequence[StepScores]]) -> ExampleScores:
    """Return one array for each score of each step over all examples, NaN where an example has none."""
    length = max((len(of_steps) for of_steps in scores), default=0)
    table = {
        ScoreKey(kind, step + 1): np.array(
            [of_steps[step].get(kind, np.nan) if step < len(of_steps) else np.nan for of_steps in scores], np.float64
        )
        for step in range(length)
        for kind in (SPAN_ROUGE_L, SPAN_ROUGE_L_UNJUDGED, SPAN_FOUND)
    }
    return {key: values for key, values in table.items() if not np.isnan(values).all()}
