"""Published folders into runs and back: the same bytes, the same logits in transformers, nothing half-written."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from etils import epath
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from coi_jax import convert, evaluate, generate
from coi_jax.common import cli
from coi_jax.common.errors import UserError
from coi_jax.common.storage import Folder, copy_file, list_files, upload_folder
from coi_jax.config import published_run
from coi_jax.config.run import load_config
from coi_jax.inference import model as inference
from coi_jax.models import build
from coi_jax.runs import checkpoint, checkpoint_steps
from coi_jax.runs.run_folder import RunFolder, keep_vocabulary
from coi_jax.runs.train_state import TrainState
from coi_jax.weights.safetensors_files import INDEX, SINGLE
from data_pipeline.tasks.sentencepiece_training import train
from tests.helpers import published_models, trained_runs
from tests.helpers.paths import QUICKSTART
from tests.helpers.published_models import logits, tensors
from tests.helpers.reference_models import FAMILIES
from tests.helpers.tokenizer_folders import CHATML_TEMPLATE, LINES, byte_level

CONFIG = str(QUICKSTART)
BYTES = ("--config", CONFIG, "--config.vocabulary.kind=bytes")
SMALL = ("--shard_gb", "2e-5")


def run(*arguments: object) -> int:
    return cli.run(lambda: convert.main([str(argument) for argument in arguments]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_published_folder_becomes_a_run_and_comes_back(
    family: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    source = published_models.save(tmp_path / "model", family)
    assert run("--src", source, "--out", tmp_path / "run", *BYTES) == 0
    assert run("--src", tmp_path / "run", "--out", tmp_path / "back", *SMALL) == 0
    there, back = tensors(source), tensors(tmp_path / "back")
    assert set(back) == set(there)
    assert all(back[key].tobytes() == there[key].tobytes() for key in there)
    assert len(list((tmp_path / "back").glob("*.safetensors"))) > 1
    first, second = (published_models.load(folder) for folder in (source, tmp_path / "back"))
    difference = float((logits(first) - logits(second)).abs().max())
    record_property("export", difference)
    assert difference < 1e-4
    assert type(second.config) is type(first.config)


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "bfloat16"), (torch.float16, "float16")])
def test_the_dtype_of_a_folder_comes_back_bit_by_bit(tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    source = published_models.save(tmp_path / "model", "T5 1.1, FLAN-T5", dtype)
    assert run("--src", source, "--out", tmp_path / "run", *BYTES) == 0
    assert run("--src", tmp_path / "run", "--out", tmp_path / "back") == 0
    there, back = tensors(source), tensors(tmp_path / "back")
    assert {tensor.dtype.name for tensor in back.values()} == {name}
    assert all(back[key].tobytes() == there[key].tobytes() for key in there)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["torch_dtype"] == name
    assert not (tmp_path / "back" / INDEX).exists()


def test_another_dtype_can_be_asked_for(tmp_path: Path) -> None:
    source = published_models.save(tmp_path / "model", "Llama 2")
    assert run("--src", source, "--out", tmp_path / "run", *BYTES, "--dtype", "bfloat16") == 0
    assert run("--src", tmp_path / "run", "--out", tmp_path / "back", "--dtype", "float32") == 0
    for key, tensor in tensors(tmp_path / "back").items():
        np.testing.assert_array_equal(tensor, np.asarray(jnp.asarray(tensors(source)[key], jnp.bfloat16), np.float32))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_models.save(tmp_path_factory.mktemp("source") / "model", "Mistral 0.1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on random weights."""
    return trained_runs.make_run(tmp_path_factory.mktemp("trained"), **{"model.attention_scale_dim": 4})


def test_a_bucket_is_a_folder_too(source: Path, tmp_path: Path, bucket: str) -> None:
    upload_folder(source, epath.Path(f"{bucket}/mistral"))
    assert run("--src", f"{bucket}/mistral", "--out", f"{bucket}/run", *BYTES) == 0
    assert checkpoint_steps.steps(f"{bucket}/run/checkpoints") == [0]
    assert run("--src", f"{bucket}/run", "--out", f"{bucket}/back", *SMALL) == 0
    (tmp_path / "back").mkdir()
    for name in list_files(f"{bucket}/back"):
        copy_file(f"{bucket}/back/{name}", tmp_path / "back" / name)
    there, back = tensors(source), tensors(tmp_path / "back")
    assert {key: value.tobytes() for key, value in back.items()} == {key: t.tobytes() for key, t in there.items()}


