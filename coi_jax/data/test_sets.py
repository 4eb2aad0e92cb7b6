"""The registry of test sets: the rows of each, and how its answers are scored.

To add a test set, add an entry to `TEST_SETS`.
"""

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from coi_jax.common.errors import UserError, nearest
from coi_jax.common.storage import PathLike

PROCEDURAL = "procedural"  # the `source` in the manifest of a dataset that code has generated
LINGUA = "lingua"  # the package that detects languages, of the extra `languages`
# Of chains of several steps, each with the split whose chains say the lengths; None: its own.
TEST_VARIANTS: dict[str, str | None] = {
    "test_fused": None,
    "test_irrelevant": None,
    "test_shuffled": None,
    "test_final": "test",
    "test_erased": "test",
    "test_kept": "test",
}


@dataclass(frozen=True)
class TestSet:
    """One test set.

    Attributes:
      name: its name in `config.evaluation.tests`, on the command line and in run records.
      group: the kind of chains; figures have a row of panels for each.
      split: the split of the dataset folder that holds its rows.
      length: the chain length of its rows, σ; None takes the rows of all lengths.
      source: the only `source` of datasets that have this test set; None where any other source may have it.
      scorer: a name in `metrics.SCORERS`.
      by_task: whether its answers are also scored by the task of their last step, with the mean over tasks.
      package: an optional package that its scores need.
      lengths_of: the split of the chains that its rows were made from, which say their lengths; None: the rows do.
    """

    __test__: ClassVar[bool] = False  # pytest takes classes of this name for test cases

    name: str
    group: str
    split: str
    length: int | None
    source: str | None = None
    scorer: str = "chain"
    by_task: bool = False
    package: str | None = None
    lengths_of: str | None = None


def _of_other_splits(kind: str, source: str | None = None) -> Iterator[TestSet]:
    """Yield the test sets of the chains of each length in other splits than test, as `coi_fused2_test`.

    Args:
      kind: of the chains: coi or proc.
      source: the only `source` of datasets that have them.
    """
    lengths = {"validation": range(1, 7), "rephrased": range(1, 7)} | dict.fromkeys(TEST_VARIANTS, range(2, 7))
    for split in lengths:
        group = f"{kind}_{split.removeprefix('test_')}"
        made_from = TEST_VARIANTS.get(split)
        for length in lengths[split]:
            yield TestSet(f"{group}{length}_test", group, split, length, source, lengths_of=made_from)


TEST_SETS: dict[str, TestSet] = {
    test.name: test
    for test in (
        # Chains of the official release, or built with a language model.
        TestSet("coi1_test", "coi", "test", 1),
        TestSet("coi2_test", "coi", "test", 2),
        TestSet("coi3_test", "coi", "test", 3),
        TestSet("coi4_test", "coi", "test", 4),
        TestSet("coi5_test", "coi", "test", 5),
        TestSet("coi6_test", "coi", "test", 6),
        # Procedural chains, whose answers are computed.
        TestSet("proc1_test", "proc", "test", 1, PROCEDURAL),
        TestSet("proc2_test", "proc", "test", 2, PROCEDURAL),
        TestSet("proc3_test", "proc", "test", 3, PROCEDURAL),
        TestSet("proc4_test", "proc", "test", 4, PROCEDURAL),
        TestSet("proc5_test", "proc", "test", 5, PROCEDURAL),
        TestSet("proc6_test", "proc", "test", 6, PROCEDURAL),
        # Other splits: of training's own combinations, in other words, and the variants of the split test.
        *_of_other_splits("coi"),
        *_of_other_splits("proc", PROCEDURAL),
        # BIG-Bench Hard, and WikiLingua as chains of summarization and translation.
        TestSet("bbh", "bbh", "bbh", None, by_task=True),
        TestSet("wikilingua_en_fr", "wikilingua", "wikilingua_en_fr", None, scorer="english_french", package=LINGUA),
        TestSet("wikilingua_es_en", "wikilingua", "wikilingua_es_en", None, scorer="spanish_english", package=LINGUA),
        # Other benchmarks, which `python -m data_pipeline.benchmarks` reads.
        TestSet("sifo", "sifo", "sifo", None, by_task=True),
        TestSet("seqeval", "seqeval", "seqeval", None),
        TestSet("complexbench", "complexbench", "complexbench", None),
        TestSet("ifeval", "ifeval", "ifeval", None, package=LINGUA),
    )
}


def find_test_set(name: str, field: str = "test set") -> TestSet:
    """Return the test set of a name.

    Args:
      name: of the test set.
      field: what the user named it by, for the error.

    Raises:
      UserError: there is no such test set; the nearest name is given.
    """
    if name not in TEST_SETS:
        raise UserError(field, name, nearest(name, list(TEST_SETS)))
    return TEST_SETS[name]


def check_source(name: str, source: str, folder: PathLike) -> None:
    """Check that a dataset may have a test set: scores on chains of another kind would stand under its name.

    Args:
      name: of the test set.
      source: what the dataset's manifest says of where its chains come from.
      folder: the dataset folder, for the message.

    Raises:
      UserError: the test set is of another source, or the source has a test set of its own for the same rows.
    """
    test = find_test_set(name)
    rows = (test.split, test.length)
    own = [each.name for each in TEST_SETS.values() if each.source == source and (each.split, each.length) == rows]
    if test.source is None and own:
        raise UserError("test set", name, f"{folder} has chains of source {source!r}, whose test set is {own[0]}")
    if test.source not in (None, source):
        others = [each.name for each in TEST_SETS.values() if not each.source and (each.split, each.length) == rows]
        hint = f"is for chains of source {test.source!r}, and {folder} has those of {source!r}: take {others[0]}"
        raise UserError("test set", name, hint)


def check_installed(names: Iterable[str]) -> None:
    """Raise UserError where the scores of a test set need a package that is not installed."""
    for name in names:
        package = find_test_set(name).package
        if package and importlib.util.find_spec(package) is None:
            hint = f"is scored with {package}, which is not installed; pip install 'coi-jax[languages]'"
            raise UserError("test set", name, hint)


def chain_length(name: str) -> int | None:
    """Return the chain length of a test set; None where its chains have several lengths, or it is not registered."""
    return TEST_SETS[name].length if name in TEST_SETS else None
