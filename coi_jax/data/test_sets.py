"""The registry of test sets: the rows of each, and how its answers are scored.

To add a test set, add an entry to `TEST_SETS`.
"""

from dataclasses import dataclass
from typing import ClassVar

from coi_jax.common.errors import UserError, nearest


@dataclass(frozen=True)
class TestSet:
    """One test set.

    Attributes:
      name: its name in `config.evaluation.tests`, on the command line and in run records.
      group: the kind of chains; figures have a row of panels for each.
      split: the split of the dataset folder that holds its rows.
      length: the chain length of its rows, σ; None takes the rows of all lengths.
      scorer: a name in `metrics.SCORERS`.
    """

    __test__: ClassVar[bool] = False  # pytest takes classes of this name for test cases

    name: str
    group: str
    split: str
    length: int | None
    scorer: str = "chain"


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
        TestSet("proc1_test", "proc", "test", 1),
        TestSet("proc2_test", "proc", "test", 2),
        TestSet("proc3_test", "proc", "test", 3),
        TestSet("proc4_test", "proc", "test", 4),
        TestSet("proc5_test", "proc", "test", 5),
        TestSet("proc6_test", "proc", "test", 6),
        # BIG-Bench Hard, and WikiLingua as chains of summarization and translation.
        TestSet("bbh", "bbh", "bbh", None),
        TestSet("wikilingua_en_fr", "wikilingua", "wikilingua_en_fr", None),
        TestSet("wikilingua_es_en", "wikilingua", "wikilingua_es_en", None),
    )
}


def find_test_set(name: str) -> TestSet:
    """Return the test set of a name.

    Raises:
      UserError: there is no such test set; the nearest name is given.
    """
    if name not in TEST_SETS:
        raise UserError("test set", name, nearest(name, list(TEST_SETS)))
    return TEST_SETS[name]


def chain_length(name: str) -> int | None:
    """Return the chain length of a test set; None where its chains have several lengths, or it is not registered."""
    return TEST_SETS[name].length if name in TEST_SETS else None