def test_a_run_of_random_weights_is_published_as_what_it_is(trained: RunFolder, tmp_path: Path) -> None:
    assert run("--src", trained.path, "--out", tmp_path / "model") == 0
    config = trained.load_config()
    network = build(config.model, trained_runs.BYTES)
    params = checkpoint.restore_params(trained.checkpoints, network)
    theirs = published_models.load(tmp_path / "model")
    assert theirs.config.eos_token_id == 1
    tokens = np.random.default_rng(1).integers(2, trained_runs.BYTES, (1, 9))
    batch = {"tokens": jnp.asarray(tokens), "segments": jnp.ones((1, 9), int), "positions": jnp.arange(9)[None]}
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).logits.numpy()
    np.testing.assert_allclose(network.logits(params, batch), expected, atol=1e-4)


def spoil_files(step: Path, how: str) -> None:
    for path in (step / "params").glob("ocdbt*/d/*"):
        data = path.read_bytes()
        if how == "a bit in every 64 bytes":
            path.write_bytes(bytes(byte ^ (place % 64 == 32) for place, byte in enumerate(data)))
        elif how == "cut short":
            path.write_bytes(data[: len(data) // 2])
        else:
            path.unlink()


@pytest.mark.parametrize("how", ["a bit in every 64 bytes", "cut short", "deleted"])
def test_the_weights_of_a_damaged_checkpoint_are_not_used(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    copy = Path(shutil.copytree(trained.path, tmp_path / "run"))
    (step,) = checkpoint_steps.steps(copy / "checkpoints")
    spoil_files(copy / "checkpoints" / str(step), how)
    assert run("--src", copy, "--out", tmp_path / "model") == 2
    error = capsys.readouterr().err
    assert f"{copy / 'checkpoints' / str(step)}: is damaged (" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_a_tokenizer_goes_along(source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    words = {word: number for number, word in enumerate(["<unk>", "</s>", "pear", "fig"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")
    theirs.save_pretrained(folder)
    assert run("--src", folder, "--out", tmp_path / "run", "--config", CONFIG) == 0
    shutil.rmtree(folder)
    converted = RunFolder(tmp_path / "run")
    assert converted.load_config().vocabulary.kind == "tokenizer"
    assert converted.load_vocabulary().encode("fig pear") == [3, 2]
    assert run("--src", converted.path, "--out", tmp_path / "back") == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "back")("fig pear").input_ids == [3, 2]
    assert (tmp_path / "back" / "generation_config.json").is_file()


def test_a_damaged_tokenizer_is_named_where_the_user_has_it(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    (folder / "tokenizer.json").write_text('{"model": ')
    assert run("--src", folder, "--out", tmp_path / "run", "--config", CONFIG) == 2
    assert f"error: tokenizer: {folder}/tokenizer.json: is not JSON" in capsys.readouterr().err


def generation_config(model: PreTrainedModel) -> GenerationConfig:
    assert model.generation_config is not None
    return model.generation_config


class ForceToken(LogitsProcessor):
    """Makes one token certain, from the third new one on."""

    def __init__(self, start: int, token: int) -> None:
        self._start, self._token = start, token

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, -1e9)
        forced[:, self._token if ids.shape[1] >= self._start + 2 else 5] = 0
        return forced


def test_an_exported_chat_model_stops_where_the_template_ends_a_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base model ends texts with another token than its chat template ends turns with."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = byte_level(r"\p{L}+|\p{N}|\s+|[^\s\p{L}\p{N}]+", special)
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0], pad_token=special[0])
    theirs.chat_template = CHATML_TEMPLATE
    base_end, end = tokenizer.token_to_id(special[0]), tokenizer.token_to_id(special[2])
    folder = published_models.save(
        tmp_path / "base", "Qwen 2.5, small", vocab_size=len(theirs), eos_token_id=base_end, bos_token_id=base_end
    )
    GenerationConfig(eos_token_id=base_end, bos_token_id=base_end).save_pretrained(folder)
    theirs.save_pretrained(folder)
    chat = ("--config", CONFIG, "--config.data.template=chat", "--config.vocabulary=tokenizer")
    assert run("--src", folder, "--out", tmp_path / "run", *chat, f"--config.vocabulary.folder={folder}") == 0
    assert run("--src", tmp_path / "run", "--out", tmp_path / "back") == 0
    assert "AutoModelForCausalLM.from_pretrained" in capsys.readouterr().out
    exported = AutoTokenizer.from_pretrained(tmp_path / "back")
    assert exported.eos_token == special[2]
    assert exported.pad_token == special[0]
    model = published_models.load(tmp_path / "back")
    assert model.config.eos_token_id == generation_config(model).eos_token_id == [end, base_end]
    turns = [{"role": "user", "content": "Say yes."}]
    asked = exported.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
    force = LogitsProcessorList([ForceToken(asked.shape[1], end)])
    generate_ids: Any = model.generate  # a method, which its own types do not say
    answer = generate_ids(asked, do_sample=False, max_new_tokens=9, logits_processor=force)[0, asked.shape[1] :]
    assert answer.tolist() == [5, 5, end]


def test_a_trained_vocabulary_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = train(filter(None, (line for text in LINES for line in text.split("\n"))), 600)
    monkeypatch.setattr(trained_runs, "BYTES", 600)
    (tmp_path / "words.model").write_bytes(model)
    vocabulary = {"kind": "sentencepiece", "file": str(tmp_path / "words.model")}
    fields: dict[str, Any] = {"vocabulary": vocabulary, "model.attention_scale_dim": 4}
    made = trained_runs.make_run(tmp_path, **fields)
    keep_vocabulary(made, made.load_config())
    assert run("--src", made.path, "--out", tmp_path / "model") == 0
    text = "Sort the words.\nb a"
    assert AutoTokenizer.from_pretrained(tmp_path / "model")(text).input_ids == made.load_vocabulary().encode(text)
    theirs = generation_config(published_models.load(tmp_path / "model"))
    assert theirs.eos_token_id == made.load_vocabulary().eos_id


def test_bytes_go_along(trained: RunFolder, tmp_path: Path) -> None:
    assert run("--src", trained.path, "--out", tmp_path / "model") == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer("é b", add_special_tokens=False).input_ids == trained.load_vocabulary().encode("é b")
    alone = load_config(CONFIG, {"weights.folder": str(tmp_path / "model")}, replaces_model=True)
    assert alone.vocabulary == trained.load_config().vocabulary


def test_numbers_that_are_not_finite_are_not_imported(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path(shutil.copytree(source, tmp_path / "model"))
    path = next(path for path in damaged.glob("*.safetensors") if "model.norm.weight" in load_file(path))
    found = load_file(path)
    save_file(found | {"model.norm.weight": np.full_like(found["model.norm.weight"], np.nan)}, path)
    assert run("--src", damaged, "--out", tmp_path / "run", *BYTES) == cli.EXIT_USER_ERROR
    said = f"error: src: {damaged}: model.norm.weight holds numbers that are not finite"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    save_file(found | {"model.norm.weight": np.full_like(found["model.norm.weight"], 1e6)}, path)
    assert run("--src", damaged, "--out", tmp_path / "run", *BYTES, "--dtype", "float16") == cli.EXIT_USER_ERROR
    said = "error: weights: model.norm.weight: holds numbers that are too large for float16; take bfloat16"
    assert said in capsys.readouterr().err


def test_numbers_that_are_not_finite_are_neither_exported_nor_asked(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = RunFolder(shutil.copytree(trained.path, tmp_path / "run"))
    config = copy.load_config()
    params = checkpoint.restore_params(copy.checkpoints, build(config.model, trained_runs.BYTES))
    damaged = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    with checkpoint.Checkpoints(copy.checkpoints, keep=1) as checkpoints:
        checkpoints.save(
            TrainState(damaged, {"none": jnp.zeros(())}, jnp.asarray(4)), 4, {"total_steps": 4, "loader": "none"}
        )
    assert run("--src", copy.path, "--out", tmp_path / "model") == cli.EXIT_USER_ERROR
    assert re.search(
        rf"^error: src: {copy.path}: model\S+ holds numbers that are not finite", capsys.readouterr().err, re.M
    )
    assert not (tmp_path / "model").exists()
    with pytest.raises(UserError, match=rf"checkpoint: {copy.checkpoints}/4: \S+ holds numbers that are not finite"):
        inference.load_model(copy.path, {}).load_parameters()


def test_a_full_disk_is_named(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Whatever is written to this device finds no room.
    monkeypatch.setattr("coi_jax.weights.safetensors_files.SINGLE", "/dev/full")
    assert run("--src", trained.path, "--out", tmp_path / "model") == cli.EXIT_USER_ERROR
    assert f"error: {tmp_path}/model: No space left on device; make room" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def ask(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    question = ["--workdir", str(folder), "--instruction", "Sort the words.", "--input", "b a", "--json"]
    assert (
        cli.run(lambda: generate.main([*question, "--config.evaluation.max_new_tokens=5", "--config.mesh.fsdp=1"])) == 0
    )
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_a_published_model_answers_as_a_run_and_as_it_is(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--src", source, "--out", tmp_path / "run", *BYTES) == 0
    converted = RunFolder(tmp_path / "run")
    assert converted.load_config().arm == "base"
    model = {f"model.{name}": value for name, value in converted.load_config().model.model_dump().items()}
    overrides = {"arm": "base", "weights.folder": str(source), "vocabulary.kind": "bytes"}
    inference.init_untrained_run(tmp_path / "as it is", CONFIG, overrides | model)
    answers = [ask(tmp_path / name, capsys) for name in ("run", "as it is")]
    assert answers[0]["text"] == answers[1]["text"]
    assert all(str(answer["checkpoint"]).startswith("0-") for answer in answers)


def test_published_weights_are_read_from_any_working_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Folder(str(source), "--weights")
    config = published_run.imported_config(folder, published_run.RECIPE, {"vocabulary.kind": "bytes"})
    assert config.data.template == "alpaca"


@pytest.mark.parametrize("by", ["the folder alone", "fields that agree with it"])
def test_published_weights_are_scored_as_they_are(tmp_path: Path, source: Path, by: str) -> None:
    made = trained_runs.make_run(tmp_path)
    fields = published_run.imported_config(Folder(str(source), "src"), str(made.config), {}).model.model_dump()
    options = [f"--config.model.{name}={value!r}" for name, value in fields.items()] * (by != "the folder alone")
    command = [
        "--workdir",
        str(tmp_path / "base"),
        "--config",
        str(made.config),
        "--config.arm=base",
        f"--config.weights.folder={source}",
        "--tasks=proc1_test",
        "--limit=2",
        *options,
    ]
    assert cli.run(lambda: evaluate.main(command)) == 0
    results = json.loads((tmp_path / "base" / "eval" / "proc1_test" / "results_first_2.json").read_text())
    assert results["provenance"]["checkpoint"].startswith("0-")
    assert cli.run(lambda: evaluate.main([*command, "--config.arm=coi1"])) == 2


def spoil(folder: Path, how: str) -> None:
    """Does something to a folder, which has several tensor files and an index."""
    paths = sorted(folder.glob("*.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    if how == "a file is cut short":
        paths[1].write_bytes(paths[1].read_bytes()[:-3])
    elif how == "a file is absent":
        paths[1].unlink()
    elif how == "another architecture":
        config["model_type"] = "gpt2"
    elif how == "other sizes":
        config["intermediate_size"] += 1
    elif how == "more layers":
        config["num_hidden_layers"] += 1
    elif how == "a smaller embedding":
        config["vocab_size"] = 200
    elif how == "no model type":
        del config["model_type"]
    elif how == "no config":
        (folder / "config.json").unlink()
        return
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("a file is cut short", "is cut short: "),
        ("a file is absent", "not there; fetch the folder again"),
        ("another architecture", "config.json: model_type: gpt2: unknown"),
        ("other sizes", "mlp.gate_proj.weight [36, 20], where [37, 20] is due (mlp_dim × model_dim)"),
        ("more layers", "missing: model.layers.3."),
        ("a smaller embedding", "the vocabulary has 259 ids; use the checkpoint's own tokenizer"),
        ("no model type", "config.json: model_type: missing: it says which network this is"),
        ("no config", "config.json: no such file"),
    ],
)
def test_a_folder_that_is_not_right_is_one_line_and_leaves_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, said: str
) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    spoil(folder, how)
    capsys.readouterr()
    assert run("--src", folder, "--out", tmp_path / "run", *BYTES) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_mistakes_are_one_line_and_leave_nothing(
    source: Path, trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    empty = Path(shutil.copytree(trained.path, tmp_path / "empty", ignore=shutil.ignore_patterns("3")))
    cases = {
        ("--src", tmp_path / "none", "--out", out, *BYTES): "none: no such folder; check the path",
        ("--src", source, "--out", source, *BYTES): "is there already; name a new folder",
        ("--src", source, "--out", "ftp://host/run", *BYTES): "cannot be reached; name a local path",
        ("--src", source, "--out", out): f"error: src: {source}: has no tokenizer (tokenizer.json, tokenizer.model,",
        ("--src", source, "--out", out, "--config", "none.py"): "config: none.py: no such file",
        ("--src", trained.path, "--out", out, "--adapters"): "trained all weights; leave --adapters out",
        (
            "--src",
            source,
            "--out",
            out,
            "--adapters",
        ): "is no run folder, and --adapters writes those of a run",
        ("--src", empty, "--out", out): "has no checkpoint yet",
        ("--src", trained.config, "--out", out): "is a file; name a published folder, a run folder, or a GGUF file",
    }
    for arguments, said in cases.items():
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf", "many"])
def test_the_size_of_files_is_above_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run("--src", tmp_path, "--out", tmp_path / "out", "--shard_gb", size)
    assert caught.value.code == 2
    assert f"argument --shard_gb: '{size}' should be a number above 0" in capsys.readouterr().err


def test_a_network_of_no_family_is_not_half_written(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = trained_runs.make_run(tmp_path, **{"model.qk_norm": True, "model.qkv_bias": True})
    capsys.readouterr()
    assert run("--src", made.path, "--out", tmp_path / "out") == 2
    assert "no published family has this together with the other fields" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
    assert not (tmp_path / "out" / SINGLE).exists()
