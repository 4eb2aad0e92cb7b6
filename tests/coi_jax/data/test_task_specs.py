from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from coi_jax.chains.chain import Chain, Step
from coi_jax.chains.dataset import DatasetWriter
from coi_jax.common.errors import UserError
from coi_jax.config.run import load_config
from coi_jax.data import prompts, token_cache
from coi_jax.data.arms import ARMS, VARIANTS, Arm, arm_names, find_arm, sort_arms
from coi_jax.data.task_specs import available_tests, evaluation_task, training_tasks
from coi_jax.data.test_sets import TEST_SETS, TestSet, chain_length
from tests.helpers.paths import QUICKSTART
from tests.helpers.token_caches import make_chain, small_config, write_dataset

CONFIG = load_config(QUICKSTART, {})


@pytest.mark.parametrize("arm", [arm.name for arm in ARMS.values() if arm.is_tuned])
def test_an_arm_is_the_chain_lengths_in_its_name(arm: str) -> None:
    tasks = training_tasks(CONFIG.model_copy(update={"arm": arm}))
    assert "coi" + "".join(str(task.length) for task in tasks) == arm
    assert {task.split for task in tasks} == {"train"}


@pytest.mark.parametrize("arm", ["base", "cot", "ltm"])
def test_a_prompting_baseline_is_not_trained(arm: str) -> None:
    with pytest.raises(UserError, match="prompted, not tuned"):
        training_tasks(CONFIG.model_copy(update={"arm": arm}))


def test_test_sets_by_name() -> None:
    assert evaluation_task(CONFIG, "coi2_test").length == 2
    assert evaluation_task(CONFIG, "proc6_test").split == "test"
    assert evaluation_task(CONFIG, "bbh").length is None
    with pytest.raises(UserError, match="did you mean 'coi3_test'"):
        evaluation_task(CONFIG, "coi3test")


def test_arms_share_their_tasks() -> None:
    by_arm = {arm: training_tasks(CONFIG.model_copy(update={"arm": arm})) for arm in ("coi1", "coi12")}
    assert by_arm["coi1"][0] == by_arm["coi12"][0]
    assert by_arm["coi1"][0].to_dict()["vocabulary"]["kind"] == "trained"


def test_the_system_prompt_is_part_of_every_task() -> None:
    settings = {"vocabulary.kind": "mistral", "vocabulary.version": "v3", "data.template": "mistral"}
    config = load_config(QUICKSTART, settings | {"data.chat.system": "Be brief."})
    specs = [*training_tasks(config), evaluation_task(config, "proc2_test")]
    assert {spec.to_dict()["system"] for spec in specs} == {"Be brief."}
    assert "system" not in training_tasks(CONFIG)[0].to_dict()  # so that caches without one keep their names


def test_an_arm_of_another_number_is_not_suggested() -> None:
    with pytest.raises(UserError, match=r"config\.arm: coi0: unknown; one of base, cot, ") as caught:
        training_tasks(CONFIG.model_copy(update={"arm": "coi0"}))
    assert "did you mean" not in str(caught.value)


def test_an_unknown_arm_names_the_nearest() -> None:
    for tasks in (training_tasks, lambda config: evaluation_task(config, "bbh")):
        with pytest.raises(UserError, match=r"config\.arm: coi13: unknown; did you mean 'coi1\d*'"):
            tasks(CONFIG.model_copy(update={"arm": "coi13"}))


@pytest.mark.parametrize("name", list(ARMS))
def test_prompting_follows_from_the_arm(name: str) -> None:
    task = evaluation_task(CONFIG.model_copy(update={"arm": name}), "coi2_test")
    assert task.prompting == {"cot": "cot", "ltm": "ltm"}.get(name, "direct")
    assert find_arm(name).prompting in {"direct", *prompts.PROMPTINGS}
    assert task.stage == task.to_dict().get("stage") == ("decompose" if name == "ltm" else None)


def test_an_arm_on_a_variant_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARMS, "coi12_fused", Arm("coi12_fused", (1, 2), "tuned on fused wordings", variant="fused"))
    tasks = training_tasks(CONFIG.model_copy(update={"arm": "coi12_fused"}))
    assert [(task.name, task.split, task.length) for task in tasks] == [
        ("train_length1", "train", 1),
        ("train_fused_length2", "train_fused", 2),
    ]


@pytest.mark.parametrize("name", arm_names())
def test_an_arm_on_a_variant_has_its_lengths_and_the_single_instructions_of_train(name: str) -> None:
    base, _, variant = name.partition("_")
    arm = find_arm(name)
    assert (arm.name, arm.lengths, arm.prompting) == (name, ARMS[base].lengths, ARMS[base].prompting)
    config = load_config(QUICKSTART, {"arm": name, "data.folder": "nowhere"})
    tasks = training_tasks(config) if arm.is_tuned else []
    splits = {task.length: task.split for task in tasks}
    assert splits == {length: f"train_{variant}" if variant and length > 1 else "train" for length in arm.lengths}
    assert not variant or variant in VARIANTS


