"""Predictions on disk: a line for each answer, appended as it is generated, so that an interruption costs one batch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import AppendFile, PathLike, as_path

PREDICTIONS, GENERATED_FROM = "predictions.jsonl", "generated_from.json"


@dataclass(frozen=True)
class Prediction:
    """The text generated for an example.

    Attributes:
      id: of the example.
      text: the answer.
      complete: whether it ended before the limit of new tokens.
    """

    id: str
    text: str
    complete: bool

    def row(self, target: str) -> dict[str, Any]:
        """Return a line of predictions.jsonl, which has the reference for readers."""
        return {"id": self.id, "prediction": self.text, "complete": self.complete, "target": target}


def prepare(folder: PathLike, generated_from: dict[str, Any]) -> bool:
    """Prepare a folder for the predictions of a checkpoint, test set and way of decoding.

    Predictions of another one are removed, so that the two are never mixed. Returns whether there were such.

    Args:
      folder: of the run and test set.
      generated_from: everything that determines the predictions.
    """
    header, path = as_path(folder) / GENERATED_FROM, as_path(folder) / PREDICTIONS
    if are_current(folder, generated_from):
        files.recover_jsonl(path)
        return False
    is_stale = bool(path.exists())
    path.unlink(missing_ok=True)
    files.write_json(header, generated_from)
    files.write_text(path, "")
    return is_stale


def are_current(folder: PathLike, generated_from: dict[str, Any]) -> bool:
    """Return whether a folder has predictions, and of this checkpoint, test set and way of decoding."""
    header, path = as_path(folder) / GENERATED_FROM, as_path(folder) / PREDICTIONS
    return bool(header.exists() and path.exists() and files.read_json(header, "generated_from") == generated_from)


def read(folder: PathLike) -> Iterator[Prediction]:
    """Yield the predictions of a folder."""
    path = as_path(folder) / PREDICTIONS
    for place, row in files.read_placed_jsonl(path, "predictions"):
        for key, kind in {"id": str, "prediction": str, "complete": bool}.items():
            if not isinstance(row.get(key), kind):
                hint = f"has no {kind.__name__} {key!r}; remove the file and evaluate again"
                raise UserError("predictions", place, hint)
        yield Prediction(row["id"], row["prediction"], row["complete"])


def append(file: IO[str] | AppendFile, prediction: Prediction, target: str) -> None:
    """Append a prediction to an open predictions.jsonl.

    Args:
      file: open for appending.
      prediction: the answer.
      target: the reference text.
    """
    files.append_jsonl(file, prediction.row(target))


def digest(predictions: Iterable[Prediction]) -> str:
    """Return a hash of predictions that does not depend on their order."""
    return files.digest(sorted([prediction.id, prediction.text] for prediction in predictions))
