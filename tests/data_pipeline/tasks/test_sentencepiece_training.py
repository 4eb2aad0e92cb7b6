from pathlib import Path

import pytest

from coi_jax.common.errors import UserError
from coi_jax.tokenizers.vocabulary import load_vocabulary, trained_path
from data_pipeline.tasks.sentencepiece_training import ensure_trained, train
from tests.helpers.token_caches import small_config, write_dataset

TRAINED = {"vocabulary__kind": "trained", "vocabulary__size": 290}


def test_all_arms_share_a_vocabulary_that_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path / "data", {1: 40, 2: 40})
    config = small_config(tmp_path, **TRAINED)
    path = ensure_trained(config)
    assert path == trained_path(config)
    assert path.parent == tmp_path / "caches"
    first = path.read_bytes()
    monkeypatch.setattr("data_pipeline.tasks.sentencepiece_training.train", None)
    for arm in ("coi1", "coi2", "base"):
        assert ensure_trained(small_config(tmp_path, arm=arm, **TRAINED)) == path
    monkeypatch.undo()
    path.unlink()
    assert ensure_trained(config).read_bytes() == first
    assert load_vocabulary(config).size == 290


def test_another_size_template_or_dataset_is_another_vocabulary(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {1: 5})
    config = small_config(tmp_path, **TRAINED)
    paths = {
        trained_path(config),
        trained_path(small_config(tmp_path, **TRAINED | {"vocabulary__size": 300})),
        trained_path(small_config(tmp_path, data__template="alpaca", **TRAINED)),
    }
    write_dataset(tmp_path / "data", {1: 6})
    assert len(paths | {trained_path(config)}) == 4


def test_a_size_that_the_text_cannot_fill_names_the_largest(tmp_path: Path) -> None:
    lines = [f"sort the words {number}" for number in range(30)]
    with pytest.raises(UserError, match=r"at most (\d+) pieces") as caught:
        train(lines, 5000)
    largest = int(caught.value.hint.split("at most ")[1].split()[0])
    assert len(train(lines, largest)) > 0
    with pytest.raises(UserError, match=r"at most"):
        train(lines, largest + 1)


def test_a_size_too_small_for_the_characters_names_the_smallest() -> None:
    lines = ["abcdefghij klmnop", "hello world 123"] * 5
    with pytest.raises(UserError, match=r"at least (\d+)$") as caught:
        train(lines, 100)
    assert len(train(lines, int(caught.value.hint.split()[-1]))) > 0


def test_no_text_at_all() -> None:
    with pytest.raises(UserError, match="no text"):
        train([], 300)
