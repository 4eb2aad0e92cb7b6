"""Services that get a run's metrics besides its own files: Weights & Biases and MLflow, where the config names them.

A run has an id of its own (tracking.json), by which a service continues it after a restart. The rows of metrics.jsonl
are then offered again, and those that the service has already are left out.
"""

import importlib.util
import os
import secrets
import socket
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pydantic
from etils import epath

from coi_jax.common import child_processes, files, storage
from coi_jax.common.errors import UserError, without_password
from coi_jax.common.schema import flatten
from coi_jax.config.run import LoggingConfig, RunConfig

TRACKING = "tracking.json"  # in the run folder
PACKAGES = {"wandb_project": "wandb", "mlflow_experiment": "mlflow"}  # their extras have the same names
WANDB_OFFLINE = ("offline", "dryrun", "disabled")  # modes that ask no server
MLFLOW_RETRIES = "3"  # of a request: after 12 seconds an error, where MLflow's own default takes minutes
MLFLOW_URI = "MLFLOW_TRACKING_URI"
MLFLOW_BATCH = 100  # values in a request: MLflow takes so many parameters, and ten times as many metrics
CONNECT_SECONDS = 5.0
PORTS = {"http": 80, "https": 443}


@runtime_checkable
class Tracker(Protocol):
    """A service that gets the metrics of a run."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers of a step that it does not have yet; never waits for a network."""
        ...

    def close(self, *, failed: bool) -> None:
        """Send what is left, and say how this launch of the run ended."""
        ...


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told about a run.

    Attributes:
      id: stays the same over all launches.
      name: of the run folder.
      group: of the sweep.
      folder: the run folder.
      config: all fields.
    """

    id: str
    name: str
    group: str
    folder: epath.Path
    config: dict[str, Any]


def check_installed(config: LoggingConfig) -> None:
    """Raise UserError where the package of a tracker is not installed."""
    for field, package in PACKAGES.items():
        value = getattr(config, field)
        if value is not None and importlib.util.find_spec(package) is None:
            hint = f"needs a package that is not installed: pip install 'coi-jax[{package}]'"
            raise UserError(f"config.logging.{field}", value, hint)


def open_trackers(folder: epath.Path, config: RunConfig) -> list[Tracker]:
    """Return the trackers that a run's config names, each with the run that it has of this folder, or a new one.

    Raises:
      UserError: a service cannot be reached, or refuses the run.
    """
    settings = config.logging
    trackers: list[Tracker] = []
    if settings.wandb_project is None and settings.mlflow_experiment is None:
        return trackers
    check_installed(settings)
    path = storage.absolute(folder)
    group = settings.group or path.parent.name
    run = TrackedRun(_run_id(path), path.name, group, path, config.model_dump(mode="json"))
    if settings.wandb_project is not None:
        trackers.append(WandbTracker(run, settings.wandb_project))
    if settings.mlflow_experiment is not None:
        trackers.append(MlflowTracker(run, settings.mlflow_experiment))
    return trackers


def check_reachable(address: str) -> None:
    """Raise OSError or ValueError where no server listens at a URL: the services ask again for minutes.

    Nothing is known of what is asked through a proxy, or of another kind of address.
    """
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in PORTS or not parts.hostname:
        return
    if {parts.scheme, "all"} & set(urllib.request.getproxies()) and not urllib.request.proxy_bypass(parts.hostname):
        return
    socket.create_connection((parts.hostname, parts.port or PORTS[parts.scheme]), CONNECT_SECONDS).close()


def _run_id(folder: epath.Path) -> str:
    path = folder / TRACKING
    if not path.exists():
        files.write_json(path, {"id": secrets.token_hex(6)}, "workdir")
    return files.read_value(path, ("id",), str, "tracking")


class WandbTracker:
    """Logs to a run of Weights & Biases, which queues rows on disk and sends them from a process of its own.

    W&B has each step once: it takes rows from the first step that it does not have. With WANDB_MODE=offline every
    launch writes a folder that holds all rows of the run so far.
    """

    def __init__(self, run: TrackedRun, project: str) -> None:
        """Begin or continue a run; raise UserError where W&B refuses that."""
        import wandb  # seconds to import

        settings = wandb.Settings(console="off", quiet=True, save_code=False, disable_git=True)
        self._check_settings(project, settings)
        try:
            self._run = wandb.init(
                project=project,
                group=run.group,
                name=run.name,
                id=run.id,
                resume="allow",
                config=run.config,
                allow_val_change=True,
                dir=os.fspath(run.folder) if storage.is_local(run.folder) else None,
                settings=settings,
            )
        except wandb.errors.Error as error:
            hint = f"{_first_line(error)}; log in with `wandb login`, or set WANDB_MODE=offline"
            raise UserError("config.logging.wandb_project", project, hint) from None

    def _check_settings(self, project: str, own: Any) -> None:
        """Raise UserError where W&B's variables say what it cannot take, or its server cannot be reached."""
        import wandb

        try:
            settings = wandb.setup(own).settings
        except pydantic.ValidationError as error:
            fault = error.errors()[0]
            variable = f"WANDB_{'_'.join(map(str, fault['loc'])).upper()}"
            is_secret = not child_processes.without_secrets({variable: ""})
            value = "set" if is_secret else without_password(str(fault["input"]))
            raise UserError(variable, value, f"{fault['msg']}; correct or unset it") from None
        if settings.mode in WANDB_OFFLINE:
            return
        try:
            check_reachable(settings.base_url)
        except (OSError, ValueError) as error:
            address = without_password(settings.base_url)
            hint = f"{address} cannot be reached ({error}); correct WANDB_BASE_URL, or set WANDB_MODE=offline"
            raise UserError("config.logging.wandb_project", project, hint) from None

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers of a step, unless W&B has later ones."""
        if step >= self._run.step:
            self._run.log(dict(numbers), step=step)

    def close(self, *, failed: bool) -> None:
        """Wait until all is sent, or in offline mode written."""
        self._run.finish(exit_code=int(failed))


class MlflowTracker:
    """Logs to a run of MLflow from a thread, so that training does not wait; a request that fails is made again.

    The server is what MLFLOW_TRACKING_URI says. A metric of a step is logged once.
    """

    def __init__(self, run: TrackedRun, experiment: str) -> None:
        """Begin or continue a run; raise UserError where the server cannot be reached or refuses that."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", MLFLOW_RETRIES)
        from mlflow import MlflowClient  # seconds to import
        from mlflow.exceptions import MlflowException

        self._error, self._has_warned = MlflowException, False
        self._pending: list[tuple[str, float, int, int]] = []  # name, value, milliseconds, step
        self._thread = ThreadPoolExecutor(1)
        self._sending: Future[None] = self._thread.submit(lambda: None)
        try:
            self._client = MlflowClient()
            check_reachable(self._client.tracking_uri)
            self._id = self._find(run, experiment) or self._create(run, experiment)
            self._client.update_run(self._id, status="RUNNING")
            self._last_steps = {name: self._last_step(name) for name in self._client.get_run(self._id).data.metrics}
        except (MlflowException, OSError, ValueError) as error:
            raise UserError("config.logging.mlflow_experiment", experiment, _mlflow_hint(error)) from None

    def _find(self, run: TrackedRun, experiment: str) -> str | None:
        found = self._client.get_experiment_by_name(experiment)
        if found is None:
            return None
        runs = self._client.search_runs([found.experiment_id], f"tags.run_folder_id = '{run.id}'", max_results=1)
        return str(runs[0].info.run_id) if runs else None

    def _create(self, run: TrackedRun, experiment: str) -> str:
        from mlflow.entities import Param

        found = self._client.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else self._client.create_experiment(experiment)
        tags = {"run_folder_id": run.id, "group": run.group, "run_folder": os.fspath(run.folder)}
        created = str(self._client.create_run(experiment_id, run_name=run.name, tags=tags).info.run_id)
        fields = [Param(name, str(value)) for name, value in flatten(run.config).items()]
        for start in range(0, len(fields), MLFLOW_BATCH):
            self._client.log_batch(created, params=fields[start : start + MLFLOW_BATCH])
        return created

    def _last_step(self, name: str) -> int:
        return max(int(metric.step) for metric in self._client.get_metric_history(self._id, name))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hand the numbers of a step that MLflow does not have to the thread that sends them."""
        now = time.time_ns() // 10**6
        new = [(name, value) for name, value in numbers.items() if step > self._last_steps.get(name, 0)]
        self._pending += [(name, value, now, step) for name, value in new]
        if self._sending.done():
            self._sending = self._thread.submit(self._send)

    def _send(self) -> None:
        """Send what is pending; what the server does not take stays so, and is said once."""
        from mlflow.entities import Metric

        try:
            while batch := self._pending[:MLFLOW_BATCH]:
                self._client.log_batch(self._id, metrics=[Metric(*entry) for entry in batch])
                del self._pending[: len(batch)]
        except self._error as error:
            if not self._has_warned:
                print(f"warning: MLflow takes no metrics for now: {_first_line(error)}", file=sys.stderr, flush=True)
            self._has_warned = True

    def close(self, *, failed: bool) -> None:
        """Send what is left; where that fails too, say so: metrics.jsonl has all rows."""
        self._thread.submit(self._send).result()
        self._thread.shutdown()
        try:
            self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")
        except self._error as error:
            print(f"warning: MLflow was not told the end: {_first_line(error)}", file=sys.stderr, flush=True)
        if self._pending:
            print(f"warning: MLflow lacks the last {len(self._pending)} values; metrics.jsonl has all", file=sys.stderr)


def _mlflow_hint(error: Exception) -> str:
    """Return what is wrong with MLflow's server, and how to name another."""
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

    named = without_password(os.environ.get(MLFLOW_URI, ""))
    if not named:
        reason = f"{MLFLOW_URI} is not set"
    elif isinstance(error, UnsupportedModelRegistryStoreURIException):
        reason = f"{MLFLOW_URI}={named} is of no kind that this MLflow can log to"
    else:
        reason = f"{MLFLOW_URI}={named} cannot be used ({_first_line(error)})"
    return f"{reason}; set it to the address of your tracking server, as http://HOST:5000"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")
