"""A dataset with the splits of the official release, and few rows of our own in each."""

from dataclasses import replace
from pathlib import Path

from coi_jax.chains.chain import Chain
from coi_jax.chains.dataset import DatasetWriter
from tests.helpers.scored_runs import RELEASE
from tests.helpers.token_caches import make_chain


def write_release(folder: Path, training: int, tests: int) -> Path:
    """So many training chains of each length, their variants, and so many rows of each test set."""
    rows = {
        "train": _chains((1, 2, 3), training),
        "irrelevant": _chains((2, 3), training, "irrelevant"),
        "summarized": [replace(chain, instruction="Do it all.") for chain in _chains((2, 3), training, "summarized")],
        "test": _chains((2, 3), tests, "test"),
        "bbh": _chains((1,), tests, "bbh"),
        "wikilingua_en_fr": _chains((2,), tests, "fr"),
        "wikilingua_es_en": _chains((2,), tests, "es"),
    }
    with DatasetWriter(folder, RELEASE) as writer:
        for split, chains in rows.items():
            for chain in chains:
                writer.add(split, chain)
        writer.finish("none", {})
    return folder


def _chains(lengths: tuple[int, ...], count: int, prefix: str = "train") -> list[Chain]:
    made = [make_chain(number, length) for length in lengths for number in range(count)]
    return [replace(chain, id=f"{prefix}-{chain.id}", source=prefix) for chain in made]
