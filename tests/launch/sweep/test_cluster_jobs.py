"""Jobs of SkyPilot and xpk: parsed by the tools' own code where they are installed, submitted to stand-ins."""

import functools
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from launch.sweep import __main__ as sweep
from launch.sweep.backends import skypilot, submission, xpk
from launch.sweep.backends.protocol import Settings
from launch.sweep.backends.registry import BACKENDS
from launch.sweep.backends.submission import call, job_id
from launch.sweep.point_state import state
from launch.sweep.points import Point, expand
from tests.helpers import launch_tools
from tests.helpers.fake_commands import make_workplace
from tests.helpers.paths import CONFIGS, ROOT

SWEEP = "configs/sweeps/quickstart.py"
CLUSTERS = {"skypilot": CONFIGS / "clusters" / "v5e_spot.yaml", "xpk": CONFIGS / "clusters" / "xpk_v5e.txt"}
SETTINGS = Settings(retries=1, arguments=("--sweep", SWEEP, "--out", "gs://bucket/sweep", "--config.data.folder=a b"))

# Notes how it is called; a job of the name in `queued` is in the queue, and `refused` makes it fail.
STAND_IN = """#!/bin/sh
echo "$@" >> calls.txt
if [ -f refused ]; then echo "ValueError: no such zone" >&2; exit 3; fi
cat queued 2>/dev/null || true
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tools(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which stand-ins of both tools note their calls."""
    for name in ("sky", "xpk"):
        (workplace / name).write_text(STAND_IN)
        (workplace / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{workplace}:{os.environ['PATH']}")
    return workplace


def points(out: str = "runs/quickstart") -> list[Point]:
    return expand(SWEEP, {}, out)


def run(backend: str, out: str, *arguments: str) -> int:
    cluster = ["--cluster", str(CLUSTERS[backend])]
    flags = ["--sweep", SWEEP, "--backend", backend, "--out", out, *cluster, *arguments]
    return cli.run(lambda: sweep.main(flags))


@pytest.mark.parametrize("sky", launch_tools.SKY)
def test_skypilot_parses_every_task(sky: str, workplace: Path) -> None:
    template = skypilot.read_template(str(CLUSTERS["skypilot"]))
    for point in points():
        files.write_json(workplace / "tasks" / f"{point.id}.yaml", skypilot.task(point, SETTINGS, template))
    code = "import sky, sys\nfor path in sys.argv[1:]:\n    task = sky.Task.from_yaml(path)\n"
    code += "    print(task.name, task.num_nodes, *[r.use_spot for r in task.resources], task.run)"
    command = [launch_tools.python_beside(sky), "-c", code, *sorted(map(str, (workplace / "tasks").iterdir()))]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for point in points():
        due = f"{job_id(point)} 1 True .venv/bin/python -m launch.sweep --backend local --sweep {SWEEP} "
        due += "--out gs://bucket/sweep "
        assert f"{due}'--config.data.folder=a b' --retries 1 --only {point.id}\n" in output


@pytest.mark.parametrize("program", launch_tools.XPK)
def test_xpk_accepts_every_command(program: str, workplace: Path) -> None:
    flags = xpk.read_flags(str(CLUSTERS["xpk"]))
    point = points()[0]
    _, *arguments = xpk.workload_command(point, SETTINGS, flags)
    done = subprocess.run([program, *arguments, "--dry-run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"--only {point.id}" in done.stdout


@pytest.mark.parametrize("backend", ["skypilot", "xpk"])
def test_points_are_submitted_once(tools: Path, bucket: str, capfd: pytest.CaptureFixture[str], backend: str) -> None:
    out = f"{bucket}/sweep"
    (tools / "queued").write_text(f"17  {job_id(points(out)[1])}  RUNNING\n" if backend == "skypilot" else "")
    assert run(backend, out) == 0
    assert "3 submitted; the same command with --status" in capfd.readouterr().out
    first, *calls = (tools / "calls.txt").read_text().splitlines()
    assert backend == "xpk" or first == "jobs queue --skip-finished --all"
    verb = "jobs launch" if backend == "skypilot" else "workload create"
    assert len(calls) == (2 if backend == "skypilot" else 3)
    assert all(call.startswith(verb) for call in calls)
    assert state(points(out)[0]) == "partial"
    (tools / "refused").touch()
    assert run(backend, out) == 2
    assert "failed: ValueError: no such zone" in capfd.readouterr().err


@pytest.mark.parametrize("backend", ["skypilot", "xpk"])
def test_a_tool_that_is_not_installed_and_a_folder_of_this_machine(
    tools: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    assert run(backend, "runs/here") == 2
    assert "error: --out: runs/here: is on this machine; name a folder in a bucket" in capfd.readouterr().err
    monkeypatch.setenv("PATH", str(tools / "nothing"))
    assert run(backend, "runs/here") == 2
    assert "is not installed here; python -m venv" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resources: {use_spot: true}\nrun: echo", r"`run` is set by the sweep; remove it"),
        ("setup: echo", "should be a mapping with `resources`"),
        ("resources: [", "is not YAML: "),
        ("resources: {zone: 2026-13-45}", "is not YAML: month must be in 1..12"),
        ("resources: {zone: 2026-11-05}", "cannot be written as JSON"),
        ("resources: {}\nenvs: [A]", "`envs` should be a mapping"),
    ],
)
def test_a_template_that_overrides_wrongly(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"^--cluster: {path}: {message}"):
        skypilot.read_template(str(path))


def test_a_job_keeps_compiled_programs_in_the_bucket_unless_the_user_says_where(workplace: Path, bucket: str) -> None:
    point = points(f"{bucket}/sweep")[0]
    cache = "JAX_COMPILATION_CACHE_DIR"
    template = {"resources": {"accelerators": "tpu-v6e-8"}, "envs": {"WANDB_ENTITY": "me"}}
    envs = skypilot.task(point, SETTINGS, template)["envs"]
    assert envs[cache] == f"{bucket}/sweep/xla"
    assert envs["WANDB_ENTITY"] == "me"
    assert "vmem" in envs["LIBTPU_INIT_ARGS"]
    flags = ["--tpu-type=v6e-8", "--num-slices=2"]
    assert f"--env={cache}={bucket}/sweep/xla" in xpk.workload_command(point, SETTINGS, flags)
    assert "all_reduce_opt" in xpk.workload_command(point, SETTINGS, flags)[-1]
    assert len(xpk.environment_flags(point, [*flags, f"--env={cache}=/tmp/xla"])) == 1
    assert not xpk.environment_flags(point, [*flags, "--env-file=variables.txt"])


def test_a_point_runs_by_the_python_that_setup_makes(workplace: Path) -> None:
    """That of a TPU VM is older than the project needs."""
    template = skypilot.read_template(str(CLUSTERS["skypilot"]))
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    version = re.search(r"uv venv .*--python (\S+) .*\.venv && \.venv/bin/pip install ", template["setup"])
    assert version is not None
    assert SpecifierSet(needed).contains(version[1])
    assert skypilot.task(points()[0], SETTINGS, template)["run"].startswith(".venv/bin/python -m launch.sweep ")


def test_a_workload_is_restarted_where_a_host_ends_after_another_one_died(workplace: Path) -> None:
    flags = xpk.read_flags(str(CLUSTERS["xpk"]))
    assert f"--restart-on-exit-codes={sweep.EXIT_FAILED}" in flags


def test_flags_that_the_sweep_sets(tmp_path: Path) -> None:
    path = tmp_path / "flags.txt"
    path.write_text("--cluster=c --tpu-type='v5 x'  # comment\n--command=echo\n")
    with pytest.raises(UserError, match="--command is set by the sweep; remove it"):
        xpk.read_flags(str(path))
    path.write_text("--cluster=c --tpu-type='v5 x'  # comment\n\n")
    assert xpk.read_flags(str(path)) == ["--cluster=c", "--tpu-type=v5 x"]


def test_what_a_program_writes_in_another_encoding_is_read_all_the_same(tmp_path: Path) -> None:
    program = tmp_path / "squeue"
    program.write_text(
        "#!/bin/sh\nprintf '\\377 banner\\n'; [ $# = 0 ] || { printf 'no queue \\377\\n' >&2; exit 1; }\n"
    )
    program.chmod(0o755)
    assert call([str(program)], "slurm") == "\\xff banner\n"
    with pytest.raises(UserError, match=r"squeue failed: no queue \\xff$"):
        call([str(program), "--fail"], "slurm")


def test_a_program_that_cannot_be_run_or_is_killed_is_named(tmp_path: Path) -> None:
    program = tmp_path / "sbatch"
    for text, message in (
        ("#!/no/such/shell\n", f"{program} cannot be run \\(No such file or directory\\); is the program there"),
        ("garbage", f"{program} cannot be run \\(Exec format error\\)"),
        ("#!/bin/sh\nkill -9 $$\n", "failed: it was ended by SIGKILL"),
        ("#!/bin/sh\nexit 3\n", "failed: status 3"),
    ):
        program.write_text(text)
        program.chmod(0o755)
        with pytest.raises(UserError, match=message):
            call([str(program)], "slurm")


def test_a_program_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "CALL_SECONDS", 0.1)
    with pytest.raises(UserError, match=r"sleep has not answered within 0\.1 s"):
        call(["sleep", "60"], "slurm")


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_a_dry_run_reads_the_file_for_the_cluster(
    workplace: Path, capfd: pytest.CaptureFixture[str], backend: str
) -> None:
    """Without the program that submits: a dry run may be on another machine."""
    own = {"slurm": CONFIGS / "clusters" / "slurm.sh", **CLUSTERS}
    (workplace / "nothing").write_text("")
    (workplace / "null").write_text("--cluster=c\0\n")
    (workplace / "wide").write_text("--cluster=c\n", encoding="utf-16")
    (workplace / "quote").write_text("--cluster='c\n")
    (workplace / "dangling").symlink_to("nowhere")
    names = ["absent", "runs", "nothing", "null", "wide", "quote", "dangling"]
    (workplace / "runs").mkdir()
    for file in (*names, *(str(path) for other, path in own.items() if other != backend)):
        flags = ["--sweep", SWEEP, "--backend", backend, "--cluster", file, "--dry_run"]
        assert cli.run(functools.partial(sweep.main, flags)) == 2, file
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"error: --cluster: {file}"), line
    cluster = ["--cluster", str(own[backend])] if backend in own else []
    assert cli.run(lambda: sweep.main(["--sweep", SWEEP, "--backend", backend, *cluster, "--dry_run"])) == 0
