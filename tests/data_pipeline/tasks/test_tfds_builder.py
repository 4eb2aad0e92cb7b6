from pathlib import Path

import pytest
import seqio
import tensorflow_datasets as tfds

from coi_jax.chains.chain import Chain, Step
from coi_jax.chains.dataset import DatasetWriter, read_chains
from coi_jax.common.errors import UserError
from data_pipeline.tasks import seqio_tasks
from data_pipeline.tasks.tfds_builder import Coi, to_chain
from tests.helpers.token_caches import write_dataset


def test_tfds_and_seqio_give_the_chains_of_the_folder_in_its_order(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data", {1: 4, 2: 3})
    arguments = {"folder": str(folder)}
    dataset = tfds.load("coi", split="train", data_dir=str(tmp_path / "tfds"), builder_kwargs=arguments)
    chains = list(read_chains(folder, "train"))
    assert [to_chain(example) for example in dataset.as_numpy_iterator()] == chains
    source = seqio.TfdsDataSource("coi:1.0.0", tfds_data_dir=str(tmp_path / "tfds"), tfds_builder_kwargs=arguments)
    assert source.num_input_examples("test") == 5
    dataset = source.get_dataset("train", shuffle=False)
    assert [to_chain(example) for example in dataset.as_numpy_iterator()] == chains
    (text, *_) = seqio_tasks.to_text(dataset, "plain", "direct", []).as_numpy_iterator()
    assert text["targets"].decode() == chains[0].targets


def test_a_missing_output_stays_missing(tmp_path: Path) -> None:
    chain = Chain("a", "s", "x", "A and then B", (Step("A", None, "category", None), Step("B", "")))
    with DatasetWriter(tmp_path / "data", "test") as writer:
        writer.add("test", chain)
        writer.finish("none", {})
    dataset = tfds.load("coi", split="test", data_dir=str(tmp_path), builder_kwargs={"folder": str(tmp_path / "data")})
    (example,) = dataset.as_numpy_iterator()
    assert to_chain(example) == chain
    assert example["steps"]["category"].tolist() == [b"category", b""]


def test_a_changed_dataset_is_prepared_anew(tmp_path: Path) -> None:
    first = Coi(folder=write_dataset(tmp_path / "data", {1: 2}), data_dir=tmp_path).builder_config.name
    second = Coi(folder=write_dataset(tmp_path / "data", {1: 3}), data_dir=tmp_path).builder_config.name
    assert first != second


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        Coi(folder=tmp_path, data_dir=tmp_path)
