"""Run records: the scores of every run on every test set, and table cells of several seeds computed from them.

A run is identified by its arm and seed. Two runs that claim the same place, seeds whose configs differ, and scores from
different versions of a test set are errors: a table never mixes them silently.
"""

import itertools
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from etils import epath

from coi_jax.common.errors import UserError, not_as_written, shorten
from coi_jax.common.schema import flatten
from coi_jax.common.seals import read_sealed
from coi_jax.common.storage import PathLike, absolute, as_path, is_local, is_there
from coi_jax.config.model import SPEED_FIELDS
from coi_jax.config.run import RunConfig, read_run_config
from coi_jax.data.arms import arm_names, find_arm, sort_arms
from coi_jax.data.test_sets import chain_length
from coi_jax.evaluation.results_file import read_results
from coi_jax.evaluation.span_results import MADE_BY, SPANS, is_of_spans, read_spans
from coi_jax.reporting.costs import Cost, read_cost
from coi_jax.runs.checkpoint_steps import steps

CONFIG = "config.json"
RESULTS = "eval/{}/results.json"
MEAN = "mean over tasks"  # the key of their means among a test set's tasks
# Fields in which runs of one cell may differ, and which no note of a table mentions.
IGNORED_FIELDS = (
    "arm",
    "seed",
    "mesh.",
    "data.cache_folder",
    *SPEED_FIELDS,
    "train.microbatches",
    "train.log_every",
    "train.checkpoint_every",
    "train.checkpoint_minutes",
    "train.preemption_hours",
    "train.keep_checkpoints",
    "train.validation",
    "logging.",
    "evaluation.tests",
    "evaluation.batch",
    "evaluation.examples",  # what was scored is compared by the hash of its examples
)

ENVIRONMENT = "environment.json"
MISREAD = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError)  # of a value that is not as it was written
PROVENANCE = ("run", "checkpoint", "dataset", "source", "test_set", "predictions")


@dataclass(frozen=True)
class Estimate:
    """A score x 100 with its 95% interval over examples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Record:
    """One run's scores on one test set.

    Attributes:
      path: of its results.json.
      config: the run's.
      test_set: its name.
      examples: how many were scored.
      available: how many the test set has.
      scores: by their keys in results.json.
      tasks: scores of the test set's tasks, and their means under "mean over tasks"; empty where it has no tasks.
      label_only_baseline: the scores of answers that have the labels and nothing else.
      provenance: the run, checkpoint and files that the scores come from.
      commit: of the code that trained the run; None where it was not trained, or not from a working copy.
      spans: who marked the spans that some of the scores are of, and in how many answers; None where nobody did.
      cost: the time of training and evaluation, and its price.
    """

    path: epath.Path
    config: RunConfig
    test_set: str
    examples: int
    available: int
    scores: dict[str, Estimate]
    label_only_baseline: dict[str, float]
    provenance: dict[str, Any]
    commit: str | None = None
    tasks: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    spans: dict[str, Any] | None = None
    cost: Cost = field(default_factory=dict)

    @property
    def arm(self) -> str:
        """Return the run's arm."""
        return self.config.arm

    @property
    def seed(self) -> int:
        """Return the run's seed."""
        return self.config.seed

    @property
    def run(self) -> epath.Path:
        """Return the run's folder."""
        return self.path.parent.parent.parent

    def scores_of(self, task: str | None) -> dict[str, Estimate]:
        """Return the scores of a task of the test set, which may have none; those of all examples where None."""
        return self.scores if task is None else self.tasks.get(task, {})


