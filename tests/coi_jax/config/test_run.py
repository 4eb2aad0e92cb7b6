import os
from pathlib import Path
from typing import Any

import pytest

from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.config import __main__ as config_command
from coi_jax.config.run import (
    BeamSearchConfig,
    BytesVocabularyConfig,
    EpochsConfig,
    RunConfig,
    SamplingConfig,
    load_config,
    read_run_config,
)
from configs import base
from tests.helpers import paths
from tests.helpers.paths import GOLDENS, QUICKSTART

CONFIGS = sorted(
    path for path in paths.CONFIGS.glob("*.py") if path.stem not in ("base", "fine_tune", "grids", "smollm2")
)  # which needs a folder


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_resolves_and_survives_json(path: Path) -> None:
    config = load_config(path, {})
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    assert hash(config) == hash(load_config(path, {}))


def test_overrides_by_dotted_name() -> None:
    config = load_config(QUICKSTART, {"seed": 7, "model.layers": 2, "evaluation.tests": ("proc1_test",)})
    assert (config.seed, config.model.layers, config.evaluation.tests) == (7, 2, ("proc1_test",))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optimizer.learning_rat": 1e-3}, "did you mean 'optimizer.learning_rate'"),
        ({"optimiser.learning_rate": 1e-3}, "did you mean 'optimizer'"),
        ({"seed.of.all": 1}, "seed"),
        ({"optimizer.learning_rate": -1.0}, "optimizer.learning_rate: -1.0: .*greater than 0"),
        ({"optimizer.learning_rate": "inf"}, "optimizer.learning_rate: inf: .*finite"),
        ({"optimizer.learning_rate": "1e999"}, "optimizer.learning_rate: inf: .*finite"),
        ({"optimizer.weight_decay": "nan"}, "optimizer.weight_decay: nan: .*finite"),
        ({"optimizer.options.b2": "-inf"}, "optimizer.options.b2: -inf: .*finite"),
        ({"train.length.count": "many"}, "train.length.count"),
        ({"train.length.unit": "epoch"}, r"config.train.length.unit: epoch: unknown; did you mean 'epochs'"),
        ({"train.length.count": 0}, "train.length.count: 0: .*greater than 0"),
        ({"model.heads": 3, "model.kv_heads": 2}, "multiple of kv_heads"),
        ({"data.targets_length": 64}, "targets_length"),
        ({"model.kind": "rnn"}, "model"),
        ({"model": "None"}, "config.model: None: is a section; set its fields"),
        ({"vocabulary": "tokenizer"}, "config.vocabulary.folder: missing"),
        (
            {"vocabulary.kind": "mistral", "vocabulary.size": 4},
            "config.vocabulary is mistral, and only trained has that",
        ),
        ({"vocabulary.kind": "byte"}, "did you mean 'bytes'"),
        (
            {"evaluation.decoding": {"kind": "greedy", "beams": 4}},
            "config.evaluation.decoding is greedy, and only beam has that field",
        ),
        (
            {"lora.rank": 16},
            "config.lora is None; set it in the config file, or whole, as --config.lora=\"{'rank': …}\", or choose its",
        ),
        ({"optimizer.options.b2": "half"}, "config.optimizer.options.b2: half: should be a valid number"),
        ({"model.layers": 2.5}, "config.model.layers: 2.5: should be a valid integer"),
        ({"seed": 10**30}, "config.seed: 1000000000000000000000000000000: should be at most 2,147,483,647"),
        ({"train.length.count": 2**31}, "config.train.length.count: 2147483648: should be at most"),
        ({"seed": True}, "config.seed: no value: is no switch, and needs one; write --config.seed=VALUE"),
        ({"arm": True}, "config.arm: no value: is no switch, and needs one; write --config.arm=VALUE"),
        ({"data.ratios": "{0: 0.2}"}, "config.data.ratios: 0: as a key it should be greater than 0"),
        (
            {"evaluation.decoding.beams": 4},
            "config.evaluation.decoding.beams: 4: config.evaluation.decoding is greedy, and only beam has that field; "
            "choose it as well: --config.evaluation.decoding=beam",
        ),
        (
            {"train.loss_on.weights": "(0.5, 1.0)"},
            "config.train.loss_on is all_steps, and only weighted_steps has that field; choose it as well: "
            "--config.train.loss_on=weighted_steps",
        ),
        ({"data.template": "chat"}, 'template = "chat" is what vocabulary.kind = "tokenizer" lays out'),
        ({"data.template": "mistral"}, 'is what vocabulary.kind = "mistral" lays out'),
        ({"data.chat.system": "Be brief."}, 'data.chat.system is not shown by data.template = "plain"'),
        ({"data.chat.variables.enable_thinking": "False"}, "data.chat.variables are not read by data.template"),
        ({"data.max_dropped": 1.5}, "data.max_dropped: 1.5: .*less than or equal to 1"),
        ({"evaluation.max_new_tokens": 10**8}, "evaluation.max_new_tokens: 100000000: .*less than or equal to 1048576"),
        ({"mesh.fsdp": 0}, "config.mesh.fsdp: 0: give a positive number, or -1 for the rest"),
        ({"mesh.sequence": -2}, "config.mesh.sequence: -2: give a positive number"),
        ({"mesh.fsdp": -1, "mesh.tensor": -1}, "config.mesh: .*fsdp and tensor are -1; only one axis takes the rest"),
        ({"data.length": "True"}, "config.data.length: True: should be a number"),
        ({"optimizer.learning_rate": "True"}, "config.optimizer.learning_rate: True: should be a number"),
        ({"model.window": "False"}, "config.model.window: False: should be a number"),
        ({"model.qk_norm": "abc"}, "config.model.qk_norm: abc: should be a valid boolean or should be 'all_heads'"),
        ({"data.folder": "\ud800"}, r"config.data.folder: '\\ud800': holds half of a surrogate pair"),
        ({"evaluation.tests": ("coi2_test", "\ud800")}, "config.evaluation.tests: .*holds half of a surrogate pair"),
        ({"optimizer.options": {"b\ud800": 0.5}}, r"config.optimizer.options: \{'b\\ud800': 0.5\}: holds half of a"),
        ({"data.chat.variables": {"x": "\ud800"}}, r"config.data.chat.variables: \{'x': '\\ud800'\}: holds half of a"),
        ({"weights.folder": ""}, "config.weights.folder: '': is empty; name a folder"),
        ({"data.cache_folder": ""}, "config.data.cache_folder: '': is empty; name a folder"),
        ({"data.split": "../x"}, "config.data.split: ../x: .*should match pattern"),
        ({"data.ratios": "{1: 0.2, 1: 0.3}"}, "config.data.ratios: .*: has the key 1 twice; give it once"),
        ({"data.chat.variables": {"thinks": ()}}, r"config.data.chat.variables.thinks: \(\): should be"),
    ],
)
def test_a_wrong_field_is_named_with_its_mend(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config(QUICKSTART, overrides)
    assert "\n" not in str(caught.value)


def test_the_config_of_an_earlier_version_has_the_values_that_it_was_run_with(tmp_path: Path) -> None:
    config = load_config(QUICKSTART, {})
    values = config.model_dump(mode="json")
    for name in ("ratios", "max_examples", "curriculum"):
        del values["data"][name]
    del values["train"]["loss_on"]
    files.write_json(tmp_path / "config.json", values)
    assert read_run_config(tmp_path / "config.json", "workdir") == config


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "config: '': is empty; name a file"), ("configs/base.py:", "names no argument; write FILE.py, or")],
)
def test_a_name_of_no_file_says_how_to_name_one(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(name, {})


@pytest.mark.parametrize("text", ["", "def get_config(): return {}[1]", "import nothing_like_it", "def get_config(:"])
def test_a_broken_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken\.py") as caught:
        load_config(path, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(): return {}", "returns a dict; return an ml_collections ConfigDict"),
        ("def get_config(): return 5", "returns an int"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("class Stop(BaseException): pass\nraise Stop('it')", "Stop: it"),
        ("assert False", r"raises AssertionError \(line 1 of other.py\)$"),
        (
            "import json\n\ndef get_config():\n    return json.loads('{')",
            r"JSONDecodeError: .* \(line 4 of other.py\)$",
        ),
        ("class Silent(Exception):\n    def __str__(self): raise RuntimeError\nraise Silent", "raises Silent"),
    ],
)
def test_a_file_that_is_no_config_says_what_is_due(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "other.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(path, {})


@pytest.mark.parametrize("text", ["{}", "[]", '{"model": 3}', '{"model": {}}'])
@pytest.mark.parametrize("overrides", [{}, {"model.layers": 3}])
def test_json_that_is_no_config_is_one_line(tmp_path: Path, text: str, overrides: dict[str, Any]) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)


def test_a_missing_and_an_extra_field(tmp_path: Path) -> None:
    path = tmp_path / "fields.py"
    path.write_text(QUICKSTART.read_text().replace("    return config", "    del config.seed\n    return config"))
    with pytest.raises(UserError, match="seed: missing"):
        load_config(path, {})
    path.write_text(
        QUICKSTART.read_text().replace("    return config", "    config.optimizer.clip_norms = 1\n    return config")
    )
    with pytest.raises(UserError, match="did you mean 'clip_norm'"):
        load_config(path, {})
    with pytest.raises(UserError, match="no such file"):
        load_config(tmp_path / "none.py", {})
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(UserError, match="is a pipe or a device"):
        load_config(tmp_path / "pipe.py", {})


def test_tags_choose_the_fields_of_a_section() -> None:
    sampled = {
        "evaluation.decoding.top_p": 0.9,
        "evaluation.decoding": "sample",
        "evaluation.decoding.temperature": "2",
    }
    assert load_config(QUICKSTART, sampled).evaluation.decoding == SamplingConfig(
        kind="sample", temperature=2, top_p=0.9
    )
    assert load_config(QUICKSTART, {"vocabulary": "bytes"}).vocabulary == BytesVocabularyConfig(kind="bytes")
    by_epochs = load_config(QUICKSTART, {"train.length.unit": "epochs", "train.length.count": "0.5"})
    assert by_epochs.train.length == EpochsConfig(unit="epochs", count=0.5)


def test_ways_of_decoding_have_the_defaults_of_the_docs() -> None:
    found = load_config(QUICKSTART, {"evaluation.decoding": "beam", "evaluation.decoding.beams": "4"})
    expected = BeamSearchConfig(kind="beam", beams=4, length_penalty=1.0, early_stopping=False)
    assert found.evaluation.decoding == expected
    found = load_config(QUICKSTART, {"evaluation.decoding": "sample"})
    assert found.evaluation.decoding == SamplingConfig(kind="sample", temperature=1.0, top_p=1.0)
    assert dict(base.sampling()) == SamplingConfig(kind="sample").model_dump()
    assert dict(base.beam_search(4)) == BeamSearchConfig(kind="beam", beams=4).model_dump()


def test_an_override_changes_no_other_config() -> None:
    changed, other = load_config(QUICKSTART, {"model.rope.theta": 500.0}), load_config(QUICKSTART, {})
    assert changed.model.model_dump()["rope"]["theta"] == 500.0 != other.model.model_dump()["rope"]["theta"]


def test_text_is_read_as_what_its_field_holds() -> None:
    texts = {"seed": "3", "optimizer.learning_rate": "1e-4", "model.qk_norm": "True", "data.split": "a b"}
    typed = {"seed": 3, "optimizer.learning_rate": 1e-4, "model.qk_norm": True, "data.split": "a b"}
    assert load_config(QUICKSTART, texts) == load_config(QUICKSTART, typed)
    assert load_config(QUICKSTART, {"evaluation.tests": "('a b', 'c')"}).evaluation.tests == ("a b", "c")
    read = load_config(QUICKSTART, {"data.folder": "12", "weights.folder": "None", "seed": "7", "model.remat": "none"})
    assert (read.data.folder, read.weights.folder, read.seed, read.model.remat) == ("12", None, 7, "none")


def test_a_file_may_take_an_argument() -> None:
    mistral = f"{paths.CONFIGS}/mistral_7b.py"
    assert load_config(mistral, {}).lora is None
    adapted = load_config(f"{mistral}:lora", {"lora.rank": "4"}).lora
    assert adapted is not None
    assert adapted.rank == 4
    assert load_config(f"{mistral}:lora", {"lora": "None"}).lora is None
    with pytest.raises(UserError, match=r"^config: .*\.py:loar: no variant 'loar'; one of full, lora$"):
        load_config(f"{QUICKSTART}:loar", {})
    with pytest.raises(UserError, match="takes no argument"):
        load_config(f"{paths.CONFIGS}/release.py:large", {})


@pytest.mark.parametrize("name", ["quickstart", "release", "mistral_7b", "mistral_7b_lora"])
def test_resolved_configs_are_those_on_record(name: str) -> None:
    """`python -m coi_jax.config --config FILE > tests/goldens/configs/NAME.json` writes a change that is meant."""
    file = name.removesuffix("_lora")
    path = f"{paths.CONFIGS}/{file}.py" + (":lora" if name.endswith("_lora") else "")
    recorded = (GOLDENS / "configs" / f"{name}.json").read_text(encoding="utf-8")
    assert load_config(path, {}).model_dump_json(indent=2) + "\n" == recorded


def test_the_command_prints_a_config_that_can_be_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert config_command.main([f"--config={QUICKSTART}", "--config.seed=5"]) == 0
    path = tmp_path / "config.json"
    path.write_text(capsys.readouterr().out)
    assert load_config(path, {}) == load_config(QUICKSTART, {"seed": 5})


@pytest.mark.parametrize(
    ("field", "value", "nearest"),
    [
        ("arm", "coi123x", "coi123"),
        ("optimizer.name", "adamW", "adamw"),
        ("optimizer.schedule", "linaer", "linear"),
        ("evaluation.tests", "('proc2_tset',)", "proc2_test"),
    ],
)
def test_the_command_refuses_an_unknown_name(
    field: str, value: str, nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [f"--config={QUICKSTART}", f"--config.{field}={value}"]
    assert cli.run(lambda: config_command.main(command)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"did you mean '{nearest}'?" in printed.err


def test_zeros_of_older_configs_are_read_as_none(tmp_path: Path) -> None:
    config = load_config(paths.CONFIGS / "mistral_7b.py", {"model.window": "None"})
    values = config.model_dump(mode="json")
    for name in ("window", "global_layer_interval", "attention_softcap", "logits_softcap"):
        assert values["model"][name] is None
        values["model"][name] = 0
    assert values["model"]["rope"]["local_theta"] is None
    values["model"]["rope"]["local_theta"] = 0.0
    files.write_json(tmp_path / "config.json", values)
    assert load_config(tmp_path / "config.json", {}) == config
    assert load_config(paths.CONFIGS / "mistral_7b.py", {"model.window": "0"}) == config
    with pytest.raises(UserError, match=r"config\.model\.window"):
        load_config(paths.CONFIGS / "mistral_7b.py", {"model.window": "-1"})


@pytest.mark.parametrize("text", ["", '{"arm": ', "[]"])
def test_a_damaged_config_of_a_run_is_to_be_restored(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"^workdir: .*restore the file, or train into another --workdir$") as caught:
        read_run_config(tmp_path / "config.json", "workdir")
    assert "write it again" not in str(caught.value)


@pytest.mark.parametrize("path", ["build/procedural.py", "judge/pairwise.py"])
def test_the_config_of_another_command_is_told(path: str) -> None:
    with pytest.raises(UserError, match="of a build or of a judge, not of a run"):
        load_config(paths.CONFIGS / path, {})


def test_an_error_of_several_lines_is_told_in_one(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("def get_config():\n    raise RuntimeError('one\\n  two')\n")
    with pytest.raises(UserError, match=r"RuntimeError: one two \(line 2 of config.py\)$"):
        load_config(tmp_path / "config.py", {})


def test_a_number_does_not_become_that_of_another_unit() -> None:
    with pytest.raises(UserError, match=r"config\.train\.length\.count: missing"):
        load_config(QUICKSTART, {"train.length": "epochs"})
    length = load_config(QUICKSTART, {"train.length.count": "2", "train.length": "epochs"}).train.length
    assert (length.unit, length.count) == ("epochs", 2.0)
    assert load_config(QUICKSTART, {"train.length": "steps"}) == load_config(QUICKSTART, {})


@pytest.mark.parametrize("name", ["wandb_project", "mlflow_experiment", "group"])
def test_names_of_services_are_not_empty(name: str) -> None:
    with pytest.raises(UserError, match=rf"config\.logging\.{name}: '': "):
        load_config(QUICKSTART, {f"logging.{name}": ""})
