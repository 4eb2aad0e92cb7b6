"""The commands of `coi_jax` on folders in a bucket, as they are used on Cloud TPU."""

import json
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from coi_jax import evaluate, generate, report, tables, train
from coi_jax.common import cli, files, storage
from coi_jax.common.errors import UserError
from coi_jax.config import __main__ as config_command
from coi_jax.config.run import RunConfig, load_config
from coi_jax.runs import checkpoint, checkpoint_steps
from coi_jax.runs.metrics_rows import read_metrics
from coi_jax.training import termination
from tests.helpers import tiny_models
from tests.helpers.paths import QUICKSTART
from tests.helpers.token_caches import write_caches
from tests.helpers.trained_runs import TESTS, make_run, write_tests


@pytest.fixture(autouse=True)
def nothing_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test in an empty folder, with an empty cache of the user's."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(main: Any, *arguments: str) -> int:
    return cli.run(lambda: main(list(arguments)))


def test_a_run_is_evaluated_asked_and_tabled(bucket: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = make_run(epath.Path(bucket))
    workdir = str(made.path)
    assert workdir == f"{bucket}/run"
    assert run(evaluate.main, "--workdir", workdir) == 0
    folder = made.path / "eval" / TESTS[0]
    assert len(list(files.read_jsonl(folder / "predictions.jsonl"))) == 9
    before = files.read_json(folder / "results.json")
    assert before["provenance"]["run"] == workdir
    assert run(evaluate.main, "--workdir", workdir) == 0
    assert files.read_json(folder / "results.json") == before
    capsys.readouterr()
    assert run(generate.main, "--workdir", workdir, "--instruction", "Sort.", "--input", "b a", "--json") == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == before["provenance"]["checkpoint"]
    assert run(tables.main, "--runs", bucket, "--table", "4", "--figure", "6", "--out", f"{bucket}/report") == 0
    cells = files.read_json(f"{bucket}/report/table4.json")["cells"]
    assert workdir in {source["run"] for cell in cells for source in cell["sources"]}
    assert {"figure6.png", "table4.md"} <= set(storage.list_files(f"{bucket}/report"))
    assert run(report.main, "--runs", bucket, "--out", f"{bucket}/page.html") == 0
    data = json.loads(files.read_text(f"{bucket}/page.html").split('id="data">')[1].split("</script>")[0])
    assert len(data["answers"][0][TESTS[0]]) == 9
    assert not list((tmp_path / "here").iterdir())


def test_a_run_is_trained_and_continued(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fields: dict[str, Any] = {f"model.{name}": value for name, value in tiny_models.DECODER.items()} | {
        "model.layers": 1,
        "arm": "coi12",
        "data.folder": f"{bucket}/data",
        "data.cache_folder": f"{bucket}/caches",
        "data.length": 256,
        "data.batch.rows": 8,
        "vocabulary.kind": "bytes",
        "train.length.count": 4,
        "train.log_every": 1,
        "train.checkpoint_every": 100,
        "mesh.fsdp": 1,
        "mesh.replica": 8,
    }
    write_tests(epath.Path(f"{bucket}/data"), 9)
    write_caches(load_config(QUICKSTART, fields))
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    command = ["--config", str(QUICKSTART), "--workdir", f"{bucket}/run", *flags]
    monkeypatch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)
    with monkeypatch.context() as stopped:
        stopped.setattr(termination.Termination, "requested", lambda self, step: step == 2)
        assert run(train.main, *command) == 0
    assert checkpoint_steps.steps(f"{bucket}/run/checkpoints") == [2]
    assert run(train.main, *command) == 0
    assert max(checkpoint_steps.steps(f"{bucket}/run/checkpoints")) == 4
    assert [row["step"] for row in read_metrics(f"{bucket}/run/metrics.jsonl")] == [1, 2, 3, 4]
    assert len(storage.list_files(f"{bucket}/run/tensorboard")) == 2
    assert not list((tmp_path / "here").iterdir())
    assert len(list((tmp_path / "cache" / "coi_jax" / "token_caches").iterdir())) == 2


def test_an_unfinished_checkpoint_does_not_count(bucket: str) -> None:
    made = make_run(epath.Path(bucket))
    assert checkpoint_steps.steps(made.checkpoints) == [3]
    files.write_text(made.checkpoints / "5" / "params" / "d" / "half", "half")
    assert checkpoint_steps.steps(made.checkpoints) == [3]
    assert checkpoint.latest_step(made.checkpoints) == 3


def test_tables_replace_their_own_files_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_text(tmp_path / "report" / "table4.md", "# My thesis")
    with pytest.raises(UserError, match=r"table4\.md: was not written by this command; name another folder"):
        tables.check_replaceable(tmp_path / "report")
    files.write_json(tmp_path / "other" / "table4.json", {"mine": 1})
    with pytest.raises(UserError, match=r"table4\.json: was not written by this command"):
        tables.check_replaceable(tmp_path / "other")
    files.write_json(tmp_path / "ours" / "table4.json", {"cells": []})
    files.write_text(tmp_path / "ours" / "table4.md", "# Table 4")
    tables.check_replaceable(tmp_path / "ours")


def test_a_config_file_may_be_in_a_bucket(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_bytes(f"{bucket}/configs/quickstart.py", QUICKSTART.read_bytes())
    assert load_config(f"{bucket}/configs/quickstart.py", {}) == load_config(QUICKSTART, {})
    with pytest.raises(UserError, match=rf"config: {bucket}/none\.py: no such file"):
        load_config(f"{bucket}/none.py", {})
    assert run(config_command.main, "--config", f"{bucket}/configs/quickstart.py") == 0
    assert RunConfig.model_validate_json(capsys.readouterr().out) == load_config(QUICKSTART, {})
