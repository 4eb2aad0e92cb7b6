"""The paired bootstrap: how much better one run answers a test set than another, example by example.

Examples are drawn with replacement, the same ones for both sides (Koehn, 2004). Where a side has several runs, as of
several seeds, they are replicates: they are drawn too, so that an interval tells of both kinds of chance.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from etils import epath
from jaxtyping import Float
from pydantic import Field

from coi_jax.common.arguments import Seed, checked
from coi_jax.common.errors import UserError, nearest
from coi_jax.common.storage import PathLike, as_path
from coi_jax.data.test_sets import find_test_set
from coi_jax.evaluation import predictions
from coi_jax.evaluation.bootstrap import Resamples, draws, interval
from coi_jax.evaluation.predictions import PREDICTIONS, RESULTS, Row
from coi_jax.evaluation.results_file import read_results
from coi_jax.evaluation.score_table import BENCHMARK_COLUMNS, COLUMNS
from coi_jax.evaluation.scores import ScoreKey

SHOWN = (*COLUMNS, *BENCHMARK_COLUMNS)
ROUNDING = 1e-6  # between a mean that is stored and one that is computed again
NO_DIFFERENCE = 1e-9  # between two scores of an example that are equal but for rounding
Runs = Annotated[Sequence[PathLike], Field(min_length=1)]  # of a side
Scores = dict[str, float]  # of an example, by their names in results.json


@dataclass(frozen=True)
class Difference:
    """How much better the runs of side A are than those of side B; scores are x 100.

    Attributes:
      a: the mean of side A over examples and runs.
      b: that of side B.
      difference: A minus B.
      low: the low end of its 95% interval.
      high: the high end.
      share_not_above_zero: of the resamples, those in which A is no better than B: near 0 where A is surely better.
      better: the share of the examples on which A is better, in the mean over its runs.
      worse: on which it is worse.
      equal: on which both are the same.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    share_not_above_zero: float
    better: float
    worse: float
    equal: float


@dataclass(frozen=True)
class Comparison:
    """A score of two sides on the examples of a test set that all of their runs have answered.

    Attributes:
      task: the test set.
      score: its name in results.json.
      examples: how many are compared.
      left_out: how many others some run has answered.
      found: the difference.
    """

    task: str
    score: str
    examples: int
    left_out: int
    found: Difference

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        named = {"task": self.task, "score": self.score, "examples": self.examples, "left_out": self.left_out}
        return named | asdict(self.found)


def paired_bootstrap(
    a: Float[np.ndarray, "runs_a examples"], b: Float[np.ndarray, "runs_b examples"], resamples: int, seed: int
) -> Difference:
    """Return the difference of two sides with its 95% interval.

    Args:
      a: the score of each example in each run of side A, x 100.
      b: of side B, with the examples in the same order.
      resamples: how many times to draw.
      seed: of the draws; the same seed gives the same interval.
    """
    times_drawn = draws(a.shape[1], resamples, seed)
    differences = _resampled(a, times_drawn, seed + 1) - _resampled(b, times_drawn, seed + 2)
    low, high = interval(differences[:, None])
    by_example = a.mean(0) - b.mean(0)
    return Difference(
        a=float(a.mean()),
        b=float(b.mean()),
        difference=float(a.mean() - b.mean()),
        low=float(low[0]),
        high=float(high[0]),
        share_not_above_zero=float(np.mean(differences <= NO_DIFFERENCE)),
        better=float(np.mean(by_example > NO_DIFFERENCE)),
        worse=float(np.mean(by_example < -NO_DIFFERENCE)),
        equal=float(np.mean(np.abs(by_example) <= NO_DIFFERENCE)),
    )


def _resampled(
    values: Float[np.ndarray, "runs examples"], times_drawn: Float[np.ndarray, "resamples examples"], seed: int
) -> Float[np.ndarray, " resamples"]:
    """Return the mean over the drawn examples of the drawn runs."""
    runs, examples = values.shape
    runs_drawn = draws(runs, len(times_drawn), seed)
    return np.asarray(((times_drawn @ values.T) * runs_drawn).sum(1) / (examples * runs))


@checked
def compare(
    a: Runs,
    b: Runs,
    tasks: Sequence[str] = (),
    scores: Sequence[str] = (),
    *,
    resamples: Resamples,
    seed: Seed,
) -> list[Comparison]:
    """Compare the runs of two sides on the examples that all of them have answered.

    Args:
      a: the run folders of side A; several are replicates, as of several seeds.
      b: of side B.
      tasks: test sets; none are all that every run has answers to.
      scores: their names in results.json; none are those that the terminal shows.
      resamples: number of bootstrap resamples.
      seed: of the resampling.

    Raises:
      UserError: there is no such test set, a run has no scored answers to it, the runs answered other examples, or have
        no such score.
    """
    for task in tasks:
        find_test_set(task, "--tasks")
    runs = [as_path(run, side) for side, runs in (("RUN_A", a), ("RUN_B", b)) for run in runs]
    result = []
    for task in tasks or _common_tasks(runs):
        rows = [_read(run, task) for run in runs]
        ids = _common_ids(task, runs, rows)
        left_out = len(set().union(*rows)) - len(ids)
        values = [[_scores(of_run[id]) for id in ids] for of_run in rows]
        for score in scores or [name for name in SHOWN if any(name in each for of_run in values for each in of_run)]:
            table = _table(task, score, values)
            found = paired_bootstrap(table[: len(a)], table[len(a) :], resamples, seed)
            result.append(Comparison(task, score, table.shape[1], left_out + len(ids) - table.shape[1], found))
    return result