def test_arms_are_in_the_order_of_the_registry() -> None:
    assert sort_arms(["coi12_irrelevant", "coi123", "base", "coi2_fused", "base"]) == [
        "base",
        "coi123",
        "coi2_fused",
        "coi12_irrelevant",
    ]
    assert not [name for name in arm_names() if name.startswith(("coi1_", "base_", "cot_"))]
    with pytest.raises(UserError, match=r"config\.arm: coi12_irelevant: unknown; did you mean 'coi12_irrelevant'"):
        find_arm("coi12_irelevant")
    with pytest.raises(UserError, match=r"config\.arm: coi1_fused: unknown"):
        find_arm("coi1_fused")


def write_variants(folder: Path, names: Sequence[str]) -> Path:
    """A dataset with some variants of its training chains, as splits of those names."""
    with DatasetWriter(folder / "data", "test") as writer:
        for length in (1, 2, 3):
            for number in range(6):
                writer.add("train", make_chain(number, length))
                if length > 1:
                    for name in names:
                        writer.add(name, vary(make_chain(number, length), name.removeprefix("train_")))
        writer.finish("none", {})
    return folder


def vary(chain: Chain, variant: str) -> Chain:
    """A chain as it stands in a variant: in one step where that is its final answer alone."""
    steps = (Step(chain.instruction, chain.outputs[-1]),) if variant == "final" else chain.steps
    return replace(chain, id=f"{chain.id}-{variant}", steps=steps)


@pytest.mark.parametrize("arm", ["coi2", "coi3", "coi12", "coi123"])
@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("prefix", ["train_", ""], ids=["built", "release"])
def test_every_arm_reads_every_variant_of_a_dataset(tmp_path: Path, arm: str, variant: str, prefix: str) -> None:
    write_variants(tmp_path, [f"{prefix}{variant}"])
    tasks = training_tasks(small_config(tmp_path, arm=f"{arm}_{variant}"))
    assert [task.length for task in tasks] == list(ARMS[arm].lengths)
    for task in tasks:
        chains = [make_chain(number, task.length or 0) for number in range(6)]
        expected = chains if task.length == 1 else [vary(chain, variant) for chain in chains]
        assert list(task.read_rows()) == expected
        assert token_cache.count_rows(task) == 6


def test_a_variant_that_a_dataset_lacks(tmp_path: Path) -> None:
    write_variants(tmp_path, ["irrelevant"])
    _, missing = training_tasks(small_config(tmp_path, arm="coi12_shuffled"))
    with pytest.raises(UserError, match=r"train_shuffled_length2: .*split train_shuffled is unknown; .*another arm"):
        token_cache.count_rows(missing)
    single = training_tasks(small_config(tmp_path, arm="coi12", data__split="irrelevant"))[0]
    with pytest.raises(UserError, match="arm coi12_irrelevant takes single instructions from the plain split"):
        token_cache.count_rows(single)


def test_a_prompting_baseline_is_an_arm_and_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = prompts.Stage("answer", prompts.whole_instruction, lambda chain: f"{chain.length} steps: {chain.targets}")
    monkeypatch.setitem(prompts.PROMPTINGS, "count", (stage,))
    monkeypatch.setitem(ARMS, "counted", Arm("counted", (), "not tuned, shown the number of steps", prompting="count"))
    task = evaluation_task(CONFIG.model_copy(update={"arm": "counted"}), "coi2_test")
    chain = make_chain(1, 2)
    text = prompts.few_shot(chain, [make_chain(2, 2)], task.template, task.prompting)
    assert text.count(" 2 steps: Task 1 output") == 1


@pytest.mark.parametrize("name", list(TEST_SETS))
def test_every_test_set_is_a_task(name: str) -> None:
    task, test = evaluation_task(CONFIG, name), TEST_SETS[name]
    assert (task.name, task.split, task.length) == (name, test.split, test.length)
    assert chain_length(name) == test.length


def test_a_test_set_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEST_SETS, "fused3_test", TestSet("fused3_test", "fused", "test_fused", 3))
    task = evaluation_task(CONFIG, "fused3_test")
    assert (task.split, task.length) == ("test_fused", 3)
    assert chain_length("no_such_test") is None


def test_the_next_command_names_the_test_sets_that_the_dataset_has(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", {2: 3}, tests=4)
    tests = ("proc1_test", "proc2_test", "coi2_test", "proc3_test")
    assert available_tests(small_config(tmp_path, **{"evaluation.tests": tests})) == ["proc2_test"]
    assert available_tests(small_config(tmp_path / "nowhere", **{"evaluation.tests": tests})) == []
