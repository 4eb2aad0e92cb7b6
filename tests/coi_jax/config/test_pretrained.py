"""The folder of the weights completes a config: network, vocabulary and template, in what a user gives besides it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from coi_jax.common.errors import UserError
from coi_jax.config.pretrained import kept_files
from coi_jax.config.run import RunConfig, SentencePieceVocabularyConfig, TokenizerVocabularyConfig, load_config
from coi_jax.families.published_config import from_hf_config
from tests.helpers import tokenizer_folders
from tests.helpers.paths import CONFIGS, QUICKSTART
from tests.helpers.tokenizer_folders import write_json

RELEASE, FINE_TUNE, SMOLLM2 = (CONFIGS / f"{name}.py" for name in ("release", "fine_tune", "smollm2"))
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rms_norm_eps": 9.999999747378752e-06,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "vocab_size": 600,
}
T5 = {"model_type": "t5", "d_model": 20, "num_layers": 2, "vocab_size": 300, "tie_word_embeddings": False}


def write_folder(folder: Path, config: dict[str, Any], tokenizer: str | None = "llama3") -> Path:
    """What is published beside the tensors, which nothing of this reads."""
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer:
        tokenizer_folders.FAMILIES[tokenizer](folder)
    write_json(folder / "config.json", config)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("published") / "llama", LLAMA)


def load(folder: Path, config: Path = QUICKSTART, **fields: Any) -> RunConfig:
    overrides = {name.replace("__", "."): value for name, value in fields.items()}
    return load_config(config, {"weights.folder": str(folder), **overrides})


@pytest.mark.parametrize("path", [QUICKSTART, RELEASE, FINE_TUNE, SMOLLM2], ids=lambda path: path.stem)
def test_the_folder_alone_is_enough(path: Path, llama: Path) -> None:
    config = load(llama, path)
    section = config.model.model_dump()
    assert {name: section[name] for name in from_hf_config(LLAMA)} == from_hf_config(LLAMA)
    assert config.vocabulary == TokenizerVocabularyConfig(kind="tokenizer", folder=str(llama))
    assert (config.data.template, config.data.targets_length) == ("chat", None)
    named = {} if path in (QUICKSTART, RELEASE) else {"weights.folder": str(llama)}
    assert config.optimizer == load_config(path, named).optimizer


def test_the_folder_of_a_t5_sets_the_length_of_targets(tmp_path: Path) -> None:
    config = load(write_folder(tmp_path / "t5", T5, "t5"), FINE_TUNE)
    assert (config.model.kind, config.data.targets_length, config.data.template) == ("t5", 2048, "alpaca")


def test_what_is_set_besides_may_agree(llama: Path) -> None:
    """1e-05 is what 9.999999747378752e-06 was before it was rounded to 32 bits."""
    config = load(llama, model__layers="3", model__norm_epsilon="1e-05", model__rope__theta=1e5, model__dropout=0.1)
    assert (config.model.layers, config.model.dropout) == (3, 0.1)
    assert config.model.norm_epsilon == LLAMA["rms_norm_eps"]
    plain = load(llama, data__template="plain", vocabulary="bytes")
    assert (plain.data.template, plain.vocabulary.kind) == ("plain", "bytes")
    assert load(llama, RELEASE, vocabulary="bytes").data.template == "alpaca"  # bytes lay out no conversation


def test_a_preset_is_for_random_weights_where_the_file_names_none() -> None:
    fields = {"model.preset": "smollm2_135m", "data.template": "plain", "vocabulary": "bytes"}
    config = load_config(FINE_TUNE, fields)
    assert (config.model.layers, config.weights.folder, config.vocabulary.kind) == (30, None, "bytes")


def test_all_that_differs_is_named_at_once_and_nothing_else(llama: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(llama, model__layers=2, model__rope__theta=5.0, model__tied_embedding=False, model__heads=6)
    assert (caught.value.field, caught.value.value) == (
        "config.model",
        "layers = 2, rope.theta = 5.0, tied_embedding = False",
    )
    assert f"the checkpoint {llama} has layers = 3, rope.theta = 100000, tied_embedding = True; " in str(caught.value)
    with pytest.raises(UserError, match=r"config.model.rope.theta: 5.0: the checkpoint .* has 100000; leave it out"):
        load(llama, model__rope__theta=5.0)
    with pytest.raises(UserError, match=r"config.model.kind: t5: the checkpoint .* has 'decoder'"):
        load(llama, model__preset="flan_t5_small")
    with pytest.raises(UserError, match=r"vocabulary_size = 128256.* has .*vocabulary_size = 600"):
        load(llama, model__preset="llama32_1b")


CONFIG_FILE = """
from configs import base

