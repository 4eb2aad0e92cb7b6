import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coi_jax.chains.chain import join, parse
from coi_jax.chains.dataset import DatasetWriter, read_chains
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.data import token_cache
from coi_jax.data.demonstrations import OWN, demonstrations_key, find_demonstrations, read_demonstrations
from coi_jax.data.prompts import SHOTS, choose_examples
from coi_jax.data.task_specs import TaskSpec, evaluation_task
from coi_jax.tokenizers.vocabulary import ByteVocabulary
from tests.helpers.token_caches import make_chain, small_config, write_dataset, write_demonstrations


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data", {1: 9, 2: 9})
    return tmp_path


def asked(folder: Path, **fields: Any) -> tuple[RunConfig, TaskSpec]:
    """A prompting baseline and a task of it."""
    config = small_config(folder, **({"arm": "cot"} | fields))
    return config, evaluation_task(config, "coi2_test")


def test_the_projects_own_chains_are_seven_of_two_or_three_steps() -> None:
    chains = read_demonstrations(OWN, SHOTS)
    assert sorted({chain.length for chain in chains}) == [2, 3]
    assert len({chain.id for chain in chains}) == len({chain.input for chain in chains}) == 7
    for chain in chains:
        assert chain.instruction == join([step.instruction for step in chain.steps])
        assert parse(chain.targets) == chain.outputs
    with pytest.raises(UserError, match=r"config\.evaluation\.shots: 8: .*has 7 chains; give at most as many"):
        read_demonstrations(OWN, 8)


def test_without_a_file_they_are_training_chains_of_the_test_sets_length(folder: Path) -> None:
    assert find_demonstrations(*asked(folder)) == choose_examples(read_chains(folder / "data", "train", 2))
    assert len(find_demonstrations(*asked(folder, evaluation__shots=4))) == 4
    config, spec = asked(folder)
    found = find_demonstrations(config, replace(spec, length=3))
    assert found == choose_examples(read_chains(folder / "data", "train"))
    assert find_demonstrations(*asked(folder, arm="coi12")) == []
    with pytest.raises(UserError, match=r"config\.evaluation\.shots: 100000: .*has 9 training chains with all outputs"):
        find_demonstrations(*asked(folder, evaluation__shots=100_000))


@pytest.mark.parametrize("split", ["none", "train"])
def test_a_dataset_without_complete_training_chains_is_prompted_with_the_projects_own(
    tmp_path: Path, split: str
) -> None:
    chain = make_chain(1, 2)
    incomplete = replace(chain, steps=(*chain.steps[:1], replace(chain.steps[1], output=None)))
    with DatasetWriter(tmp_path / "data", "benchmark") as writer:
        writer.add("test", chain)
        writer.add(split, incomplete)
        writer.finish("none", {})
    config, spec = asked(tmp_path)
    assert find_demonstrations(config, spec) == read_demonstrations(OWN, 7)
    assert token_cache.cache_folder(config, spec, ByteVocabulary())


def test_a_token_cache_is_named_by_the_chains_that_are_shown(folder: Path) -> None:
    train = files.sha256(folder / "data" / "train.jsonl")
    assert demonstrations_key(*asked(folder)) == [train]  # so that caches and predictions of earlier versions stay
    assert demonstrations_key(*asked(folder, arm="base")) == []
    write_demonstrations(folder / "a.jsonl", 2, 3, 2)
    write_demonstrations(folder / "b.jsonl", 2, 3, 2)
    write_demonstrations(folder / "c.jsonl", 2, 2, 2)

    def name(**fields: Any) -> str:
        config, spec = asked(folder, **fields)
        return token_cache.cache_folder(config, spec, ByteVocabulary())[1]

    def of_file(letter: str, shots: int) -> str:
        return name(evaluation__demonstrations=str(folder / f"{letter}.jsonl"), evaluation__shots=shots)

    assert of_file("a", 3) == of_file("b", 3)
    assert of_file("a", 1) == of_file("c", 1)
    names = [name(), name(evaluation__shots=3), of_file("a", 3), of_file("a", 2), of_file("c", 3), name(arm="ltm")]
    assert len(set(names)) == len(names)


def rows(*changes: dict[str, Any]) -> str:
    """Rows of a file, each with other fields than a right one."""
    return "".join(json.dumps(make_chain(number, 2).row() | change) + "\n" for number, change in enumerate(changes))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "shown.jsonl: is empty; write a chain on each line"),
        (rows({}) + "[1]\n", r"shown.jsonl:2"),
        (rows({}, {"input": 3}), r"shown.jsonl:2: input of a row: 3: must be text"),
        (rows({"output": "x"}), r"shown.jsonl:1: keys of a row"),
        (rows({"steps": []}), r"shown.jsonl:1: steps"),
        (
            rows({}, {"steps": [make_chain(1, 1).row()["steps"][0] | {"output": None}]}),
            r"shown.jsonl:2: output of step 1 is null; a demonstration shows the output of every step",
        ),
        (rows({}), r"config\.evaluation\.shots: 2: .*shown.jsonl has 1 chain;"),
    ],
)
def test_a_file_of_another_shape_is_an_error_that_names_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "shown.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said) as raised:
        read_demonstrations(path, 2)
    assert "\n" not in str(raised.value)
    assert raised.value.field.startswith("config.evaluation.")


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"config\.evaluation\.demonstrations: .*none.jsonl"):
        find_demonstrations(*asked(folder, evaluation__demonstrations=str(folder / "none.jsonl")))
