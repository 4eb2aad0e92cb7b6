"""A run's numbers, written twice: metrics.jsonl for programs, TensorBoard events for people."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from coi_jax.common import files


class MetricsLog:
    """Appends the numbers of a step to both files; a write that fails raises OSError at once."""

    def __init__(self, jsonl: Path, tensorboard: Path, *, start: int) -> None:
        """Opens the log of a run that goes on after `start` steps: what was logged later than that is dropped."""
        _drop_after(jsonl, start)
        self._jsonl = open(jsonl, "a", encoding="utf-8")
        # A file of its own, also within a second of the last; TensorBoard forgets what older ones say of purged steps.
        self._events = SummaryWriter(str(tensorboard), purge_step=start + 1, filename_suffix=f".from{start}")

    def close(self) -> None:
        """Closes both files."""
        self._jsonl.close()
        self._events.close()

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Writes the numbers of a step; `step` counts from 1."""
        files.append_jsonl(self._jsonl, {"step": step, **numbers})
        for name, number in numbers.items():
            self._events.add_scalar(name, number, step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, in the order of their steps."""
    return list(files.read_jsonl(path, "metrics"))


def _drop_after(path: Path, step: int) -> None:
    """Keeps the rows up to a step: a run that was killed goes on from its checkpoint and logs the rest again."""
    files.recover_jsonl(path)
    if not path.exists():
        return
    kept = [row for row in read_metrics(path) if row["step"] <= step]
    files.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