def get_config():
    config = base.fine_tuning(weights={folder!r})
    {change}
    return config
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("config.model.layers = 4", "config.model.layers: 4: the checkpoint .* has 3"),
        ("config.model.preset = 'qwen3_06b'", "layers = 28, .*the checkpoint .* has .*layers = 3,"),
        ("config.vocabulary = base.trained_vocabulary(300)", "config.vocabulary.kind: trained: the weights in .*leave"),
        ("config.data.template = 'plain'", ""),
    ],
)
def test_what_a_file_sets_that_names_the_folder_is_meant(llama: Path, tmp_path: Path, change: str, said: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(CONFIG_FILE.format(folder=str(llama), change=change))
    if said:
        with pytest.raises(UserError, match=said):
            load_config(path, {})
    else:
        config = load_config(path, {})
        assert (config.data.template, config.vocabulary.kind, config.model.layers) == ("plain", "tokenizer", 3)


def test_published_weights_know_no_vocabulary_that_is_trained_here(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.vocabulary.kind: trained: the weights in .* leave vocabulary out"):
        load(llama, vocabulary__kind="trained", vocabulary__size=300)
    bare = write_folder(tmp_path / "bare", LLAMA, tokenizer=None)
    with pytest.raises(
        UserError, match=r"bare: has no tokenizer \(tokenizer.json, .*--config.vocabulary.folder=FOLDER"
    ):
        load(bare)
    assert load(bare, vocabulary="tokenizer", vocabulary__folder=str(llama)).model.layers == 3


def edit(path: Path, **fields: object) -> None:
    """Set fields of a JSON file; one that is None is taken out."""
    values = json.loads(path.read_text()) | fields
    write_json(path, {name: value for name, value in values.items() if value is not None})


def test_where_a_chat_template_may_be(llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "copy"))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    assert load(folder).data.template == "plain"  # as the file has it
    assert load(folder, FINE_TUNE).data.template == "alpaca"
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]
    for found in (template, named, {"default": template}):
        edit(folder / "tokenizer_config.json", chat_template=found)
        assert load(folder).data.template == "chat"
    edit(folder / "tokenizer_config.json", chat_template=named[:1])
    assert load(folder).data.template == "plain"
    edit(folder / "tokenizer_config.json", chat_template=None)
    write_json(folder / "chat_template.json", {"chat_template": template})
    assert load(folder).data.template == "chat"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.weights.folder: .*absent: no such folder"):
        load(tmp_path / "absent")
    with pytest.raises(UserError, match=r"config.weights.folder: .*: has no config.json"):
        load(tmp_path)
    write_json(tmp_path / "adapter_config.json", {})
    with pytest.raises(UserError, match="holds adapters of peft alone; merge them"):
        load(tmp_path)
    with pytest.raises(UserError, match=r"config.weights.folder: None: name a published folder"):
        load_config(FINE_TUNE, {})
    unreachable = {"weights.folder": "gopher://pod/model"}
    for overrides in ({}, unreachable):
        assert load_config(CONFIGS / "mistral_7b.py", overrides).model.layers == 32  # the file says it all
    with pytest.raises(UserError, match=r"config.weights.folder: gopher://pod/model: cannot be reached"):
        load_config(RELEASE, unreachable)


