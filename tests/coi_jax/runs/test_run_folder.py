import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from coi_jax.chains.chain import Chain, Step
from coi_jax.chains.dataset import DatasetWriter
from coi_jax.common.errors import UserError
from coi_jax.runs.run_folder import RunFolder, git_commit, keep_vocabulary, open_run, write_environment
from tests.helpers.tiny_models import run_config
from tests.helpers.tokenizer_folders import FAMILIES


def test_the_config_is_kept_whole_and_read_back(tmp_path: Path) -> None:
    config = run_config()
    run = open_run(tmp_path / "new" / "run", config)
    assert run.load_config() == config
    assert set(json.loads(run.config.read_text())) - {"sha256"} == set(config.model_dump())
    assert open_run(run.path, config) == run


def begin(path: Path) -> None:
    (open_run(path, run_config()).checkpoints / "1").mkdir(parents=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"optimizer__options__b2": 0.5}, r"config\.optimizer\.options\.b2: 0\.5: the run in .* has 0\.98"),
        ({"arm": "coi1"}, r"config\.arm: coi1: the run in .* has 'coi123'"),
        ({"seed": 4, "train__length__count": 7}, r"config\.seed: 4: .* has 0"),
        ({"train__length__count": 7}, r"config\.train\.length\.count: 7: .* has 10"),
        ({"train__length": {"unit": "epochs", "count": 99.0}}, r"config\.train\.length\.unit: epochs: .* has 'steps'"),
        ({"train__microbatches": 2}, r"config\.train\.microbatches: 2: .* has 1"),
    ],
)
def test_the_first_field_that_differs_is_named_with_both_values(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    begin(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match=says):
        open_run(tmp_path, run_config(**changes))
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_run_that_never_got_its_data_takes_a_mended_config(tmp_path: Path) -> None:
    open_run(tmp_path, run_config())
    assert open_run(tmp_path, run_config(arm="coi1")).load_config().arm == "coi1"


def test_a_run_that_saved_nothing_takes_another_config_and_no_copy_of_the_first(tmp_path: Path) -> None:
    """As one that ran out of memory in its first step, after it copied its vocabulary."""
    run = open_run(tmp_path, run_config())
    for file in (run.environment, run.vocabulary, run.tokenizer / "tokenizer.json", run.published / "config.json"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    assert open_run(tmp_path, run_config()).vocabulary.exists()
    assert open_run(tmp_path, run_config(arm="coi1")).kept_vocabulary is None
    assert not run.environment.exists()
    assert not run.published.exists()


def test_an_unknown_arm_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.arm: coi_12: unknown; did you mean 'coi12'"):
        open_run(tmp_path / "run", run_config(arm="coi_12"))
    assert not (tmp_path / "run").exists()


def test_another_kind_of_model_differs_too(tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(UserError, match=r"config\.data\.targets_length"):
        open_run(tmp_path, run_config("t5"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train.length.count", 12),
        ("train.log_every", 5),
        ("model.scan_unroll", 2),
        ("model.remat", "full"),
        ("train.checkpoint_every", 50),
        ("train.checkpoint_minutes", 1.5),
        ("train.preemption_hours", 2.5),
        ("train.keep_checkpoints", 5),
        ("evaluation.max_new_tokens", 50),
        ("evaluation.batch", 7),
        ("data.cache_folder", "elsewhere"),
        ("logging.wandb_project", "chains"),
    ],
)
def test_fields_that_change_no_step_taken_may_change_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: object
) -> None:
    begin(tmp_path)
    changes: dict[str, Any] = {field: value}
    new = run_config(**changes)
    assert open_run(tmp_path, new).load_config() == new
    assert f"config.{field}: {value!r} from here on, it was " in capsys.readouterr().err


def test_the_mesh_may_change(tmp_path: Path) -> None:
    open_run(tmp_path, run_config())
    assert open_run(tmp_path, run_config(mesh__fsdp=2)).load_config().mesh.fsdp == 2


@pytest.mark.parametrize("text", ["", '{"arm": "co', "[]", '{"arm": "coi1"}'])
def test_a_damaged_config_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError):
        open_run(tmp_path, run_config())


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(UserError, match=r"holds files but no config\.json"):
        open_run(tmp_path, run_config())
    with pytest.raises(UserError, match="is a file"):
        open_run(tmp_path / "thesis.tex", run_config())


def test_the_environment_says_versions_devices_and_data_but_no_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "do-not-tell")
    with DatasetWriter(tmp_path / "data", "a test") as writer:
        writer.add("train", Chain("1", "test", "x", "say it", (Step("say it", "x"),)))
        writer.finish("none", {})
    config = run_config(data__folder=str(tmp_path / "data"))
    run = open_run(tmp_path / "run", config)
    write_environment(run, config, {"caches": ["abc"]}, {"trained": 3, "total": 10})
    text = run.environment.read_text()
    values = json.loads(text)
    assert "do-not-tell" not in text
    assert values["devices"] == {"platform": "cpu", "kind": "cpu", "count": 8}
    assert values["packages"]["jax"].count(".") == 2
    assert values["data"]["caches"] == ["abc"]
    assert values["parameters"] == {"trained": 3, "total": 10}
    assert len(values["data"]["sha256"]) == 64


def test_no_commit_outside_a_repository(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None


def test_a_vocabulary_file_stays_with_the_run(tmp_path: Path) -> None:
    source = tmp_path / "some.model"
    source.write_bytes(b"pieces")
    config = run_config(vocabulary__kind="sentencepiece", vocabulary__file=str(source))
    run = RunFolder(tmp_path / "run")
    keep_vocabulary(run, config)
    source.unlink()
    keep_vocabulary(run, config)
    assert run.vocabulary.read_bytes() == b"pieces"
    assert run.kept_vocabulary == run.vocabulary
    keep_vocabulary(RunFolder(tmp_path / "other"), run_config())
    assert not (tmp_path / "other").exists()


def test_a_tokenizers_files_stay_with_the_run(tmp_path: Path) -> None:
    source = tmp_path / "model"
    FAMILIES["llama3"](source)
    (source / "model.safetensors").write_bytes(b"weights")
    config = run_config(vocabulary__kind="tokenizer", vocabulary__folder=str(source), data__template="chat")
    run = open_run(tmp_path / "run", config)
    before = run.load_vocabulary()
    assert run.kept_vocabulary is None
    keep_vocabulary(run, config)
    shutil.rmtree(source)
    keep_vocabulary(run, config)
    assert run.kept_vocabulary == run.tokenizer
    assert {path.name for path in run.path.iterdir()} == {"config.json", "tokenizer"}
    assert "model.safetensors" not in {path.name for path in run.tokenizer.iterdir()}
    after = run.load_vocabulary()
    assert (after.fingerprint, after.stop_ids, after.bos_id) == (before.fingerprint, before.stop_ids, before.bos_id)