def _common_tasks(runs: Sequence[epath.Path]) -> list[str]:
    """Return the test sets that every run has answers to."""
    for run in runs:
        if not (run / "eval").is_dir():
            raise UserError("run", run, "has no predictions; name a run folder, or run python -m coi_jax.evaluate")
    names = sorted(folder.name for folder in (runs[0] / "eval").iterdir())
    found = [name for name in names if all((run / "eval" / name / PREDICTIONS).exists() for run in runs)]
    if not found:
        hint = "have no test set in common; run python -m coi_jax.evaluate on both"
        raise UserError("runs", ", ".join(map(str, runs)), hint)
    return found


def _read(run: epath.Path, task: str) -> dict[str, Row]:
    """Return the lines of a run's predictions by the id of their example."""
    folder = run / "eval" / task
    command = f"python -m coi_jax.evaluate --workdir {shlex.quote(os.fspath(run))} --tasks {task}"
    if not (folder / PREDICTIONS).exists():
        raise UserError("--tasks", task, f"{run} has no predictions of it; run {command}")
    lines = list(predictions.read_rows(folder))
    rows = {row["id"]: row for row in lines}
    if len(rows) < len(lines) or not rows:
        found = "holds no answer" if not rows else "has answers to the same example twice"
        raise UserError("predictions", folder / PREDICTIONS, f"{found}; remove it and run {command}")
    if not all("scores" in row and "steps" in row for row in lines):
        hint = f"is of an earlier version, without scores; run {command}, which adds them and generates nothing anew"
        raise UserError("predictions", folder / PREDICTIONS, hint)
    _check_scores(folder, rows, command)
    return rows


def _check_scores(folder: epath.Path, rows: Mapping[str, Row], command: str) -> None:
    """Raise UserError where lines were changed after they were scored, by the hash and the means of `results.json`.

    Args:
      folder: of the run and test set.
      rows: its lines. Where they are more or fewer than were scored, as of a sample, nothing is known of them.
      command: that scores them again.
    """
    path = folder / RESULTS
    results = read_results(path) if path.exists() else {}
    if results.get("examples") != len(rows):
        return
    of_lines = predictions.digest_of_rows(rows.values())
    means = {key: np.mean([row["scores"][key] for row in rows.values() if key in row["scores"]] or 0) for key in SHOWN}
    scored = {key: results["scores"][key]["value"] for key in SHOWN if key in results["scores"]}
    is_changed = any(abs(value - means[key]) > ROUNDING for key, value in scored.items())
    if is_changed or results["provenance"]["predictions"] != of_lines:
        raise UserError("predictions", folder / PREDICTIONS, f"was changed after it was scored; run {command}")


def _common_ids(task: str, runs: Sequence[epath.Path], rows: Sequence[Mapping[str, Row]]) -> list[str]:
    """Return the ids of the examples that all runs have answered, in a fixed order.

    Raises:
      UserError: there is none, or an example has another question or reference in another run.
    """
    ids = sorted(set(rows[0]).intersection(*rows[1:]))
    if not ids:
        raise UserError("--tasks", task, f"{', '.join(map(str, runs))} have no example in common")
    for run, of_run in zip(runs[1:], rows[1:], strict=True):
        for id in ids:
            if any(of_run[id].get(key) != rows[0][id].get(key) for key in ("instruction", "input", "target")):
                hint = f"{runs[0]} and {run} answered different versions of it (example {id}); evaluate both on one"
                raise UserError("--tasks", task, hint)
    return ids


def _scores(row: Row) -> Scores:
    """Return the scores of a line, those of steps as `step2_rouge_l`."""
    steps = {
        str(ScoreKey(kind, number)): value
        for number, step in enumerate(row["steps"], 1)
        for kind, value in step.get("scores", {}).items()
    }
    return {**row["scores"], **steps}


def _table(task: str, score: str, values: Sequence[Sequence[Scores]]) -> Float[np.ndarray, "runs examples"]:
    """Return a score of the examples that have it in every run.

    Args:
      task: the test set, for the error.
      score: its name.
      values: all scores of each example in each run.

    Raises:
      UserError: no example has it in every run.
    """
    table = np.array([[scores.get(score, np.nan) for scores in of_run] for of_run in values], np.float64)
    table = table[:, ~np.isnan(table).any(axis=0)]
    if not table.size:
        known = sorted({name for of_run in values for scores in of_run for name in scores})
        hint = "no example has it in all runs" if score in known else nearest(score, known)
        raise UserError("--scores", score, f"{task}: {hint}")
    return table
