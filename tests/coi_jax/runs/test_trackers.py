"""Trackers log to the real packages: MLflow's store in a folder, W&B in offline mode."""

import json
import multiprocessing
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from etils import epath
from mlflow import MlflowClient
from mlflow.entities import Run
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal.datastore import DataStore

from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.runs.metrics_log import MetricsLog
from coi_jax.runs.metrics_rows import read_metrics
from coi_jax.runs.trackers import check_installed, check_reachable, open_trackers
from coi_jax.training import loop, trainer
from tests.helpers import tiny_models
from tests.helpers.tiny_models import StandInLoader, run_config


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    variables |= {"MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    for name, value in (variables | {"MLFLOW_DISABLE_TELEMETRY": "true"}).items():
        monkeypatch.setenv(name, value)


def launch(folder: Path, config: RunConfig, start: int, steps: Iterable[int]) -> MetricsLog:
    """Log steps of a run as a launch does that goes on after `start`; it is not closed, as where it is killed."""
    trackers = open_trackers(epath.Path(folder), config)
    log = MetricsLog(folder / "metrics.jsonl", folder / "tensorboard", start=start, trackers=trackers)
    for step in steps:
        log.write(step, {"loss": 1 / step})
    return log


def _launch(folder: Path, config: RunConfig, start: int, steps: Iterable[int], failed: bool) -> None:
    launch(folder, config, start, steps).close(failed=failed)


def launch_alone(folder: Path, config: RunConfig, start: int, steps: range, *, failed: bool) -> None:
    """Launch in a process of its own: W&B's service may still write of one launch when the same process has another."""
    process = multiprocessing.get_context("spawn").Process(target=_launch, args=(folder, config, start, steps, failed))
    process.start()
    process.join()
    assert process.exitcode == 0


def mlflow_runs(experiment: str = "chains") -> list[Run]:
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id]))


def mlflow_losses(run: Run) -> list[tuple[int, float]]:
    history = MlflowClient().get_metric_history(run.info.run_id, "loss")
    return [(metric.step, metric.value) for metric in history]


def wandb_records(folder: Path) -> Iterator[wandb_internal_pb2.Record]:
    """The records of an offline run."""
    (path,) = folder.glob("run-*.wandb")
    store = DataStore()
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        yield record


def wandb_losses(records: Iterable[wandb_internal_pb2.Record]) -> list[tuple[int, float]]:
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    return [(row["_step"], row["loss"]) for row in rows]


def test_mlflow_has_each_step_once_after_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "coi12"
    config = run_config(logging__mlflow_experiment="chains")
    launch(folder, config, 0, range(1, 7))._trackers[0].close(failed=True)
    assert mlflow_runs()[0].info.status == "FAILED"
    launch(folder, config, 4, range(5, 9)).close()
    (run,) = mlflow_runs()
    assert mlflow_losses(run) == [(step, 1 / step) for step in range(1, 9)]
    assert (run.info.run_name, run.info.status, run.data.tags["group"]) == ("coi12", "FINISHED", "sweep")
    assert run.data.params["optimizer.learning_rate"] == str(config.optimizer.learning_rate)


def test_mlflow_gets_what_it_did_not_take_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = run_config(logging__mlflow_experiment="chains", logging__group="mine")
    log = launch(tmp_path / "run", config, 0, [])
    (store,) = [path.parent for path in (tmp_path / "mlruns").rglob("meta.yaml") if path.parent.parent.name.isdigit()]
    store.rename(tmp_path / "away")
    for step in range(1, 4):
        log.write(step, {"loss": 1 / step})
        log._trackers[0]._sending.result()  # type: ignore[attr-defined]
    assert capsys.readouterr().err.count("MLflow takes no metrics for now") == 1
    (tmp_path / "away").rename(store)
    log.close()
    (run,) = mlflow_runs()
    assert mlflow_losses(run) == [(step, 1 / step) for step in range(1, 4)]
    assert run.data.tags["group"] == "mine"


def test_a_tracker_that_is_named_later_gets_the_rows_before(tmp_path: Path) -> None:
    launch(tmp_path, run_config(), 0, range(1, 4)).close()
    launch(tmp_path, run_config(logging__mlflow_experiment="chains"), 3, [4]).close()
    assert [step for step, _ in mlflow_losses(mlflow_runs()[0])] == [1, 2, 3, 4]


