import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

from coi_jax import evaluate
from coi_jax.common import cli, files
from coi_jax.common.seals import read_sealed, write_sealed
from coi_jax.config.run import load_config
from coi_jax.data.task_specs import evaluation_task
from coi_jax.generate import main
from coi_jax.inference.answering import describe
from coi_jax.inference.generator import Answer
from coi_jax.inference.model import Model
from coi_jax.inference.rows import Prompt
from tests.helpers.token_caches import write_caches
from tests.helpers.tokenizer_folders import FAMILIES
from tests.helpers.trained_runs import make_run

FOUND: dict[str, Any] = {
    "steps": [{"instruction": "Sort.", "output": "a b"}, {"instruction": None, "output": "2"}],
    "well_formed": True,
    "complete": True,
    "longer_than_trained": False,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = make_run(tmp_path_factory.mktemp("made")).path
    return path


def generate(run: Path, *options: str) -> int:
    return cli.run(lambda: main(["--workdir", str(run), *options]))


def test_json_has_the_steps(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(run, "--instruction", "Sort. and then Count.", "--input", "b a", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"][0]["instruction"] == "Sort."
    assert {"text", "complete", "well_formed", "checkpoint"} <= set(found)
    assert found["checkpoint"].startswith("3-")


def test_text_is_for_people(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(run, "--instruction", "Sort. and then Count.", "--input", "b a") == 0
    assert capsys.readouterr().out.startswith("1. Sort.\n")


def test_description_shows_every_step() -> None:
    assert describe(FOUND).splitlines() == ["1. Sort.", "   a b", "2. (a step that was not asked for)", "   2"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("well_formed", False, "labels"), ("complete", False, "max_new_tokens"), ("longer_than_trained", True, "longer")],
)
def test_description_says_what_is_amiss(field: str, value: bool, said: str) -> None:
    assert said in describe(FOUND | {field: value}).splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--instruction= "], "instruction"),
        (["--instruction=Sort.", "--config.seed=2"], "config.seed"),
        (["--instruction=Sort.", "--input", "x " * 20_000], "tokens: the model reads at most "),
        (["--instruction=Sort.", "--config.arm=coi1"], "config.arm: coi1: is tuned, and has a network of its own"),
        (["--instruction=Sort.", "--config.arm=cot", "--demonstrations=no.jsonl"], "config.evaluation.demonstrations"),
        (["--instruction=Sort.", "--config.arm=cot", "--config.data.folder=no"], "or name a file of worked examples"),
    ],
)
def test_mistakes_are_one_line(run: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert generate(run, *options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arm", ["cot", "ltm"])
def test_a_baseline_answers_as_in_an_evaluation(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str], arm: str
) -> None:
    greedy = {"arm": arm, "evaluation.decoding": "greedy", "evaluation.batch": 1, "evaluation.tests": ("proc2_test",)}
    config = load_config(run / "config.json", greedy)
    write_caches(config, [evaluation_task(config, "proc2_test")])
    options = ("--source", str(run), f"--config.arm={arm}", "--config.evaluation.decoding=greedy")
    assert evaluate.main(["--workdir", str(tmp_path / arm), *options, "--tasks=proc2_test", "--limit=1"]) == 0
    [row] = files.read_jsonl(tmp_path / arm / "eval" / "proc2_test" / "predictions.jsonl")
    before = files.read_json(run / "config.json")
    capsys.readouterr()
    asked = ("--instruction", row["instruction"], "--input", row["input"])
    assert generate(run, *options[2:], *asked, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["text"], found.get("stages")) == (row["prediction"], row.get("stages"))
    assert files.read_json(run / "config.json") == before
    assert generate(tmp_path / arm, *asked) == 2
    assert "prompts the network of another run: to ask that one" in capsys.readouterr().err


def test_worked_examples_that_an_arm_does_not_show_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(run, "--instruction=Sort.", "--shots=3") == 0
    assert "arm coi12 is shown no worked examples, so that evaluation.shots is not used" in capsys.readouterr().err


def test_a_chat_model_is_asked_in_its_own_words(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[int]] = []

    def answers(model: Model, prompts: list[Prompt]) -> Iterator[Answer]:
        asked.append(prompts[0].tokens.tolist())
        padding = 511  # a row of the embedding that the tokenizer has no token for
        yield Answer(0, [padding, *model.vocabulary.encode("a b"), model.vocabulary.eos_id, 7], True)

    monkeypatch.setattr(Model, "answers", answers)
    FAMILIES["llama3"](tmp_path / "model")
    config = read_sealed(run / "config.json")
    config["vocabulary"] = {"kind": "tokenizer", "folder": str(tmp_path / "model")}
    config["data"]["template"] = "chat"
    shutil.copytree(run, tmp_path / "run")
    write_sealed(tmp_path / "run" / "config.json", config)
    assert generate(tmp_path / "run", "--instruction", "Sort.", "--input", "b a") == 0
    assert capsys.readouterr().out == "1. Sort.\n   a b\n"
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    messages = [{"role": "user", "content": "Sort.\n\nb a"}]
    assert asked == [reference.apply_chat_template(messages, add_generation_prompt=True)]
