"""Small datasets, and token caches as the writer leaves them, without TensorFlow."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from coi_jax.chains.chain import Chain, Step, join
from coi_jax.chains.dataset import DatasetWriter
from coi_jax.common import files
from coi_jax.common.storage import PathLike, as_path, local_writer
from coi_jax.config.run import RunConfig
from coi_jax.data import token_cache
from coi_jax.data.demonstrations import find_demonstrations
from coi_jax.data.prompts import encode_prompt, few_shot
from coi_jax.data.task_specs import TaskSpec, training_tasks
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.tokenizers.vocabulary import load_vocabulary
from tests.helpers.configs import dotted, quickstart_config

WORDS = ("pear", "apple", "fig", "plum", "lime", "date", "kiwi")


def make_chain(number: int, length: int) -> Chain:
    """A chain whose texts, and their lengths, follow from its number."""
    words = [WORDS[(number * k) % 7] for k in range(1, 2 + number % 9)]
    steps = [
        Step(f"Rotate by {k}.", " ".join(words[k % len(words) :] + words[: k % len(words)])) for k in range(length)
    ]
    return Chain(
        f"{length}-{number}", "test", " ".join(words), join([step.instruction for step in steps]), tuple(steps)
    )


def write_dataset(folder: Path, counts: dict[int, int], tests: int = 5, validation: int = 0) -> Path:
    """A dataset folder with so many training rows of each length, and so many of length 2 in the other splits."""
    with DatasetWriter(folder, "procedural") as writer:
        for length, count in counts.items():
            for number in range(count):
                writer.add("train", make_chain(number, length))
        for number in range(1000, 1000 + tests):
            writer.add("test", make_chain(number, 2))
        for number in range(1500, 1500 + validation):
            writer.add("validation", make_chain(number, 2))
        writer.finish("none", {})
    return folder


def write_demonstrations(path: Path, *lengths: int) -> list[Chain]:
    """A file of worked examples of these lengths, which are in no dataset; returns them."""
    chains = [make_chain(2000 + number, length) for number, length in enumerate(lengths)]
    path.write_text("".join(json.dumps(chain.row()) + "\n" for chain in chains), encoding="utf-8")
    return chains


def small_config(folder: Path, **overrides: Any) -> RunConfig:
    """The quickstart's config on a dataset under `folder`, in bytes; override as `data__batch__rows=4`."""
    fields = {
        "data.folder": str(folder / "data"),
        "data.cache_folder": str(folder / "caches"),
        "arm": "coi12",
        "data.length": 256,
        "vocabulary.kind": "bytes",
    }
    return quickstart_config(fields | dotted(overrides))


def write_caches(config: RunConfig, specs: Sequence[TaskSpec] | None = None) -> Vocabulary:
    """The caches of the config's training tasks (and their mixture), or of `specs`, as `data_pipeline.cache` would."""
    vocabulary = load_vocabulary(config)
    rows = []
    for spec in training_tasks(config) if specs is None else specs:
        folder, key = token_cache.cache_folder(config, spec, vocabulary)
        write_cache(folder, key, spec, vocabulary, find_demonstrations(config, spec))
        rows.append(
            {"name": spec.name, "rate": float(token_cache.count_rows(spec)), "folder": folder.name, "hash": key}
        )
    path = token_cache.mixture_path(config, [row["hash"] for row in rows])
    files.write_json(path, token_cache.mixture_content(config.arm, rows))
    return vocabulary


def write_cache(
    folder: PathLike, key: str, spec: TaskSpec, vocabulary: Vocabulary, demonstrations: Sequence[Chain] = ()
) -> None:
    """One cache folder, local or in a bucket."""
    place = as_path(folder)
    place.mkdir(parents=True)
    lengths = []
    with local_writer(place / token_cache.RECORDS) as path:
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for chain in spec.read_rows():
            text = few_shot(chain, demonstrations, spec.template, spec.prompting, spec.system)
            inputs = encode_prompt(text, spec.template, vocabulary)
            targets = [*vocabulary.encode(chain.targets), vocabulary.eos_id]
            row = json.dumps(chain.row()).encode()
            writer.write(token_cache.pack_record(np.array(inputs, np.int32), np.array(targets, np.int32), row))
            lengths.append((len(inputs), len(targets)))
        writer.close()
    array = np.array(lengths, np.int32).reshape(-1, 2)
    with local_writer(place / token_cache.LENGTHS) as path:
        np.save(path, array)
    files.write_json(place / token_cache.INFO, token_cache.cache_content(place, key, array))
