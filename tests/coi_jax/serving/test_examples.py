"""Chains of a run's test sets, as the server offers them."""

import shutil
from pathlib import Path

import pytest

from coi_jax.chains.dataset import read_chains
from coi_jax.serving.examples import MOST, find_examples
from tests.helpers.token_caches import small_config
from tests.helpers.trained_runs import TESTS, write_tests


@pytest.mark.parametrize("rows", [3, MOST])
def test_examples_are_the_first_chains_of_every_test_set_with_their_references(tmp_path: Path, rows: int) -> None:
    write_tests(tmp_path / "data", rows)
    config = small_config(tmp_path, **{"evaluation.tests": TESTS})
    found = find_examples(config)
    kept = min(rows, MOST // 2)
    chains = [chain for length in (1, 2) for chain in [*read_chains(tmp_path / "data", "test", length)][:kept]]
    assert [one["id"] for one in found] == [chain.id for chain in chains]
    assert [one["test"] for one in found] == [test for test in TESTS for _ in range(kept)]
    for one, chain in zip(found, chains, strict=True):
        assert one["input"] == chain.input
        assert list(zip(one["instructions"], one["references"], strict=True)) == [
            (step.instruction, step.output) for step in chain.steps
        ]


def test_a_run_whose_dataset_is_gone_or_damaged_has_no_examples(tmp_path: Path) -> None:
    write_tests(tmp_path / "data", 3)
    config = small_config(tmp_path, **{"evaluation.tests": TESTS})
    (tmp_path / "data" / "test.jsonl").write_text("{}\n")
    assert find_examples(config) == []
    shutil.rmtree(tmp_path / "data")
    assert find_examples(config) == []