@dataclass(frozen=True)
class Cell:
    """One score of an arm on a test set: of one run, or the mean over the seeds of several."""

    arm: str
    test_set: str
    metric: str
    records: tuple[Record, ...]
    task: str | None = None  # of the test set; None: all of its examples

    def score(self, record: Record) -> Estimate:
        """Return the score of one of the cell's runs."""
        return record.scores_of(self.task)[self.metric]

    @property
    def source(self) -> str:
        """Return where the chains of the test set come from, by the manifest of their dataset."""
        return str(self.records[0].provenance["source"])

    @property
    def values(self) -> list[float]:
        """Return the score of each run, by seed."""
        return [self.score(record).value for record in self.records]

    @property
    def mean(self) -> float:
        """Return the mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """Return the standard deviation over seeds; None where there is one seed."""
        return statistics.stdev(self.values) if len(self.records) > 1 else None

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95% bootstrap interval over examples of one run, or one standard deviation around several."""
        if self.sd is not None:
            return self.mean - self.sd, self.mean + self.sd
        score = self.score(self.records[0])
        return score.low, score.high

    def to_dict(self) -> dict[str, Any]:
        """Return the cell and its provenance as JSON values."""
        low, high = self.interval
        return {
            "arm": self.arm,
            "test_set": self.test_set,
            "metric": self.metric,
            "n": len(self.records),
            "mean": self.mean,
            "sd": self.sd,
            "low": low,
            "high": high,
            "sources": [self._source(record) for record in self.records],
        }

    def _source(self, record: Record) -> dict[str, Any]:
        score = self.score(record)
        return {
            "seed": record.seed,
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "examples": record.examples,
            "results": str(record.path),
            "commit": record.commit,
            "cost": record.cost,
            **record.provenance,
            **({"spans": record.spans} if is_of_spans(self.metric) else {}),
        }


@dataclass(frozen=True)
class Records:
    """The records of some run folders, consistent with one another.

    Attributes:
      rows: one record for each run and test set.
      missing: results that a run's config asks for and that do not exist.
      damaged: why other results are left out.
    """

    rows: tuple[Record, ...]
    missing: tuple[epath.Path, ...]
    damaged: tuple[UserError, ...] = ()

    @property
    def arms(self) -> list[str]:
        """Return the arms that have a run, in the registry's order."""
        return sort_arms(record.arm for record in self.rows)

    @property
    def test_sets(self) -> list[str]:
        """Return the test sets that have a result: chains by their length, then the others."""
        names = {record.test_set for record in self.rows}
        return sorted(names, key=lambda name: (chain_length(name) is None, name))

    @property
    def varying(self) -> list[str]:
        """Return the config fields, besides arm and seed, in which the runs differ."""
        return sorted({name for row in self.rows for name in differences(self.rows[0].config, row.config)})

    def cell(self, arm: str, test_set: str, metric: str, task: str | None = None) -> Cell | None:
        """Return the cell of an arm's runs; None where no run has that score.

        Args:
          arm: its name.
          test_set: its name.
          metric: the key of the score.
          task: of the test set; None: all of its examples.
        """
        chosen = [r for r in self.rows if (r.arm, r.test_set) == (arm, test_set) and metric in r.scores_of(task)]
        return Cell(arm, test_set, metric, tuple(chosen), task) if chosen else None

    def source(self, test_set: str) -> str:
        """Return where the chains of a test set come from, by the manifest of their dataset."""
        return next(str(row.provenance["source"]) for row in self.rows if row.test_set == test_set)

    def examples(self, test_set: str) -> int:
        """Return the number of examples of a test set that were scored."""
        return next(row.examples for row in self.rows if row.test_set == test_set)

    def available(self, test_set: str) -> int:
        """Return the number of examples that a test set has; fewer are scored with `evaluation.examples`."""
        return next(row.available for row in self.rows if row.test_set == test_set)

    def label_only_baseline(self, test_set: str, metric: str) -> float | None:
        """Return the score of answers with nothing but labels on a test set; None where no record has it."""
        baselines = [r.label_only_baseline for r in self.rows if r.test_set == test_set]
        return next((baseline[metric] for baseline in baselines if metric in baseline), None)


def load(folders: Sequence[PathLike]) -> Records:
    """Read the runs in some folders, which must be consistent with one another.

    Raises:
      UserError: as `read` and `check_consistent`.
    """
    return check_consistent(read(folders))


