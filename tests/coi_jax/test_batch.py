import itertools
import json
import shutil
from pathlib import Path

import pytest

from coi_jax.batch import main
from coi_jax.common import cli
from coi_jax.data import token_cache
from coi_jax.data.loader import Loader
from coi_jax.data.task_specs import training_tasks
from coi_jax.runs.run_folder import open_run
from coi_jax.tokenizers.vocabulary import load_vocabulary
from tests.helpers.token_caches import small_config, write_caches, write_dataset

SETTINGS = {"data.batch.rows": 2, "train.length.count": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder without a step, and its data beside it."""
    made = tmp_path_factory.mktemp("made")
    write_dataset(made / "data", {1: 30, 2: 20})
    config = small_config(made, **SETTINGS)
    write_caches(config)
    open_run(made / "run", config)
    return made


def run(folder: Path, *options: str) -> int:
    return cli.run(lambda: main(["--workdir", str(folder / "run"), *options]))


def test_prints_what_the_step_trains_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config(folder, **SETTINGS)
    vocabulary = load_vocabulary(config)
    loader = Loader(config, token_cache.open_or_write(config, training_tasks(config), None), vocabulary)
    assert run(folder, "--step", "3", "--json") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for number, row in enumerate(loader.batch(2)["tokens"], 1):
        # The last target of an example is predicted, and is no input.
        mine = [[*one["input_ids"], *one["target_ids"][:-1]] for one in told if one["row"] == number]
        assert [token for token in row.tolist() if token != vocabulary.pad_id] == [*itertools.chain(*mine)]
    assert [one["chain"]["id"] for one in told] == loader.example_ids(2)


def test_text_is_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--step", "1") == 0
    said = capsys.readouterr().out
    assert said.startswith("step 1 of 6: ")
    assert "instruction: Rotate by 0. and then Rotate by 1." in said


def test_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--step", "7") == cli.EXIT_USER_ERROR
    assert capsys.readouterr().err == "error: --step: 7: the run has 6 steps\n"


def test_a_damaged_config_of_the_run_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"seed":', '"sead":'))
    assert run(tmp_path, "--step", "1") == cli.EXIT_USER_ERROR
    assert f"{path}: was changed since it was written" in capsys.readouterr().err
