import pytest

from coi_jax.common.errors import UserError
from coi_jax.data.test_sets import TEST_SETS, check_source


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("proc2_test", "procedural"),
        ("coi2_test", "amazon-science/chain-of-instructions"),
        ("coi2_test", "my own"),
        ("bbh", "x"),
        ("bbh", "procedural"),
    ],
)
def test_chains_have_the_test_sets_of_their_source(name: str, source: str) -> None:
    check_source(name, source, "data")


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("coi2_test", "procedural", "data has chains of source 'procedural', whose test set is proc2_test"),
        (
            "proc2_test",
            "coi_jax.build",
            "is for chains of source 'procedural', and data has those of 'coi_jax.build': take coi2_test",
        ),
        ("coi22_test", "procedural", "coi2_test"),
    ],
)
def test_scores_on_chains_of_another_source_are_refused(name: str, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_source(name, source, "data")


@pytest.mark.parametrize("name", list(TEST_SETS))
def test_every_test_set_of_one_source_has_a_counterpart_of_any_other(name: str) -> None:
    source = TEST_SETS[name].source
    check_source(name, source or "my own", "data")
    if source is not None:
        with pytest.raises(UserError, match=r"is for chains of source .*: take coi"):
            check_source(name, "my own", "data")
