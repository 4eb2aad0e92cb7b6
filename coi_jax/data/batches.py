"""Fills the arrays of a batch from packed examples, one row of examples after another; int32, but for weights by step.

In every row `segments` numbers the examples from 1 (0 is padding), and the ids of padding are the pad id.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Real

from coi_jax.data.row_shape import RowShape
from coi_jax.data.step_weights import Weights
from coi_jax.tokenizers.protocol import Vocabulary

Ids = Int32[np.ndarray, "_"]
Pair = tuple[Ids, Ids]  # inputs and targets of an example
Batch = dict[str, Real[np.ndarray, "rows _"]]


def fill(
    rows: Sequence[Sequence[Pair]],
    shape: RowShape,
    vocabulary: Vocabulary,
    weights: Sequence[Sequence[Weights]] | None = None,
) -> Batch:
    """Return the arrays of some rows.

    Decoder, [rows, length]: `tokens`, `targets` (the token after each), `weights` (1 where the target belongs to an
    answer), `segments`, `positions` (from 0 in each example).
    T5: `encoder_tokens`, `encoder_segments` [rows, length]; `tokens` (targets shifted right behind a pad id),
    `targets`, `weights`, `segments` [rows, targets_length].

    Args:
      rows: the examples of each row, as (inputs, targets).
      shape: of a row.
      vocabulary: whose pad and begin ids are used.
      weights: of the targets of each example, which make `weights` an array of float32; None: 1 for each.
    """
    batch = (_fill_t5 if shape.targets_length else _fill_decoder)(rows, shape, vocabulary)
    if weights is not None:
        flat = [np.zeros(0, np.float32), *(each for row in weights for each in row)]
        counts = batch["weights"] == 1
        batch["weights"] = np.zeros(counts.shape, np.float32)
        batch["weights"][counts] = np.concatenate(flat)
    return batch


def _empty(names: Sequence[str], rows: int, length: int, pad_id: int) -> Batch:
    fills = {name: pad_id if name.endswith(("tokens", "targets")) else 0 for name in names}
    return {name: np.full((rows, length), value, np.int32) for name, value in fills.items()}


def _fill_decoder(rows: Sequence[Sequence[Pair]], shape: RowShape, vocabulary: Vocabulary) -> Batch:
    names = ("tokens", "targets", "weights", "segments", "positions")
    batch = _empty(names, len(rows), shape.length, vocabulary.pad_id)
    begin = np.array([vocabulary.bos_id] * shape.begins, np.int32)
    for row, examples in enumerate(rows):
        start = 0
        for segment, (inputs, targets) in enumerate(examples, 1):
            ids = np.concatenate([begin, inputs, targets])
            span = slice(start, start + len(ids) - 1)
            batch["tokens"][row, span], batch["targets"][row, span] = ids[:-1], ids[1:]
            batch["weights"][row, span.stop - len(targets) : span.stop] = 1
            batch["segments"][row, span] = segment
            batch["positions"][row, span] = np.arange(len(ids) - 1)
            start = span.stop
    return batch


def _fill_t5(rows: Sequence[Sequence[Pair]], shape: RowShape, vocabulary: Vocabulary) -> Batch:
    batch = _empty(("encoder_tokens", "encoder_segments"), len(rows), shape.length, vocabulary.pad_id)
    batch |= _empty(("tokens", "targets", "weights", "segments"), len(rows), shape.targets_length, vocabulary.pad_id)
    for row, examples in enumerate(rows):
        start = decoder_start = 0
        for segment, (inputs, targets) in enumerate(examples, 1):
            span = slice(start, start + len(inputs))
            batch["encoder_tokens"][row, span], batch["encoder_segments"][row, span] = inputs, segment
            decoder = slice(decoder_start, decoder_start + len(targets))
            batch["targets"][row, decoder], batch["segments"][row, decoder] = targets, segment
            batch["tokens"][row, decoder_start + 1 : decoder.stop] = targets[:-1]
            batch["weights"][row, decoder] = 1
            start, decoder_start = span.stop, decoder.stop
    return batch
