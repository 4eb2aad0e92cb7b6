"""Predictions on disk: a line for each answer, appended as it is generated, so that an interruption costs
only what is under way.

A line has what a reader needs: the instructions, the input, the reference and predicted output of every step, and the
scores. Only `id`, `prediction` and `complete` are read again to go on with an evaluation; `refresh` writes all else
anew where it is missing, as in files of earlier versions, or where scores are computed in another way by now.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pydantic

from coi_jax.chains.chain import Chain, parse
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.schema import check_value
from coi_jax.common.seals import seal_row, unseal_row
from coi_jax.common.storage import AppendFile, PathLike, as_path
from coi_jax.evaluation.scores import ScoreKey
from coi_jax.evaluation.timing import TIMING

PREDICTIONS, GENERATED_FROM = "predictions.jsonl", "generated_from.json"
RESULTS = "results.json"  # the scores of the predictions, beside them
Row = dict[str, Any]
Scores = dict[str, float]


class _StepLine(pydantic.BaseModel):
    """What a line of predictions.jsonl says of a step."""

    instruction: str | None = None
    reference: str | None = None
    prediction: str | None = None
    scores: Scores = {}


class _Line(pydantic.BaseModel):
    """A line of predictions.jsonl; those of earlier versions have no more than id, texts and `complete`."""

    id: str
    prediction: str
    complete: bool
    instruction: str = ""
    input: str = ""
    target: str = ""
    published_target: str = ""
    stages: dict[str, str] = {}
    steps: list[_StepLine] = []
    scores: Scores = {}


@dataclass(frozen=True)
class Prediction:
    """The text generated for an example.

    Attributes:
      id: of the example.
      text: the answer.
      complete: whether it ended before the limit of new tokens.
      stages: by name, what the model wrote in calls before, as the steps that least-to-most prompting finds.
    """

    id: str
    text: str
    complete: bool
    stages: Mapping[str, str] = field(default_factory=dict)

    def row(self, chain: Chain, scores: Mapping[ScoreKey, float]) -> Row:
        """Return a line of predictions.jsonl.

        Args:
          chain: that the answer is to.
          scores: of the answer, x 100.
        """
        row: Row = {
            "id": self.id,
            "instruction": chain.instruction,
            "input": chain.input,
            "prediction": self.text,
            "complete": self.complete,
            "target": chain.targets,
        }
        if self.stages:
            row["stages"] = dict(self.stages)
        if chain.published_targets is not None:
            row["published_target"] = chain.published_targets
        whole = {key.kind: value for key, value in scores.items() if key.step is None}
        return row | {"steps": _step_rows(chain, self.text, scores), "scores": whole}


def _step_rows(chain: Chain, text: str, scores: Mapping[ScoreKey, float]) -> list[Row]:
    """Return each step that was asked for or written: None stands for what a step lacks."""
    rows = []
    for number, (step, output) in enumerate(itertools.zip_longest(chain.steps, parse(text)), 1):
        rows.append(
            {
                "instruction": step.instruction if step else None,
                "reference": step.output if step else None,
                "prediction": output,
                "scores": {key.kind: value for key, value in scores.items() if key.step == number},
            }
        )
    return rows


def prepare(folder: PathLike, generated_from: dict[str, Any]) -> bool:
    """Prepare a folder for the predictions of a checkpoint, test set and way of decoding.

    Predictions of another one are removed, so that the two are never mixed. Returns whether there were such.

    Args:
      folder: of the run and test set.
      generated_from: everything that determines the predictions.
    """
    header, path = as_path(folder) / GENERATED_FROM, as_path(folder) / PREDICTIONS
    if are_current(folder, generated_from):
        files.recover_jsonl(path, "predictions")
        return False
    is_stale = bool(path.exists())
    for stale in (path, path.parent / TIMING):
        stale.unlink(missing_ok=True)
    files.write_json(header, generated_from, "workdir")
    files.write_text(path, "", "workdir")
    return is_stale


def are_current(folder: PathLike, generated_from: dict[str, Any]) -> bool:
    """Return whether a folder has predictions, and of this checkpoint, test set and way of decoding."""
    header, path = as_path(folder) / GENERATED_FROM, as_path(folder) / PREDICTIONS
    return bool(header.exists() and path.exists() and files.read_json(header, "generated_from") == generated_from)


def read(folder: PathLike) -> Iterator[Prediction]:
    """Yield the predictions of a folder."""
    for row in read_rows(folder):
        yield Prediction(row["id"], row["prediction"], row["complete"])


def read_rows(folder: PathLike) -> Iterator[Row]:
    """Yield the lines of a folder's predictions; raise UserError where one has not the fields of a prediction, or
    was changed since it was written.
    """
    for place, sealed in files.read_placed_jsonl(as_path(folder) / PREDICTIONS, "predictions"):
        row = unseal_row(sealed, "predictions", place, "remove the line and run python -m coi_jax.evaluate again")
        check_value(_Line, row, "predictions", place, "remove the file and evaluate again")
        yield row


def append(file: IO[str] | AppendFile, prediction: Prediction, chain: Chain, scores: Mapping[ScoreKey, float]) -> None:
    """Append a prediction to an open predictions.jsonl.

    Args:
      file: open for appending.
      prediction: the answer.
      chain: that it is an answer to.
      scores: of the answer, x 100.
    """
    files.append_jsonl(file, seal_row(prediction.row(chain, scores)))


def refresh(folder: PathLike, rows: Iterable[Row]) -> bool:
    """Write some lines of a folder's predictions anew, at once, where they are others; return whether any was.

    Args:
      folder: of the run and test set.
      rows: the lines as they are due. Lines of other examples stay as they are.
    """
    due = {row["id"]: row for row in rows}
    found = list(read_rows(folder))
    written = [due.get(row["id"], row) for row in found]
    if written == found:
        return False
    lines = (json.dumps(seal_row(row), ensure_ascii=False) + "\n" for row in written)
    files.write_text(as_path(folder) / PREDICTIONS, "".join(lines), "workdir")
    return True


def digest(predictions: Iterable[Prediction]) -> str:
    """Return a hash of predictions that does not depend on their order."""
    return files.digest(sorted([prediction.id, prediction.text] for prediction in predictions))


def digest_of_rows(rows: Iterable[Row]) -> str:
    """Return `digest` of lines of predictions."""
    return digest(Prediction(row["id"], row["prediction"], True) for row in rows)


def check_scored(folder: PathLike, rows: Sequence[Row], results: PathLike) -> None:
    """Raise UserError where lines of predictions are not those that the results beside them are of.

    Args:
      folder: of the predictions.
      rows: all lines.
      results: their `results.json`; where it is missing, or of fewer examples, as of a sample, nothing is known.
    """
    if not as_path(results).exists() or files.read_value(results, ("examples",), int, "results") != len(rows):
        return
    if files.read_value(results, ("provenance", "predictions"), str, "results") != digest_of_rows(rows):
        hint = "was changed after it was scored; run python -m coi_jax.evaluate again"
        raise UserError("predictions", as_path(folder) / PREDICTIONS, hint)