def test_a_run_that_has_begun_needs_the_folder_no_more(llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "published"))
    before, workdir = load(folder), tmp_path / "run"
    shutil.move(folder, workdir / "published")
    assert kept_files(workdir) is None
    (workdir / "checkpoints" / "1").mkdir(parents=True)
    assert load_config(QUICKSTART, {"weights.folder": str(folder)}, kept=kept_files(workdir)) == before
    of_the_hub = load_config(QUICKSTART, {"weights.folder": "hf://org/none"}, kept=kept_files(workdir))
    assert of_the_hub.model == before.model
    write_json(workdir / "config.json", before.model_dump(mode="json"))
    assert load_config(workdir / "config.json", {"evaluation.batch": 1}).model == before.model


def test_another_run_says_its_network_too(llama: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", load(llama).model_dump(mode="json"))
    with pytest.raises(UserError, match="is a run without a checkpoint; train it first"):
        load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "tokenizer").mkdir()
    config = load(tmp_path, model__scan_unroll=2)
    assert (config.model.layers, config.model.scan_unroll, config.data.template) == (3, 2, "chat")
    assert config.vocabulary == TokenizerVocabularyConfig(kind="tokenizer", folder=f"{tmp_path}/tokenizer")
    plain = config.model_dump(mode="json")["data"] | {"template": "plain"}
    edit(tmp_path / "config.json", vocabulary={"kind": "trained", "size": 500}, data=plain)
    again = load(tmp_path)
    assert again.vocabulary == load_config(QUICKSTART, {}).vocabulary
    (tmp_path / "vocabulary.model").touch()
    own = SentencePieceVocabularyConfig(kind="sentencepiece", file=f"{tmp_path}/vocabulary.model")
    assert load(tmp_path, data__folder="other").vocabulary == own  # and none that is trained on other data
    edit(tmp_path / "config.json", model=None)
    with pytest.raises(UserError, match="is not the config of a run of this version"):
        load(tmp_path)


def test_fields_that_nothing_reads_are_named_in_one_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = {"rope_interleaved": False, "made_by": "hand", "qui\nrks": [1], "head_dim": None, "torch_dtype": None}
    for _ in range(2):
        load(write_folder(tmp_path, LLAMA | odd), QUICKSTART)
    said = capsys.readouterr().err
    assert said == f"note: {tmp_path}/config.json has fields that change nothing here: made_by, qui rks\n"


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("value", ["abc", -1, {"a": 1}, 10**12, [2, True]])
def test_an_end_that_is_no_token_is_refused_before_anything_is_read(tmp_path: Path, name: str, value: object) -> None:
    folder = write_folder(tmp_path / "model", LLAMA, tokenizer=None)
    write_json(folder / "generation_config.json", {"eos_token_id": 2})
    edit(folder / name, eos_token_id=value)
    with pytest.raises(
        UserError, match=rf"^{name}: eos_token_id: .* \(a whole number from 0 to 599\) nor a list of such"
    ):
        load(folder, vocabulary="bytes")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_an_empty_list_of_ends_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "model", LLAMA | {"eos_token_id": 2}, tokenizer=None)
    write_json(folder / "generation_config.json", {})
    edit(folder / name, eos_token_id=[])
    with pytest.raises(UserError, match=rf"^{name}: eos_token_id: \[\]: is an empty list; name an id, or take it out"):
        load(folder, vocabulary="bytes")


@pytest.mark.parametrize("field", ["bos_token_id", "pad_token_id"])
def test_other_special_tokens_are_ids_too(tmp_path: Path, field: str) -> None:
    folder = write_folder(tmp_path / "model", LLAMA | {field: "abc"}, tokenizer=None)
    with pytest.raises(UserError, match=rf"^config.json: {field}: abc: is neither the id of a token"):
        load(folder, vocabulary="bytes")
    edit(folder / "config.json", **{field: 600})  # as tunings that add a token for padding have it
    assert load(folder, vocabulary="bytes").model.layers == 3


def test_a_file_that_was_cut_short_is_named_where_the_user_has_it(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", LLAMA, tokenizer=None)
    (folder / "generation_config.json").write_text('{"eos_token_id": ')
    with pytest.raises(UserError, match=rf"^config.weights.folder: {folder}/generation_config.json:1: not JSON"):
        load(folder, vocabulary="bytes")
