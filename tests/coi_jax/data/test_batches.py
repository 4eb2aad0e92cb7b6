import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coi_jax.data.batches import Pair, fill
from coi_jax.data.row_shape import RowShape
from coi_jax.tokenizers.mistral import MistralVocabulary
from coi_jax.tokenizers.vocabulary import ByteVocabulary

BYTES, MISTRAL = ByteVocabulary(), MistralVocabulary("v1")

ids = st.lists(st.integers(3, 250), min_size=1, max_size=6).map(lambda values: np.array(values, np.int32))
rows = st.lists(st.lists(st.tuples(ids, ids), max_size=3), min_size=1, max_size=4)


def pair(inputs: list[int], targets: list[int]) -> Pair:
    return np.array(inputs, np.int32), np.array(targets, np.int32)


def test_a_decoder_row() -> None:
    batch = fill([[pair([5, 6], [7, 1]), pair([8], [9, 1])], []], RowShape(8, 0, 0), BYTES)
    assert {name: array[0].tolist() for name, array in batch.items()} == {
        "tokens": [5, 6, 7, 8, 9, 0, 0, 0],
        "targets": [6, 7, 1, 9, 1, 0, 0, 0],
        "weights": [0, 1, 1, 1, 1, 0, 0, 0],
        "segments": [1, 1, 1, 2, 2, 0, 0, 0],
        "positions": [0, 1, 2, 0, 1, 0, 0, 0],
    }
    assert all(array.dtype == np.int32 and not array[1].any() for array in batch.values())


def test_a_decoder_row_that_begins_with_the_begin_id() -> None:
    batch = fill([[pair([5, 6], [7, 2])]], RowShape(6, 0, 1), MISTRAL)
    assert batch["tokens"][0].tolist() == [1, 5, 6, 7, 0, 0]
    assert batch["targets"][0].tolist() == [5, 6, 7, 2, 0, 0]
    assert batch["weights"][0].tolist() == [0, 0, 1, 1, 0, 0]


def test_a_t5_row() -> None:
    batch = fill([[pair([5, 6], [7, 1]), pair([8], [9, 4, 1])]], RowShape(4, 6, 0), BYTES)
    assert {name: array[0].tolist() for name, array in batch.items()} == {
        "encoder_tokens": [5, 6, 8, 0],
        "encoder_segments": [1, 1, 2, 0],
        "tokens": [0, 7, 0, 9, 4, 0],
        "targets": [7, 1, 9, 4, 1, 0],
        "weights": [1, 1, 1, 1, 1, 0],
        "segments": [1, 1, 2, 2, 2, 0],
    }


@pytest.mark.parametrize("shape", [RowShape(8, 0, 0), RowShape(4, 6, 0)], ids=["decoder", "t5"])
def test_weights_by_step_take_the_places_of_their_targets(shape: RowShape) -> None:
    examples = [[pair([5, 6], [7, 1]), pair([8], [9, 4, 1])], []]
    weights = [[np.array([0.5, 2], np.float32), np.array([0, 3, 4], np.float32)], []]
    batch, plain = fill(examples, shape, BYTES, weights), fill(examples, shape, BYTES)
    assert batch["weights"].dtype == np.float32
    assert batch["weights"][plain["weights"] == 1].tolist() == [0.5, 2, 0, 3, 4]
    assert not batch["weights"][plain["weights"] == 0].any()
    assert all(batch[name] is not None and (batch[name] == plain[name]).all() for name in plain if name != "weights")
    assert fill([[], []], shape, BYTES, [[], []])["weights"].dtype == np.float32


@settings(max_examples=60)
@given(rows=rows, shape=st.sampled_from([RowShape(40, 0, 0), RowShape(40, 0, 1), RowShape(20, 20, 0)]))
def test_weights_count_target_tokens_and_examples_can_be_read_back(rows: list[list[Pair]], shape: RowShape) -> None:
    vocabulary = MISTRAL if shape.begins else BYTES
    batch = fill(rows, shape, vocabulary)
    assert batch["weights"].sum() == sum(len(targets) for row in rows for _, targets in row)
    assert not (batch["weights"] * (batch["segments"] == 0)).any()
    for number, row in enumerate(rows):
        assert batch["segments"][number].max() == len(row)
        for segment, (inputs, targets) in enumerate(row, 1):
            mine = batch["segments"][number] == segment
            weighted = batch["targets"][number][mine & (batch["weights"][number] == 1)]
            assert weighted.tolist() == targets.tolist()
            if shape.targets_length:
                seen = batch["encoder_tokens"][number][batch["encoder_segments"][number] == segment]
            else:
                seen = batch["tokens"][number][mine][shape.begins :][: len(inputs)]
                assert batch["positions"][number][mine].tolist() == list(range(mine.sum()))
            assert seen.tolist() == inputs.tolist()
