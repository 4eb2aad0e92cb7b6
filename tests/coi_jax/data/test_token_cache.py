import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from coi_jax.chains.dataset import read_chains
from coi_jax.common.errors import UserError
from coi_jax.common.storage import file_size
from coi_jax.config.run import RunConfig
from coi_jax.data import token_cache
from coi_jax.data.task_specs import evaluation_task, training_tasks
from coi_jax.tokenizers.vocabulary import load_vocabulary
from tests.helpers.token_caches import small_config, write_caches, write_dataset


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    write_dataset(tmp_path / "data", {1: 12, 2: 8})
    return small_config(tmp_path)


def no_child(*arguments: Any, **_: Any) -> None:
    raise AssertionError("the caches are there, and no child process is needed")


def fake_child(status: int, output: str) -> Any:
    return lambda command, **_: subprocess.CompletedProcess(command, status, stdout=output)


def test_examples_come_back_whole_and_at_random(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = write_caches(config)
    monkeypatch.setattr(subprocess, "run", no_child)
    caches = token_cache.open_or_write(config, training_tasks(config))
    assert [len(opened) for opened in caches] == [12, 8]
    chains = list(read_chains(config.data.folder, "train", 2))
    for index in (7, 0, 3):
        example = caches[1][index]
        assert example.chain == chains[index]
        assert vocabulary.decode(example.inputs) == f"{chains[index].instruction}\n{chains[index].input}\n"
        assert vocabulary.decode(example.targets) == chains[index].targets
        assert example.targets[-1] == vocabulary.eos_id
        assert caches[1].lengths[index].tolist() == [len(example.inputs), len(example.targets)]
    for (inputs, targets), index in zip(caches[1].ids([5, 1, 5]), [5, 1, 5], strict=True):
        assert inputs.tolist() == caches[1][index].inputs.tolist()
        assert targets.tolist() == caches[1][index].targets.tolist()
    with pytest.raises(IndexError):
        caches[1][8]


def test_rates_are_the_mixtures(config: RunConfig) -> None:
    write_caches(config)
    caches = token_cache.open_or_write(config, training_tasks(config))
    assert [opened.rate for opened in caches] == [12.0, 8.0]
    path = token_cache.mixture_path(config, [opened.hash for opened in caches])
    mixture = json.loads(path.read_text())
    mixture["tasks"][1]["rate"] = 3.5
    path.write_text(json.dumps(mixture))  # its hash is no longer that of its rates
    assert token_cache.find(config, training_tasks(config)) is None
    path.write_text(json.dumps(token_cache.mixture_content(config.arm, mixture["tasks"])))
    assert [opened.rate for opened in token_cache.open_or_write(config, training_tasks(config))] == [12.0, 3.5]


def test_the_hash_follows_data_template_vocabulary_and_preprocessing(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(**overrides: Any) -> str:
        changed = small_config(tmp_path, **overrides)
        return token_cache.cache_folder(changed, training_tasks(changed)[1], load_vocabulary(changed))[1]

    first = key()
    assert key() == first
    assert key(arm="coi123", seed=5, data__length=99, data__batch__count="examples", data__batch__examples=4) == first
    other = {"vocabulary__kind": "mistral", "vocabulary__version": "v1"}
    assert len({first, key(data__template="alpaca"), key(**other)}) == 3
    monkeypatch.setattr(token_cache, "PREPROCESSING_VERSION", token_cache.PREPROCESSING_VERSION + 1)
    assert key() != first
    monkeypatch.undo()
    write_dataset(tmp_path / "data", {1: 12, 2: 9})
    assert key() != first


def test_a_copy_of_the_dataset_elsewhere_has_the_same_hash(config: RunConfig, tmp_path: Path) -> None:
    moved = small_config(tmp_path, data__folder=str(write_dataset(tmp_path / "moved", {1: 12, 2: 8})))
    keys = [token_cache.cache_folder(c, training_tasks(c)[0], load_vocabulary(c))[1] for c in (config, moved)]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    "damage", ["info", "lengths", "no lengths", "a pipe", "a bit", "records", "missing", "foreign"]
)
def test_a_damaged_cache_counts_as_missing(config: RunConfig, damage: str) -> None:
    write_caches(config)
    folder, key = token_cache.cache_folder(config, training_tasks(config)[0], load_vocabulary(config))
    assert token_cache.open_cache(folder, key) is not None
    names = {"info": token_cache.INFO, "lengths": token_cache.LENGTHS, "foreign": token_cache.INFO}
    path = folder / names.get(damage, token_cache.RECORDS)
    if damage == "missing":
        path.unlink()
    elif damage == "a bit":
        data = bytearray((folder / token_cache.LENGTHS).read_bytes())
        data[-3] ^= 1
        (folder / token_cache.LENGTHS).write_bytes(bytes(data))
    elif damage == "foreign":
        path.write_text("[]")
    elif damage == "a pipe":
        (folder / token_cache.LENGTHS).unlink()
        os.mkfifo(folder / token_cache.LENGTHS)
    elif damage == "no lengths":
        (folder / token_cache.LENGTHS).write_bytes(b"")
    else:
        path.write_bytes(path.read_bytes()[: file_size(path) // 2])
    assert token_cache.open_cache(folder, key) is None


@pytest.mark.parametrize(
    "lengths", [b"", b"x", b"\x93NUMPY\x01\x00v\x00{'shape': (3, 2" + b" " * 120, np.zeros((12, 3))]
)
def test_lengths_that_are_none_count_as_missing_whatever_their_hash(config: RunConfig, lengths: Any) -> None:
    write_caches(config)
    folder, key = token_cache.cache_folder(config, training_tasks(config)[0], load_vocabulary(config))
    path = folder / token_cache.LENGTHS
    if isinstance(lengths, bytes):
        path.write_bytes(lengths)
    else:
        np.save(path, lengths)
    content = token_cache.cache_content(folder, key, np.zeros((12, 2), np.int32))
    (folder / token_cache.INFO).write_text(json.dumps(content))
    assert token_cache.open_cache(folder, key) is None


@pytest.mark.parametrize("record", [b"", b"\xff" * 8, b"\x01\x00\x00\x00" * 3, b"\x00" * 8 + b"[]"])
def test_a_record_that_no_writer_made_is_named(config: RunConfig, record: bytes) -> None:
    write_caches(config)
    folder, key = token_cache.cache_folder(config, training_tasks(config)[0], load_vocabulary(config))
    writer = ArrayRecordWriter(str(folder / token_cache.RECORDS), "group_size:1")
    writer.write(record)
    writer.close()
    np.save(folder / token_cache.LENGTHS, np.zeros((1, 2), np.int32))
    content = token_cache.cache_content(folder, key, np.zeros((1, 2), np.int32))
    (folder / token_cache.INFO).write_text(json.dumps(content))
    opened = token_cache.open_cache(folder, key)
    assert opened is not None
    with pytest.raises(UserError, match="remove this folder, and it is written again"):
        opened.examples([0])


def test_unreadable_records_are_one_clear_line(config: RunConfig) -> None:
    write_caches(config)
    folder, key = token_cache.cache_folder(config, training_tasks(config)[0], load_vocabulary(config))
    path = folder / token_cache.RECORDS
    path.write_bytes(np.random.default_rng(0).bytes(file_size(path)))
    opened = token_cache.open_cache(folder, key)
    assert opened is not None
    with pytest.raises(UserError, match=r"cannot be read \(.+\); if the disk is sound, remove this folder"):
        opened.ids([0, 1])


def test_a_childs_error_is_relayed(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    error = json.dumps({"error": {"field": "config.vocabulary.size", "value": "9", "hint": "choose at least 300"}})
    monkeypatch.setattr(subprocess, "run", fake_child(2, f"noise\n{error}\n"))
    with pytest.raises(UserError, match=r"^config\.vocabulary\.size: 9: choose at least 300$"):
        token_cache.open_or_write(config, training_tasks(config))
    monkeypatch.setattr(subprocess, "run", fake_child(1, ""))
    with pytest.raises(UserError, match="exit status 1"):
        token_cache.open_or_write(config, training_tasks(config))
    monkeypatch.setattr(subprocess, "run", fake_child(0, ""))
    with pytest.raises(UserError, match="run again"):
        token_cache.open_or_write(config, training_tasks(config))


def test_caches_are_not_kept_in_the_dataset(config: RunConfig, tmp_path: Path) -> None:
    inside = small_config(tmp_path, data__cache_folder=config.data.folder)
    with pytest.raises(UserError, match=r"^config\.data\.cache_folder: .* is the folder of a dataset; name another"):
        token_cache.open_or_write(inside, training_tasks(inside))


def test_what_a_dataset_lacks(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no chain of length 3, only of: 1, 2"):
        token_cache.open_or_write(config, training_tasks(small_config(tmp_path, arm="coi3")))
    with pytest.raises(UserError, match="no chain of length 4, only of: 2"):
        token_cache.open_or_write(config, [evaluation_task(config, "coi4_test")])
    with pytest.raises(UserError, match="one of test, train"):
        token_cache.open_or_write(config, [evaluation_task(config, "bbh")])
    with pytest.raises(UserError, match=r"^config\.data\.folder: .*nowhere: no such folder"):
        token_cache.open_or_write(
            config, training_tasks(small_config(tmp_path, data__folder=str(tmp_path / "nowhere")))
        )
