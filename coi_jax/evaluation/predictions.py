"""The answers to a test set on disk: a line each, appended as it is known, so that an interruption costs one batch."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.storage import AppendFile, PathLike, as_path

PREDICTIONS, MADE_BY = "predictions.jsonl", "made_by.json"


@dataclass(frozen=True)
class Prediction:
    """The text written for an example; not `complete` when it reached the limit of new tokens."""

    id: str
    text: str
    complete: bool

    def row(self, target: str) -> dict[str, Any]:
        """A line of predictions.jsonl; the reference stands beside the answer for those who read it."""
        return {"id": self.id, "prediction": self.text, "complete": self.complete, "target": target}


def begin(folder: PathLike, made_by: dict[str, Any]) -> bool:
    """Prepare a folder for predictions made by something (checkpoint, test set, way of decoding).

    Those of anything else are removed, so that the two are never mixed. Returns whether there were such.
    """
    header, path = as_path(folder) / MADE_BY, as_path(folder) / PREDICTIONS
    if header.exists() and path.exists() and files.read_json(header, "made_by") == made_by:
        files.recover_jsonl(path)
        return False
    is_stale = bool(path.exists())
    path.unlink(missing_ok=True)
    files.write_json(header, made_by)
    files.write_text(path, "")
    return is_stale


def read(folder: PathLike) -> Iterator[Prediction]:
    """Yield the predictions of a folder."""
    path = as_path(folder) / PREDICTIONS
    for number, row in enumerate(files.read_jsonl(path, "predictions"), 1):
        try:
            yield Prediction(row["id"], row["prediction"], row["complete"])
        except KeyError as error:
            where = f"{path}:{number}"
            raise UserError("predictions", where, f"has no {error}; remove the file and evaluate again") from None


def append(file: IO[str] | AppendFile, prediction: Prediction, target: str) -> None:
    """Adds one to an open predictions.jsonl."""
    files.append_jsonl(file, prediction.row(target))


def digest(predictions: Iterable[Prediction]) -> str:
    """A hash of predictions, whatever their order."""
    return files.digest(sorted([prediction.id, prediction.text] for prediction in predictions))
