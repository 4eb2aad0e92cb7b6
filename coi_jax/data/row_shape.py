"""The shape of a packed row, and the rule for examples that are longer."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

Lengths = Int[np.ndarray, "examples 2"]  # numbers of input and target ids


class Fitted(NamedTuple):
    """The ids of each example that are kept, and which examples are.

    Attributes:
      lengths: numbers of input and target ids, after cutting.
      kept: False where an example is dropped.
      cut: True where a kept example lost ids.
    """

    lengths: Lengths
    kept: Bool[np.ndarray, " examples"]
    cut: Bool[np.ndarray, " examples"]


@dataclass(frozen=True)
class RowShape:
    """The positions of a row.

    A decoder's row has one side: an example is [begin?] + inputs + targets, and takes one position less than that, for
    the last id is only predicted. A T5's row has two: inputs in the encoder, targets in the decoder.

    Attributes:
      length: positions of a row; of its encoder side, in a T5.
      targets_length: positions of a T5's decoder side; 0 for a decoder model.
      begins: 1 where a decoder's examples begin with the begin id, else 0.
    """

    length: int
    targets_length: int
    begins: int

    @property
    def capacity(self) -> tuple[int, ...]:
        """Positions of each side."""
        return (self.length, self.targets_length) if self.targets_length else (self.length,)

    def needs(self, lengths: Lengths) -> Int[np.ndarray, "examples sides"]:
        """Positions that each example takes on each side."""
        return lengths if self.targets_length else (lengths.sum(1, keepdims=True) + self.begins - 1)

    def fit(self, lengths: Lengths, rule: Literal["drop", "cut_inputs", "cut_targets"]) -> Fitted:
        """Make examples fit a row.

        "cut_inputs" says how many ids a prompt may have at most so that the answer stays whole (the loader cuts its
        input to that); "cut_targets" cuts the end of an answer, as the paper's trainer did. An example that would be
        left without a prompt or without an answer, or that is too long on the other side of a T5's row, is dropped
        under either.
        """
        inputs, targets = lengths[:, 0], lengths[:, 1]
        if self.targets_length:
            most_inputs, most_targets = np.full_like(inputs, self.length), np.full_like(targets, self.targets_length)
        else:
            room = self.length + 1 - self.begins
            most_inputs, most_targets = room - targets, room - inputs
        if rule == "cut_inputs":
            inputs = np.minimum(inputs, most_inputs)
        if rule == "cut_targets":
            targets = np.minimum(targets, most_targets)
        fitted = np.stack([inputs, targets], 1)
        fits = np.all(self.needs(fitted) <= np.array(self.capacity), 1)
        kept = fits & np.all(fitted > 0, 1)
        return Fitted(fitted, kept, kept & np.any(fitted < lengths, 1))
