import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import seqio
import tensorflow as tf
from seqio import test_utils as seqio_tests

from coi_jax.chains.chain import Chain, Step
from coi_jax.chains.dataset import DatasetWriter, read_chains
from coi_jax.common.errors import UserError
from coi_jax.data import prompts
from coi_jax.data.task_specs import evaluation_task, training_tasks
from coi_jax.tokenizers.published import open_tokenizer
from coi_jax.tokenizers.vocabulary import ByteVocabulary
from data_pipeline.tasks import seqio_tasks
from tests.helpers.token_caches import make_chain, small_config, write_dataset, write_demonstrations
from tests.helpers.tokenizer_folders import FAMILIES

BYTES = ByteVocabulary()
SORT = Chain("a", "s", "b a", "Sort.", (Step("Sort.", "a b"),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data", {1: 6, 2: 4})
    return tmp_path


def rows(*chains: Chain) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices({"chain": [json.dumps(chain.row()) for chain in chains]})


def test_the_docstrings_example_of_text() -> None:
    dataset = seqio_tasks.to_text(rows(SORT), "plain", "direct", [])
    expected = {"inputs": "Sort.\nb a\n", "targets": "a b", "chain": json.dumps(SORT.row())}
    seqio_tests.assert_dataset(dataset, expected)


def test_worked_examples_come_before_the_prompt() -> None:
    shown = make_chain(5, 2)
    (example,) = seqio_tasks.to_text(rows(SORT), "plain", "cot", [shown]).as_numpy_iterator()
    assert example["inputs"].decode() == prompts.few_shot(SORT, [shown], "plain", "cot")


def test_only_the_explicit_call_registers(folder: Path) -> None:
    seqio.TaskRegistry.reset()
    seqio.MixtureRegistry.reset()
    importlib.reload(seqio_tasks)
    assert not [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
    names = seqio_tasks.register(small_config(folder), BYTES)
    assert names == ["coi1", "coi2", "coi12", "coi2_test", "proc2_test"]
    assert seqio_tasks.register(small_config(folder, data__template="alpaca"), BYTES) == names
    assert seqio.get_mixture_or_task("coi2_test").num_input_examples("test") == 5


def test_variants_are_mixtures_where_the_dataset_has_them(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data", "test") as writer:
        for number in range(4):
            for length in (1, 2):
                writer.add("train", make_chain(number, length))
            writer.add("train_fused", make_chain(number, 2))
            writer.add("test", make_chain(number, 2))
            writer.add("test_final", replace(make_chain(number, 1), id=f"{make_chain(number, 2).id}-final"))
        writer.finish("none", {})
    names = seqio_tasks.register(small_config(tmp_path), BYTES)
    assert names[:5] == ["coi1", "coi2", "coi12", "coi2_fused", "coi12_fused"]
    assert names[5:] == ["coi2_test", "proc2_test", "coi_final2_test", "proc_final2_test"]
    tasks = [task.name for task in seqio.get_mixture_or_task("coi12_fused").tasks]
    assert sorted(tasks) == ["train_fused_length2", "train_length1"]
    assert seqio.get_mixture_or_task("coi_final2_test").num_input_examples("test_final") == 4


def test_mixing_rates_are_numbers_of_examples(folder: Path) -> None:
    seqio_tasks.register(small_config(folder), BYTES)
    mixture = seqio.get_mixture_or_task("coi12")
    assert [(task.name, mixture.get_rate(task)) for task in mixture.tasks] == [
        ("train_length1", 6),
        ("train_length2", 4),
    ]
    dataset = mixture.get_dataset({"inputs": 512, "targets": 512}, split="train", shuffle=False, num_epochs=1)
    assert 4 <= len(list(dataset.as_numpy_iterator())) <= 10


def test_seqios_own_task_tests_pass(folder: Path) -> None:
    """SeqIO preprocesses a row, takes a text as the model's answer to it, and has the task's metrics score that."""
    seqio_tasks.register(small_config(folder), BYTES)
    chain = make_chain(7, 2)
    data = {"validation": {"chain": json.dumps(chain.row())}}  # the split that SeqIO's evaluator asks for
    output = seqio_tests.test_preprocessing_single("coi2_test", data)
    assert output["targets"].tolist() == [*BYTES.encode(chain.targets), BYTES.eos_id]
    assert output["inputs"].tolist() == BYTES.encode(f"{chain.instruction}\n{chain.input}\n")
    scores = seqio_tests.test_postprocessing("coi2_test", data, predict_output=[chain.targets])
    assert {scores[key] for key in ("rouge_l", "content_exact_match", "step2_exact_match", "well_formed")} == {100.0}
    scores = seqio_tests.test_postprocessing("coi2_test", data, predict_output=["Task 1 output: nothing"])
    assert scores["content_exact_match"] == scores["well_formed"] == 0.0


def test_a_conversation_is_a_task_as_any_other(folder: Path) -> None:
    FAMILIES["qwen"](folder / "model")
    vocabulary = open_tokenizer(str(folder / "model"), "chat")
    fields = {"vocabulary__kind": "tokenizer", "vocabulary__folder": str(folder / "model")}
    seqio_tasks.register(small_config(folder, **fields, data__template="chat"), vocabulary)
    chain = make_chain(7, 2)
    output = seqio_tests.test_preprocessing_single("coi2_test", {"validation": {"chain": json.dumps(chain.row())}})
    text = prompts.prompt(chain.instruction, chain.input, "chat")
    assert output["inputs_pretokenized"].decode() == text
    assert output["inputs"].tolist() == prompts.encode_prompt(text, "chat", vocabulary)
    assert output["targets"].tolist() == [*vocabulary.encode(chain.targets), vocabulary.eos_id]


@pytest.mark.parametrize("name", ["coi1", "coi12", "coi2_test"])
def test_features_hold_for_every_arm_and_test_set(folder: Path, name: str) -> None:
    seqio_tasks.register(small_config(folder), BYTES)
    provider = seqio.get_mixture_or_task(name)
    dataset = provider.get_dataset(
        {"inputs": 512, "targets": 512}, split="test" if "_" in name else "train", shuffle=False, num_epochs=1
    )
    targets = {chain.targets for split in ("train", "test") for chain in read_chains(folder / "data", split)}
    for example in dataset.as_numpy_iterator():
        assert BYTES.decode(example["targets"]) in targets
        assert (example["targets"] == BYTES.eos_id).sum() == 1
        assert BYTES.eos_id not in example["inputs"]


def test_worked_examples_are_training_rows_of_the_same_length(folder: Path) -> None:
    config = small_config(folder, arm="cot")
    task = seqio_tasks.make_task(config, evaluation_task(config, "coi2_test"), BYTES)
    shots = prompts.choose_examples(read_chains(folder / "data", "train", 2))
    (first, *_) = task.get_dataset(split="test", shuffle=False).as_numpy_iterator()
    chain = next(iter(read_chains(folder / "data", "test")))
    assert first["inputs_pretokenized"].decode() == prompts.few_shot(chain, shots, "plain", "cot")
    assert task.num_input_examples("test") == 5


def test_worked_examples_of_a_file_are_shown_in_its_order(folder: Path) -> None:
    shots = write_demonstrations(folder / "shown.jsonl", 3, 2)
    config = small_config(
        folder, arm="cot", evaluation__demonstrations=str(folder / "shown.jsonl"), evaluation__shots=2
    )
    task = seqio_tasks.make_task(config, evaluation_task(config, "coi2_test"), BYTES)
    (first, *_) = task.get_dataset(split="test", shuffle=False).as_numpy_iterator()
    chain = next(iter(read_chains(folder / "data", "test")))
    assert first["inputs_pretokenized"].decode() == prompts.few_shot(chain, shots[:2], "plain", "cot")


def test_answers_keep_missing_references() -> None:
    chain = Chain("a", "s", "x", "A and then B", (Step("A", "1"), Step("B", None)))
    example = {"chain": json.dumps(chain.row())}
    assert seqio_tasks.to_answer("anything", example, is_target=True) == ("1", None)
    assert seqio_tasks.to_answer("anything", example, is_target=False) == "anything"


def test_a_length_that_the_dataset_lacks(folder: Path) -> None:
    config = small_config(folder, arm="coi3")
    with pytest.raises(UserError, match="no chain of length 3"):
        seqio_tasks.make_task(config, training_tasks(config)[0], BYTES)