def read(folders: Sequence[PathLike], price: float | None = None) -> Records:
    """Read the runs in some folders; each is a run folder or holds run folders.

    A run whose config cannot be read is skipped, and named on standard error; results that are damaged are left out. So
    is a cost whose files are damaged, and the commit of such a run; they are named on standard error too.

    Args:
      folders: run folders, or folders of them.
      price: of a device, or of a core of a CPU, for an hour, in US dollars; None: no cost is computed in dollars.

    Raises:
      UserError: the folders hold no result that can be read.
    """
    runs = {absolute(run): run for folder in folders for run in _run_folders(as_path(folder, "--runs"))}
    rows, missing, damaged, unreadable = list[Record](), list[epath.Path](), list[UserError](), list[UserError]()
    unknown: list[UserError] = []
    for run in runs.values():
        if not (run / "eval").is_dir() and not steps(run / "checkpoints"):
            continue  # its training failed before the first checkpoint, or has just begun
        try:
            config = _read_config(run / CONFIG)
        except UserError as error:
            unreadable.append(error)
            continue
        found = _results(run)
        missing += [run / RESULTS.format(test) for test in config.evaluation.tests if test not in found]
        for path in found.values():
            try:
                record = _add_spans(_read(path, config, _commit(run, unknown)), damaged)
                cost = read_cost(run, record.test_set, find_arm(config.arm), price, unknown)
                rows.append(replace(record, cost=cost))
            except UserError as error:
                damaged.append(error)
    if not rows:
        fault = UserError(
            "--runs", ", ".join(map(str, folders)), "no results yet; run python -m coi_jax.evaluate first"
        )
        raise next(iter([*unreadable, *damaged]), fault)
    for reason in unreadable:
        print(f"run skipped: {reason}", file=sys.stderr)
    for text in dict.fromkeys(map(str, unknown)):  # one file may be of several test sets
        print(f"cost or commit left out: {text}", file=sys.stderr)
    arms = arm_names()
    ordered = sorted(rows, key=lambda row: (arms.index(row.arm), row.test_set, row.seed))
    return Records(tuple(ordered), tuple(missing), tuple(damaged))


def _commit(run: epath.Path, faults: list[UserError]) -> str | None:
    """Return the commit of the code that trained a run, where its environment names one; a damaged one is a fault."""
    path = run / ENVIRONMENT
    try:
        commit = read_sealed(path, "environment").get("commit") if path.exists() else None
    except UserError as fault:
        faults.append(fault)
        return None
    return commit if isinstance(commit, str) else None


def _results(run: epath.Path) -> dict[str, epath.Path]:
    """Return the results of a run by test set."""
    tests = [path.name for path in (run / "eval").iterdir()] if (run / "eval").is_dir() else []
    return {test: run / RESULTS.format(test) for test in sorted(tests) if (run / RESULTS.format(test)).exists()}


def _run_folders(folder: epath.Path, above: frozenset[str] = frozenset()) -> list[epath.Path]:
    """Return the run folders in a folder; a link to one of the folders `above` it is not followed."""
    here = os.path.realpath(folder) if is_local(folder) else str(folder)
    if here in above:
        return []
    if not folder.is_dir():
        raise UserError("--runs", folder, "no such folder; name a run folder or one that holds run folders")
    if is_there(folder / CONFIG) or _results(folder):  # whose config may be missing, which is told
        return [folder]
    return [run for inner in sorted(folder.iterdir()) if inner.is_dir() for run in _run_folders(inner, above | {here})]


def _read_config(path: epath.Path) -> RunConfig:
    config = read_run_config(path, "run's config")
    try:
        find_arm(config.arm)
    except UserError as error:
        raise UserError("run's config", path, str(error)) from None
    return config


