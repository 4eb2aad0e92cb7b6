"""The slurm backend; with a cluster of one node where Slurm is installed."""

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coi_jax.common import cli
from coi_jax.common.errors import UserError
from launch.sweep import __main__ as sweep
from launch.sweep.backends import slurm
from launch.sweep.backends.protocol import Settings
from launch.sweep.point_state import state
from launch.sweep.points import Point, expand
from tests.helpers import slurm_cluster
from tests.helpers.fake_commands import make_workplace, set_fakes

SWEEP = "configs/sweeps/quickstart.py"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    make_workplace(tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "slurm").mkdir()
    with slurm_cluster.running_cluster(tmp_path / "slurm") as config:
        monkeypatch.setenv("SLURM_CONF", str(config))
        yield request.param


def points(**extra: object) -> list[Point]:
    return expand(SWEEP, extra, "runs/quickstart")


def run(*arguments: str) -> int:
    return cli.run(lambda: sweep.main(["--sweep", SWEEP, "--backend", "slurm", *arguments]))


def wait_until(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "".join(path.read_text() for path in folder.glob("runs/*/slurm-*.txt"))
        time.sleep(0.2)


@pytest.mark.parametrize("cluster", slurm_cluster.INSTALLED, indirect=True)
def test_a_sweep_runs_on_a_cluster(cluster: str, workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A task that is preempted is queued again by its script; tasks in the queue are not submitted twice."""
    set_fakes(workplace, train='if arm == "coi12":\n    train(1); sys.exit(0)\ntrain(2)')
    (workplace / "options.sh").write_text("#SBATCH --time=60\nexport SET_BEFORE=1\n")
    assert run("--cluster", "options.sh", "--config.seed=3") == 0
    assert "3 submitted; the same command with --status" in capfd.readouterr().out
    subprocess.run(["sbatch", "--test-only", "runs/quickstart/slurm_job.sh"], check=True, capture_output=True)
    wait_until(lambda: [state(point) for point in points(seed=3)] == ["done", "partial", "done"], workplace)
    name = slurm.job_name(Path("runs/quickstart"))
    queue = ["squeue", f"--name={name}", "--noheader", "--format=%t"]
    wait_until(lambda: subprocess.check_output(queue, text=True).split() == ["PD"], workplace)
    assert run("--config.seed=3") == 2
    assert "in the queue; wait until it ends, or scancel --name=coi-quickstart-" in capfd.readouterr().err
    subprocess.run(["scancel", f"--name={name}"], check=True)


def test_a_task_runs_its_point_of_the_same_sweep(workplace: Path) -> None:
    settings = Settings(retries=2, arguments=("--sweep", SWEEP, "--config.data.folder=a b"))
    script = slurm.job_script(points()[:2], settings, "#SBATCH --partition=gpu", "module load cuda")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    lines = script.splitlines()
    assert "#SBATCH --array=0-1" in lines
    assert lines.index("#SBATCH --partition=gpu") < lines.index("module load cuda")
    (task,) = [line for line in lines if line.startswith("srun ")]
    assert "--backend local --sweep configs/sweeps/quickstart.py '--config.data.folder=a b' --retries 2" in task
    assert f"  {points()[1].id}" in lines


def test_a_folder_of_any_name_has_one_job_and_one_place_for_its_output(workplace: Path) -> None:
    """Slurm reads a comma as the end of a name, a blank as that of a value, and % as the beginning of a pattern."""
    folder = workplace / "a b,c 5%"
    (point, *_) = expand(SWEEP, {}, folder)
    lines = slurm.job_script([point], Settings(), "", "").splitlines()
    (name,) = [line.partition("=")[2] for line in lines if line.startswith("#SBATCH --job-name=")]
    assert re.fullmatch(r"coi-a_b_c_5_-[0-9a-f]{6}", name)
    (output,) = [line.partition("=")[2] for line in lines if line.startswith("#SBATCH --output=")]
    assert shlex.split(output) == [f"{workplace}/a b,c 5%%/slurm-%A_%a.txt"]


def test_what_the_sweep_sets_is_not_for_the_options(workplace: Path) -> None:
    (workplace / "options.sh").write_text("#SBATCH --time=60\n#SBATCH -J mine\n")
    with pytest.raises(UserError, match=r"--cluster: options.sh: -J is set by the sweep; remove that line"):
        slurm.read_options("options.sh")


def test_slurm_that_is_not_installed(
    workplace: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(workplace))
    assert run() == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert (
        line
        == "error: --backend: slurm: needs sbatch, which is not installed here; run this on a login node of the cluster"
    )
    assert not (workplace / "runs/quickstart").exists()


@pytest.mark.parametrize(
    ("printed", "status", "message"),
    [
        ("17", 0, "submitted job 17 of 3 tasks"),
        ("Welcome to 3\n17;main", 0, "submitted job 17 of 3 tasks"),
        ("", 0, "slurm: sbatch printed nothing, no number of a job; see squeue --me"),
        ("x" * 3_000_000, 0, f"slurm: sbatch printed {'x' * 150} … {'x' * 150}, no number of a job"),
        ("", 1, "slurm: sbatch failed: status 1"),
    ],
    ids=["number", "banner", "nothing", "flood", "failure"],
)
def test_what_sbatch_prints_is_the_number_of_a_job(
    workplace: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    printed: str,
    status: int,
    message: str,
) -> None:
    (workplace / "printed").write_text(printed)
    write_program(workplace / "sbatch", f"cat printed; exit {status}")
    write_program(workplace / "squeue", "echo Welcome")
    monkeypatch.setenv("PATH", f"{workplace}:/usr/bin:/bin")
    assert run() == (0 if "submitted" in message else 2)
    written = capfd.readouterr()
    assert message in written.out + written.err


def test_a_queue_that_cannot_be_asked_is_told_in_its_own_words(
    workplace: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_program(workplace / "sbatch", "echo 17")
    write_program(workplace / "squeue", "echo slurm_load_jobs error: no controller >&2; exit 1")
    monkeypatch.setenv("PATH", f"{workplace}:/usr/bin:/bin")
    assert run() == 2
    assert capfd.readouterr().err == "error: --backend: slurm: squeue failed: slurm_load_jobs error: no controller\n"


def write_program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
