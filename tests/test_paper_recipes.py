"""The recipes of configs/paper/: each resolves to what it says, and their small twins have every kind of data."""

from pathlib import Path

import pytest

from coi_jax.config.run import load_config
from coi_jax.data.task_specs import training_tasks
from launch.sweep.checks import check_data
from launch.sweep.points import expand
from tests.helpers.paths import CONFIGS, ROOT
from tests.helpers.release_like import write_release

ARMS = {
    "irrelevant": "coi12_irrelevant",
    "summarized": "coi12_summarized",
    "single_length": "coi2",
    "multilingual": "coi12",
}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the configs and a dataset of the release's splits."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    write_release(tmp_path / "data" / "release", training=2, tests=2)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("model", ["alpaca", "mistral"])
@pytest.mark.parametrize("name", ARMS)
def test_an_ablation_is_the_models_recipe_but_for_its_arm_and_tests(name: str, model: str) -> None:
    recipe = load_config(f"{CONFIGS}/paper/{model}_7b.py", {})
    config = load_config(f"{CONFIGS}/paper/{name}.py:{model}", {})
    evaluation = recipe.evaluation.model_copy(update={"tests": config.evaluation.tests})
    assert config == recipe.model_copy(update={"arm": ARMS[name], "evaluation": evaluation})
    assert f"configs/paper/{name}.py" in (CONFIGS / "paper" / f"{name}.py").read_text()


@pytest.mark.parametrize(
    ("name", "splits"),
    [("irrelevant", ["train", "irrelevant"]), ("summarized", ["train", "summarized"]), ("single_length", ["train"])],
)
def test_an_ablation_is_trained_on_the_split_that_its_name_says(name: str, splits: list[str]) -> None:
    assert [task.split for task in training_tasks(load_config(f"{CONFIGS}/paper/{name}.py", {}))] == splits


def test_the_small_twins_are_of_all_recipes_and_find_their_data() -> None:
    points = expand("configs/sweeps/paper_small.py", {}, None)
    check_data(points)
    arms = {point.config.arm for point in points}
    large = expand("configs/sweeps/paper_alpaca_7b.py", {}, None)
    assert {point.config.arm for point in large} | set(ARMS.values()) <= arms
    multilingual = load_config(f"{CONFIGS}/paper/multilingual.py", {}).evaluation.tests
    found = {point.config.arm for point in points if set(multilingual) <= set(point.config.evaluation.tests)}
    assert found == {"base", "coi12"}
    assert {point.config.weights.folder for point in points} == {"runs/paper_small_base"}