def _read(path: epath.Path, config: RunConfig, commit: str | None) -> Record:
    value = read_results(path)
    try:
        scores = _estimates(value["scores"])
        baseline = {key: float(score) for key, score in value["label_only_baseline"].items()}
        provenance = {key: value["provenance"][key] for key in PROVENANCE}
        counts = int(value["examples"]), int(value["provenance"].get("available_examples", value["examples"]))
        record = Record(path, config, value["task"], *counts, scores, baseline, provenance, commit, _tasks(value))
    except MISREAD as error:
        raise UserError("results", path, not_as_written("coi_jax.evaluate", error)) from None
    if record.test_set != path.parent.name:  # by which other files of the test set are found
        hint = f"is of the test set {shorten(record.test_set, 100)}, by whose name its folder goes; evaluate again"
        raise UserError("results", path, hint)
    return record


def _add_spans(record: Record, damaged: list[UserError]) -> Record:
    """Return a record with the scores of spans that were marked in its answers; why they cannot be read is added."""
    try:
        spans = read_spans(record.path.parent, record.provenance["predictions"])
        if spans is None:
            return record
        made_by = {name: spans[name] for name in MADE_BY}
        return replace(record, scores=record.scores | _estimates(spans["scores"]), spans=made_by)
    except UserError as error:
        damaged.append(error)
    except MISREAD as error:
        damaged.append(UserError("spans", record.path.parent / SPANS, not_as_written("coi_jax.spans", error)))
    return record


def _estimates(scores: dict[str, Any]) -> dict[str, Estimate]:
    parts = ("value", "low", "high")
    return {key: Estimate(*(float(score[part]) for part in parts)) for key, score in scores.items()}


def _tasks(results: dict[str, Any]) -> dict[str, dict[str, Estimate]]:
    if "by_task" not in results:
        return {}
    tasks = {name: _estimates(task["scores"]) for name, task in results["by_task"]["tasks"].items()}
    return {**tasks, MEAN: _estimates(results["by_task"]["mean"])}


def check_consistent(records: Records) -> Records:
    """Return the records, each once.

    Raises:
      UserError: two claim the same place, are of seeds whose configs differ, or of different versions of a test set.
    """
    kept: dict[tuple[str, str, int], Record] = {}
    for row in records.rows:
        other = kept.setdefault((row.arm, row.test_set, row.seed), row)
        if (other.scores, other.provenance) != (row.scores, row.provenance):
            raise _conflict(
                other, row, f"both are {row.arm} with seed {row.seed}; name only one of these runs in --runs"
            )
        if other is not row:
            print(f"{row.path} has the same answers as {other.path} and is left out", file=sys.stderr)
    result = list(kept.values())
    for one, other in itertools.combinations(result, 2):
        _check_pair(one, other)
    return replace(records, rows=tuple(result))


def _check_pair(one: Record, other: Record) -> None:
    if one.test_set == other.test_set and one.examples != other.examples:
        counts = f"{one.examples} and {other.examples}"
        raise _conflict(one, other, f"scored on {counts} examples; evaluate both with the same evaluation.examples")
    if one.test_set == other.test_set and one.provenance["test_set"] != other.provenance["test_set"]:
        raise _conflict(one, other, "scored on different versions of the test set; evaluate both on the same one")
    if one.arm == other.arm and (fields := differences(one.config, other.config)):
        raise _conflict(
            one, other, f"differ in more than their seed ({', '.join(fields)}); name only one kind in --runs"
        )


def _conflict(one: Record, other: Record, hint: str) -> UserError:
    return UserError(f"{one.arm} on {one.test_set}", f"{one.path} and {other.path}", hint)


def differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Return the dotted names of the fields in which two configs differ, but for `IGNORED_FIELDS`."""
    left, right = flatten(one.model_dump(mode="json")), flatten(other.model_dump(mode="json"))
    names = sorted(name for name in {*left, *right} if left.get(name) != right.get(name))
    return [name for name in names if not name.startswith(IGNORED_FIELDS)]
