import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import numpy as np
import pytest
import transformers

import coi_jax
from coi_jax import api
from coi_jax.chains.dataset import read_manifest
from coi_jax.inference.answering import generate
from coi_jax.inference.model import Model
from tests.helpers.paths import ROOT
from tests.helpers.tokenizer_folders import FAMILIES
from tests.helpers.trained_runs import chains, make_run

TUTORIAL = ROOT / "docs" / "tutorials" / "python_api.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = make_run(tmp_path_factory.mktemp("made")).path
    return path


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return coi_jax.load_run(run)


def test_an_answer_is_that_of_the_command(model: Model) -> None:
    expected = generate(model, "Sort. and then Count.", "b a")
    answer = coi_jax.answer_chain(model, ["Sort.", "Count."], "b a")
    assert answer == coi_jax.answer_chain(model, "Sort. and then Count.", "b a")
    assert (answer.text, answer.checkpoint) == (expected["text"], expected["checkpoint"])
    assert [step.output for step in answer.steps] == list(coi_jax.parse(answer.text))
    assert answer.steps[0].instruction == "Sort."


def test_an_empty_instruction_is_refused(model: Model) -> None:
    with pytest.raises(coi_jax.UserError, match="is empty; say what to do"):
        coi_jax.answer_chain(model, [], "b a")


def test_overrides_reach_the_generator(run: Path) -> None:
    assert coi_jax.load_run(run, {"evaluation.max_new_tokens": 2}).config.evaluation.max_new_tokens == 2
    with pytest.raises(coi_jax.UserError, match=r"config\.model\.layers: 3: is fixed by the training"):
        coi_jax.load_run(run, {"model.layers": 3})


def test_published_weights_are_prompted_as_they_are(tmp_path: Path) -> None:
    source = tmp_path / "model"
    FAMILIES["llama"](source)
    config = transformers.LlamaConfig(
        vocab_size=520,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(source)
    small = {"evaluation.max_new_tokens": 2, "mesh.fsdp": 1}
    loaded = [
        coi_jax.load_weights(str(source), tmp_path / "run", config=ROOT / "configs" / "release.py", overrides=small)
        for _ in range(2)
    ]
    answers = [coi_jax.answer_chain(model, "Sort.", "b a") for model in loaded]
    assert answers[0] == answers[1]
    assert answers[0].checkpoint.startswith("0-")


def test_scores_are_those_of_an_evaluation() -> None:
    references = chains(2, 6)
    right = coi_jax.score_predictions(references, [chain.targets for chain in references], resamples=20)
    assert {right[key]["value"] for key in ("rouge_l", "content_exact_match", "well_formed")} == {100.0}
    half = [chain.targets if k % 2 else "nothing" for k, chain in enumerate(references)]
    score = coi_jax.score_predictions(references, half, resamples=200)["content_exact_match"]
    assert score["value"] == 50.0
    assert score["low"] < 50 < score["high"]
    for wrong in (half[1:], []):
        with pytest.raises(coi_jax.UserError, match="give one text for each chain"):
            coi_jax.score_predictions(references, wrong)


def test_chains_that_are_written_are_read_again(tmp_path: Path) -> None:
    written = chains(1, 3) + chains(2, 2)
    coi_jax.write_chains(tmp_path / "data", {"train": written}, source="here", licence="none")
    assert list(coi_jax.read_chains(tmp_path / "data", "train")) == written
    assert read_manifest(tmp_path / "data")["counts"] == {"train": {"1": 3, "2": 2}}


def test_every_name_is_there_and_documented() -> None:
    for name in coi_jax.__all__:
        assert inspect.getdoc(getattr(coi_jax, name)), name
    assert set(coi_jax.__all__) <= set(dir(coi_jax))
    public = {name for name, value in vars(api).items() if getattr(value, "__module__", "") == api.__name__}
    assert public <= set(coi_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'train_everything'"):
        coi_jax.train_everything  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "coi_jax" / "__init__.py").read_text())
    declared = {
        alias.asname: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == coi_jax._MODULES


def test_chains_are_handled_without_jax() -> None:
    code = (
        "import sys, coi_jax; coi_jax.Chain, coi_jax.read_chains; print('jax' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_tutorial_runs(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "coi12").symlink_to(run)
    cells = [cell.source for cell in jupytext.read(TUTORIAL).cells if cell.cell_type == "code"]
    assert len(cells) >= 8
    names: dict[str, Any] = {}
    for cell in cells:
        exec(compile(cell, str(TUTORIAL), "exec"), names)
    assert np.isfinite(names["scores"]["rouge_l"]["value"])
    assert names["answer"].steps[0].instruction == "Remove the first word."
