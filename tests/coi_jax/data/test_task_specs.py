import pytest

from coi_jax.common.errors import UserError
from coi_jax.config.run import load_config
from coi_jax.data.arms import ARMS
from coi_jax.data.task_specs import evaluation_task, training_tasks
from tests.helpers.paths import QUICKSTART

CONFIG = load_config(QUICKSTART, {})


@pytest.mark.parametrize("arm", [arm for arm, lengths in ARMS.items() if lengths])
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
