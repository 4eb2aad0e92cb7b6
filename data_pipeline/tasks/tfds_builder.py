"""The TFDS builder `coi`: a dataset folder for all that reads TensorFlow Datasets.

import data_pipeline.tfds_builder  # TFDS knows a builder by its class
tfds.load("coi", data_dir="data/tfds", builder_kwargs={"folder": "data/coi"})
seqio.TfdsDataSource("coi:1.0.0", tfds_data_dir="data/tfds", tfds_builder_kwargs={"folder": "data/coi"})
"""

import json
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import read_chains, read_manifest
from coi_jax.common import files
from coi_jax.common.storage import PathLike

TEXT = tfds.features.Text


class Coi(tfds.core.GeneratorBasedBuilder):
    """The chains of a dataset folder. What is prepared is named by the folder's content, so it is never out of date.

    Args:
      folder: the dataset folder.
      data_dir: where TFDS keeps what it prepared.
      version: only 1.0.0 exists.

    Raises:
      UserError: the folder is missing or is not a dataset.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Chains with their steps, and each whole as JSON."}  # noqa: RUF012 (TFDS's own field)

    def __init__(self, *, folder: PathLike, data_dir: PathLike | None = None, version: str | None = None) -> None:
        self.folder = folder
        self._manifest = read_manifest(folder)
        content = files.digest(self._manifest["sha256"])[:16]
        config = tfds.core.BuilderConfig(name=content, description=str(self._manifest["source"]))
        super().__init__(data_dir=data_dir, config=config, version=version)

    def _info(self) -> tfds.core.DatasetInfo:
        """`chain` is a row's JSON, exact; in the other features a missing text is empty."""
        step = {name: TEXT() for name in ("instruction", "output", "category", "task")}
        features = {name: TEXT() for name in ("id", "source", "input", "instruction", "chain")}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({**features, "steps": tfds.features.Sequence(step)}),
            license=self._manifest["licence"],
            disable_shuffling=True,  # the file's own order
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        return {split: self._generate_examples(split) for split in self._manifest["counts"]}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, chain in enumerate(read_chains(self.folder, split)):
            row = chain.row()
            texts = {name: row[name] for name in ("id", "source", "input", "instruction")}
            steps = [{name: value or "" for name, value in step.items()} for step in row["steps"]]
            yield number, {**texts, "steps": steps, "chain": json.dumps(row, ensure_ascii=False)}


def to_chain(example: dict[str, Any]) -> Chain:
    """Return the chain of an example, as numpy values."""
    return Chain.from_row(json.loads(example["chain"]))
