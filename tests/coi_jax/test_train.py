import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from coi_jax import train
from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.common.folder_lock import LOCK, folder_lock
from coi_jax.config.run import RunConfig
from coi_jax.parallel import processes
from coi_jax.runs import checkpoint, checkpoint_steps
from coi_jax.runs.checkpoint import Checkpoints
from coi_jax.runs.metrics_rows import read_metrics
from coi_jax.runs.run_folder import RunFolder
from coi_jax.training import trainer
from coi_jax.training.loop import TrainingJob, make_job
from tests.helpers import tiny_models
from tests.helpers.paths import ROOT


def arguments(workdir: Path, steps: int = 3, **overrides: object) -> list[str]:
    """The command line of a tiny run; the stand-in loader asks for no data."""
    fields: dict[str, Any] = {f"model.{name}": value for name, value in tiny_models.DECODER.items()}
    fields |= {
        "vocabulary.kind": "bytes",
        "data.batch.rows": 8,
        "data.length": tiny_models.LENGTH,
        "train.length.count": steps,
        "train.log_every": 1,
        "train.checkpoint_every": 5,
        "mesh.replica": 1,
    }
    fields |= {name.replace("__", "."): value for name, value in overrides.items()}
    return [
        "--config",
        "configs/quickstart.py",
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `train.main` run in this process, on stand-in batches."""

    def prepare(config: RunConfig, run: RunFolder) -> TrainingJob:
        return make_job(
            config,
            run,
            tiny_models.mesh(),
            tiny_models.StandInLoader(tiny_models.steps_of(config)),
            tiny_models.network(),
        )

    monkeypatch.setattr(trainer, "prepare", prepare)
    monkeypatch.setattr(processes, "start_jax", lambda **_: None)
    monkeypatch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)


@pytest.mark.usefixtures("here")
def test_a_run_ends_with_where_it_is_and_what_is_next_and_is_not_run_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(arguments(tmp_path)) == 0
    said = capsys.readouterr().out
    assert said.startswith("trained 3 steps to a loss of ")
    assert f"in {tmp_path}; next: python -m coi_jax.evaluate --workdir {tmp_path} --tasks proc1_test," in said
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "checkpoints", "metrics.jsonl", "tensorboard"}
    before = files.sha256(tmp_path / "metrics.jsonl")
    assert train.main(arguments(tmp_path)) == 0
    assert "is finished already" in capsys.readouterr().out
    assert files.sha256(tmp_path / "metrics.jsonl") == before


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 0)])
def test_a_signal_saves_and_the_same_command_goes_on(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    status: int,
) -> None:
    iterate = tiny_models.StandInLoader.iterate

    def interrupt_at_three(self: tiny_models.StandInLoader, *arguments: Any) -> Iterator[dict[str, jax.Array]]:
        for step, batch in enumerate(iterate(self, *arguments), 1):
            if step == 3:
                os.kill(os.getpid(), number)
            yield batch

    monkeypatch.setattr(tiny_models.StandInLoader, "iterate", interrupt_at_three)
    assert cli.run(lambda: train.main(arguments(tmp_path, steps=5))) == status
    assert "stopped and saved at step 3 of 5" in capsys.readouterr().out
    assert checkpoint_steps.steps(tmp_path / "checkpoints") == [3]
    monkeypatch.setattr(tiny_models.StandInLoader, "iterate", iterate)
    assert train.main(arguments(tmp_path, steps=5)) == 0
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--config.evaluation.tests=('proc2_tests',)", "did you mean 'proc2_test'"),
        ("--config.arm=coi21", "did you mean 'coi2'"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_misspelt_name_is_said_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    assert cli.run(lambda: train.main([*arguments(tmp_path / "run"), change])) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("here")
def test_a_finished_run_goes_on_where_more_steps_are_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(arguments(tmp_path)) == 0
    assert train.main(arguments(tmp_path, steps=5, train__keep_checkpoints=4)) == 0
    said = capsys.readouterr()
    assert "config.train.length.count: 5 from here on, it was 3" in said.err
    assert "trained 5 steps" in said.out
    assert RunFolder(tmp_path).load_config().train.length.count == 5
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert train.main(arguments(tmp_path, steps=5)) == 0
    assert "is finished already" in capsys.readouterr().out
    assert cli.run(lambda: train.main(arguments(tmp_path, steps=4))) == 2


@pytest.mark.usefixtures("here")
def test_one_process_trains_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with folder_lock(tmp_path / "run", "workdir"):
        assert cli.run(lambda: train.main(arguments(tmp_path / "run"))) == 2
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
    error = capsys.readouterr().err
    assert error.startswith(f"error: workdir: {tmp_path}/run: is in use by process {os.getpid()} since ")
    assert error.count("\n") == 1
    assert train.main(arguments(tmp_path / "run")) == 0


@pytest.mark.usefixtures("here")
def test_a_full_disk_is_one_line_and_the_run_goes_on_from_the_checkpoint_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def full(self: Checkpoints, state: object, step: int, position: object) -> None:
        if step == 10:
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))
        save(self, state, step, position)  # type: ignore[arg-type]

    monkeypatch.setattr(Checkpoints, "save", full)
    assert cli.run(lambda: train.main(arguments(tmp_path, steps=10))) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {tmp_path}: No space left on device; make room")
    assert checkpoint_steps.steps(tmp_path / "checkpoints") == [5]
    monkeypatch.setattr(Checkpoints, "save", save)
    assert train.main(arguments(tmp_path, steps=10)) == 0
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 11))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--config.optimizer.learning_rat=1"], "did you mean 'optimizer.learning_rate'?"),
        (["--config.train.length.count=-1"], "error: config.train.length.count: -1"),
        (["--config.mesh.fsdp=3"], "error: config.mesh: "),
        (["--config=nowhere.py"], "error: config: nowhere.py: no such file"),
        (["--config.arm=cot"], "is prompted, not tuned"),
        (["--workdir=README.md"], "error: workdir: README.md: is a file"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, change: list[str], says: str
) -> None:
    monkeypatch.setattr(processes, "start_jax", lambda **_: None)
    (tmp_path / "README.md").write_text("a file")
    change = [item.replace("README.md", str(tmp_path / "README.md")) for item in change]
    says = says.replace("README.md", str(tmp_path / "README.md"))
    name, _, value = change[0].partition("=")
    given = arguments(tmp_path / "run")
    if name == "--config":
        given[1] = value
    else:
        given = [*(each for each in given if not each.startswith(f"{name}=")), *change]
    assert cli.run(lambda: train.main(given)) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_compiled_programs_are_kept_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: dict[str, object] = {}
    monkeypatch.setattr(jax.config, "update", changed.__setitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    processes.start_jax()
    assert changed["jax_compilation_cache_dir"] == str(tmp_path / "coi_jax" / "xla")
    changed.clear()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "elsewhere"))  # which JAX reads itself
    processes.start_jax()
    assert "jax_compilation_cache_dir" not in changed


def test_a_folder_for_compiled_programs_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: dict[str, object] = {}
    monkeypatch.setattr(jax.config, "update", changed.__setitem__)
    (tmp_path / "file").touch()
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    processes.start_jax()  # as with a home folder that is read-only: the command works without it
    assert "jax_compilation_cache_dir" not in changed
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file" / "xla"))
    with pytest.raises(UserError, match=r"^JAX_COMPILATION_CACHE_DIR: .*xla: cannot be written"):
        processes.start_jax()


def start(workdir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.helpers.tiny_train", *arguments(workdir, steps=100_000, seed=0)]
    environment = os.environ | {"XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "xla")}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def rows(workdir: Path) -> list[int]:
    """The logged steps, but for a line that is being written."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [int(line.split(":")[1].split(",")[0]) for line in lines if line.endswith("\n")]


def wait_for_step(process: subprocess.Popen[str], workdir: Path, step: int) -> None:
    deadline = time.monotonic() + 300
    while max(rows(workdir), default=0) < step and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_sigterm_saves_and_exits_and_a_kill_loses_nothing_but_time(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start(run)
    wait_for_step(first, run, 2)
    first.send_signal(signal.SIGTERM)
    said, errors = first.communicate()
    assert first.returncode == 0, errors
    stopped = rows(run)[-1]
    assert f"stopped and saved at step {stopped} of 100000; run the same command again" in said
    assert "imported: []" in said
    assert checkpoint.latest_step(run / "checkpoints") == stopped

    second = start(run)
    wait_for_step(second, run, stopped + 12)
    second.kill()
    second.communicate()
    saved = checkpoint.latest_step(run / "checkpoints")
    assert saved is not None
    assert saved > stopped

    third = start(run)
    wait_for_step(third, run, saved + 13)
    third.send_signal(signal.SIGTERM)
    assert third.wait() == 0
    assert rows(run) == list(range(1, rows(run)[-1] + 1))