def test_each_offline_run_of_wandb_has_all_rows_under_one_id(tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "coi12"
    config = run_config(logging__wandb_project="chains")
    launch_alone(folder, config, 0, range(1, 7), failed=True)
    (first,) = (folder / "wandb").glob("offline-run-*")
    first = first.rename(tmp_path / "first")  # their names differ by the second
    launch_alone(folder, config, 4, range(5, 9), failed=False)
    (second,) = (folder / "wandb").glob("offline-run-*")
    runs = []
    for found, count in ((first, 6), (second, 8)):
        records = list(wandb_records(found))
        assert wandb_losses(records) == [(step, 1 / step) for step in range(1, count + 1)]
        runs += [record.run for record in records if record.HasField("run")][:1]
    assert len({run.run_id for run in runs}) == 1
    assert (runs[0].project, runs[0].run_group, runs[0].display_name) == ("chains", "sweep", "coi12")


def test_training_logs_to_mlflow_what_it_logs_to_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)

    def prepare(config: RunConfig, run: Any) -> Any:
        loader = StandInLoader(tiny_models.steps_of(config))
        return loop.make_job(config, run, tiny_models.mesh(), loader, tiny_models.network())

    monkeypatch.setattr(trainer, "prepare", prepare)
    trainer.train(run_config(train__length__count=3, logging__mlflow_experiment="chains"), tmp_path / "run")
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert mlflow_losses(mlflow_runs()[0]) == [(row["step"], row["loss"]) for row in rows]
    assert len(rows) == 3


@pytest.mark.parametrize(("field", "package"), [("wandb_project", "wandb"), ("mlflow_experiment", "mlflow")])
def test_an_absent_package_is_one_line(monkeypatch: pytest.MonkeyPatch, field: str, package: str) -> None:
    changes: dict[str, Any] = {f"logging__{field}": "chains"}
    config = run_config(**changes)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"config\.logging\.{field}: chains: .*pip install 'coi-jax\[{package}\]'"):
        check_installed(config.logging)


def test_a_server_that_does_not_answer_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    message = r"config\.logging\.mlflow_experiment: chains: MLFLOW_TRACKING_URI=http://127.0.0.1:9 cannot be used "
    with pytest.raises(UserError, match=message + r"\(\[Errno 111\] Connection refused\); set it to the address"):
        open_trackers(epath.Path(tmp_path), run_config(logging__mlflow_experiment="chains"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (None, "chains: MLFLOW_TRACKING_URI is not set; set it to the address of your tracking server, as http://HOST"),
        ("zzz://x", "chains: MLFLOW_TRACKING_URI=zzz://x is of no kind that this MLflow can log to; set it to the"),
        ("http://x:port", "MLFLOW_TRACKING_URI=http://x:port cannot be used "),
    ],
)
def test_an_address_that_mlflow_cannot_take_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, message: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    if address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(UserError, match=message):
        open_trackers(epath.Path(tmp_path), run_config(logging__mlflow_experiment="chains"))


@pytest.fixture
def fresh_wandb() -> Iterator[None]:
    """W&B reads the environment once in a process."""
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("fresh_wandb")
@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "WANDB_BASE_URL",
            "http://127.0.0.1:9",
            r"chains: http://127.0.0.1:9 cannot be reached \(.*Conn",
        ),
        ("WANDB_BASE_URL", "zzz", "WANDB_BASE_URL: zzz: Input should be a valid URL"),
        ("WANDB_BASE_URL", "http://me:hidden@127.0.0.1:9", r"chains: http://127.0.0.1:9 cannot be reached"),
        ("WANDB_BASE_URL", "http://me:hidden@host:99999999", "WANDB_BASE_URL: http://host:99999999: Input should"),
        ("WANDB_INIT_TIMEOUT", "soon", "WANDB_INIT_TIMEOUT: soon: Input should be a valid number"),
    ],
)
def test_wandb_that_cannot_be_asked_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    message: str,
) -> None:
    """At once: W&B itself asks an address that refuses for a minute and a half."""
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=message) as told:
        open_trackers(epath.Path(tmp_path), run_config(logging__wandb_project="chains"))
    assert "hidden" not in str(told.value)
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_without_a_login_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(UserError, match=r"config\.logging\.wandb_project: chains: .*WANDB_MODE=offline"):
            open_trackers(epath.Path(tmp_path), run_config(logging__wandb_project="chains"))


def test_a_server_behind_a_proxy_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "localhost")
    check_reachable("http://127.0.0.1:9")
    with pytest.raises(OSError, match="refused"):
        check_reachable("http://localhost:9")
