import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from coi_jax.common import cli, files
from coi_jax.common.errors import UserError
from coi_jax.common.folder_lock import folder_lock
from coi_jax.config.run import load_config
from coi_jax.runs import checkpoint, checkpoint_steps
from coi_jax.runs.train_state import TrainState
from launch.sweep import __main__ as sweep
from launch.sweep.backends.protocol import Backend, Outcome
from launch.sweep.backends.registry import BACKENDS
from launch.sweep.checks import check_data, check_points
from launch.sweep.point_state import SWEEP_LOCK, claim, is_trained
from launch.sweep.point_state import state as state_of
from launch.sweep.points import Point, choose, expand
from tests.helpers import tokenizer_folders
from tests.helpers.fake_commands import make_workplace, set_fakes
from tests.helpers.paths import QUICKSTART, ROOT
from tests.helpers.token_caches import write_dataset

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "rms_norm_eps": 1e-5,
    "vocab_size": 600,
}
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.py"))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `python -m coi_jax.train` runs the lines that `set_fakes` writes."""
    make_workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    backend = [] if "--backend" in arguments else ["--backend", "local"]
    return cli.run(lambda: sweep.main(["--sweep", "configs/sweeps/quickstart.py", *backend, *arguments]))


def points(out: str = "runs/quickstart", **extra: Any) -> list[Point]:
    return expand("configs/sweeps/quickstart.py", extra, out)


def write_sweep(folder: Path, body: str) -> Path:
    path = folder / "some_sweep.py"
    path.write_text(f'CONFIG = "{ROOT}/configs/quickstart.py"\n\ndef sweep():\n    {body}\n')
    return path


def write_published(folder: Path) -> None:
    """A published folder whose one tensor stands for all: a sweep reads the headers alone."""
    folder.mkdir(parents=True)
    save_file({"model.norm.weight": np.ones(24, np.float32)}, folder / "model.safetensors")
    tokenizer_folders.llama3(folder)
    tokenizer_folders.write_json(folder / "config.json", LLAMA)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_expands_to_points_with_stable_ids(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    write_published(tmp_path / "checkpoints" / "SmolLM2-135M-Instruct")
    monkeypatch.chdir(tmp_path)
    once, again = expand(path, {}, None), expand(path, {}, "elsewhere")
    assert [point.id for point in once] == [point.id for point in again]
    assert len({point.folder for point in once}) == len(once)
    assert all(point.folder == Path("runs") / path.stem / point.id for point in once)


def test_an_id_tells_the_overrides_and_changes_with_any_field(tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path, 'yield {"arm": "coi12", "optimizer.learning_rate": 1e-3, "evaluation.tests": ("bbh",)}'
    )
    (point,), (other,) = expand(path, {}, tmp_path), expand(path, {"seed": 1}, tmp_path)
    assert point.id.startswith("coi12-tests_bbh-learning_rate0.001-")
    assert other.id.startswith("coi12-seed1-tests_bbh-learning_rate0.001-")
    assert point.id[-6:] != other.id[-6:]
    assert other.config.seed == 1


def test_an_id_does_not_change_with_where_metrics_are_logged(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, 'yield {"arm": "coi12"}')
    (plain,), (logged,) = expand(path, {}, tmp_path), expand(path, {"logging.wandb_project": "chains"}, tmp_path)
    assert plain.id == logged.id
    assert logged.config.logging.wandb_project == "chains"
    twice = write_sweep(tmp_path, 'yield {"arm": "coi12"}; yield {"arm": "coi12", "logging.group": "a"}')
    with pytest.raises(UserError, match="are the same config"):
        expand(twice, {}, tmp_path)


def test_an_id_of_many_overrides_names_all_their_fields(tmp_path: Path) -> None:
    tests = tuple(f"proc{length}_test" for length in range(1, 7))
    path = write_sweep(
        tmp_path,
        f'yield {{"arm": "coi12", "seed": 3, "evaluation.tests": {tests}, "data.folder": "data/" + 90 * "x", '
        '"optimizer.learning_rate": 1e-3, "train.length.count": 500, "model.layers": 2}',
    )
    (point,) = expand(path, {}, tmp_path)
    for name in ("coi12-seed3-", "folderdata_xxx", "layers2", "learning_rate0.001", "tests_proc", "count500"):
        assert name in point.id
    assert len(point.id) <= 127


def test_a_point_whose_config_is_damaged_fails_alone(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_fakes(workplace)
    assert run() == 0
    first, *others = points()
    files.write_text(first.folder / "config.json", "[]")
    capsys.readouterr()
    assert run() == 1
    printed = capsys.readouterr().out
    assert printed.count("done already, skipped") == len(others)
    assert f"failed: {first.id}: config.json: {first.folder}/config.json: holds an array where" in printed
    assert "restore the file, or remove the folder" in printed


def test_a_prompted_baseline_is_scored_and_not_trained(workplace: Path) -> None:
    """Its evaluation begins the run, from the config file and the point's overrides."""
    write_published(workplace / "published")
    path = write_sweep(workplace, 'yield {"arm": "cot", "weights.folder": "published"}')
    set_fakes(
        workplace,
        train="sys.exit('a baseline is not trained')",
        evaluate="score('0-abc') if '--config' in argv and '--config.arm=cot' in argv else sys.exit('no config')",
    )
    assert sweep.main(["--sweep", str(path), "--backend", "local", "--out", "runs"]) == 0
    (point,) = expand(path, {}, "runs")
    assert state_of(point) == "done"
    assert not (point.folder / "checkpoints").exists()


def test_overrides_survive_the_command_line() -> None:
    values = {"seed": 3, "evaluation.tests": ("a b", "c"), "data.folder": "12", "optimizer.learning_rate": 1e-05}
    rest, read = cli.split_overrides(cli.override_flags(values))
    assert rest == []
    assert load_config(QUICKSTART, read) == load_config(QUICKSTART, values)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('yield from [{"arm": "coi1"}, {"arm": "coi12", "sed": 1}]', "point 2: config.sed: .*did you mean 'seed'"),
        ('yield {"arm": "cot"}', "config.weights.folder: None: name the published folder"),
        ('yield {"evaluation.tests": ("coi2_tst",)}', "coi2_test"),
        ('yield from [{"arm": "coi1"}, {"arm": "coi1", "seed": 0}]', "points 1 and 2 .*same config"),
        ("yield from ()", "no point"),
        ("return None", "no point"),
        ("yield 3", "yield dicts"),
        ('raise KeyError("x")', "KeyError"),
        ('raise ValueError("no such arm")', r"sweep\(\) raised an error: no such arm$"),
        ("yield (", "SyntaxError"),
        ("while True: yield {}", r"yields more than 10,000 points; does it end\?$"),
    ],
)
def test_a_wrong_sweep_is_one_line(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        expand(write_sweep(tmp_path, body), {}, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_sweep(tmp_path: Path) -> None:
    (tmp_path / "empty.py").touch()
    with pytest.raises(UserError, match="has no CONFIG"):
        expand(tmp_path / "empty.py", {}, None)
    for text in ("CONFIG = 5\ndef sweep():\n    yield {}\n", "CONFIG, sweep = 'configs/quickstart.py', ()\n"):
        (tmp_path / "other.py").write_text(text)
        with pytest.raises(UserError, match=r"other\.py: needs CONFIG, the path of a config file, and sweep\(\)"):
            expand(tmp_path / "other.py", {}, None)
    with pytest.raises(UserError, match="no such file"):
        expand(tmp_path / "none.py", {}, None)


@pytest.mark.parametrize("folder", ["data/quickstart", "run"])
def test_the_folder_of_a_dataset_or_a_run_is_no_sweep(
    workplace: Path, capfd: pytest.CaptureFixture[str], folder: str
) -> None:
    files.write_text(workplace / "run" / "config.json", "{}")
    assert run("--out", folder, "--dry_run") == 2
    assert f"error: --out: {folder}: is the folder of a " in capfd.readouterr().err


def test_choosing_points(workplace: Path) -> None:
    everything = points()
    assert choose(everything, []) == everything
    assert [point.config.arm for point in choose(everything, ["coi12-", everything[0].id])] == ["coi1", "coi12"]
    with pytest.raises(UserError, match="--only: coi9"):
        choose(everything, ["coi9"])


def test_nothing_starts_where_a_point_is_wrong_or_data_are_missing(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--config.seeds=1") == 2
    assert "did you mean 'seed'" in capfd.readouterr().err
    assert run("--config.data.folder=data/none") == 2
    assert "build or import the dataset" in capfd.readouterr().err
    assert run("--config.data.split=tran") == 2
    assert "did you mean 'train'" in capfd.readouterr().err
    assert not (workplace / "runs").exists()


def test_a_mixture_or_a_variant_that_does_not_fit_is_told_before_a_point_starts(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--config.data.ratios={1: 1, 2: 1}") == 2
    assert "point 1: config.data.ratios: {1: 1.0, 2: 1.0}: arm coi1 is tuned on chains of length 1;" in (
        capfd.readouterr().err
    )
    chosen = expand(write_sweep(workplace, 'yield {"arm": "coi12_irrelevant"}'), {}, None)
    with pytest.raises(
        UserError, match=r"config\.arm: coi12_irrelevant: data/quickstart has no split train_irrelevant"
    ):
        check_data(chosen)
    write_dataset(workplace / "small", {1: 2, 2: 2, 3: 2})
    settings = {"data.folder": "small", "evaluation.tests": ("proc2_test", "proc3_test")}
    chosen = expand(write_sweep(workplace, f"yield {settings}"), {}, None)
    with pytest.raises(UserError, match=r"^proc3_test: small/test\.jsonl: has no chain of length 3, only of: 2"):
        check_data(chosen)
    assert not (workplace / "runs").exists()


def test_weights_and_meshes_are_checked_before_a_point_starts(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(workplace, 'yield {"arm": "base", "weights.folder": "published"}')
    write_published(workplace / "published")
    (workplace / "published" / "model.safetensors").write_bytes(b"cut")
    command = ["--sweep", str(path), "--backend", "local", "--out", "runs"]
    assert cli.run(lambda: sweep.main(command)) == 2
    assert "error: config.weights.folder: published" in capfd.readouterr().err
    files.write_json(workplace / "untrained" / "config.json", points()[0].config.model_dump(mode="json"))
    (workplace / "untrained" / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"config\.weights\.folder: untrained: has no checkpoint yet"):
        check_points(points(**{"weights.folder": "untrained", "vocabulary": "bytes"}))
    assert run("--config.mesh.tensor=16") == 2
    assert "config.mesh: replica 1 × fsdp -1 × tensor 16 × sequence 1: does not make 8 devices" in (
        capfd.readouterr().err
    )
    assert not list(workplace.glob("runs/*/*/config.json"))


def test_all_points_run_and_are_skipped_when_done(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    set_fakes(workplace, train='print("training " + arm); train(2)')
    assert run("--dry_run") == 0
    assert capfd.readouterr().out.count(" new ") == 3
    assert run() == 0
    first = capfd.readouterr().out
    assert "training coi123" in first
    assert "3 of 3 points done" in first
    for point in points():
        assert state_of(point) == "done"
        assert f"training {point.config.arm}\n" in (point.folder / "log.txt").read_text()
    set_fakes(workplace, train="raise SystemExit(9)", evaluate="raise SystemExit(9)")
    assert run() == 0
    assert capfd.readouterr().out.count("skipped") == 3
    assert run("--dry_run") == 0
    assert capfd.readouterr().out.count(" done ") == 3


def test_a_failed_point_is_reported_and_the_others_go_on(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    set_fakes(workplace, train='arm == "coi12" and sys.exit("error: data.batch.rows: too few"); train(2)')
    assert run() == 1
    output = capfd.readouterr().out
    assert "2 of 3 points done" in output
    assert "failed: coi12-" in output
    assert "status 1: error: data.batch.rows: too few" in output
    assert [state_of(point) for point in points()] == ["done", "partial", "done"]
    set_fakes(workplace)
    assert run() == 0
    assert [state_of(point) for point in points()] == ["done"] * 3


@pytest.mark.parametrize("ending", ["sys.exit(0)", "import os; os.kill(os.getpid(), signal.SIGTERM)", "sys.exit(143)"])
def test_a_preempted_point_is_no_failure_and_goes_on(
    workplace: Path, capfd: pytest.CaptureFixture[str], ending: str
) -> None:
    set_fakes(workplace, train=f"train(1); {ending}")
    assert run("--only", "coi1-") == cli.EXIT_INTERRUPTED
    assert "preempted: coi1-" in capfd.readouterr().out
    assert state_of(points()[0]) == "partial"
    set_fakes(workplace)
    assert run("--only", "coi1-") == 0


def test_scores_of_an_older_checkpoint_do_not_count(workplace: Path) -> None:
    assert run("--only", "coi1-") == 0
    (point, *_) = points()
    for path in Path(point.folder).rglob("results.json"):
        results = files.read_json(path)
        files.write_json(path, results | {"provenance": results["provenance"] | {"checkpoint": "1-abc"}})
    assert state_of(point) == "partial"


def test_a_killed_point_is_a_failure(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    set_fakes(workplace, evaluate="import os; os.kill(os.getpid(), signal.SIGKILL)")
    assert run("--only", "coi1-") == 1
    assert "evaluate was ended by SIGKILL; was there too little memory?" in capfd.readouterr().out


# A trainer that saves when it is told to end, or when the process that started it has ended, as the real one does.
SAVING = f"""
import runpy
signal.signal(signal.SIGTERM, lambda *_, save=train: (save(1), sys.exit(0)))
runpy.run_path("{ROOT}/coi_jax/common/child_processes.py")["end_with_parent"]()
print("ready", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def running_sweep(workplace: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep in a process of its own, whose first trainer runs."""
    set_fakes(workplace, train=SAVING)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from launch.sweep.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--sweep", "configs/sweeps/quickstart.py", "--backend", "local"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "ready" not in process.stdout.readline():
            assert process.poll() is None
        yield process


def test_a_killed_sweep_leaves_no_trainer_behind_and_loses_nothing(workplace: Path) -> None:
    with running_sweep(workplace) as process:
        process.kill()
    deadline = time.monotonic() + 20
    while not (saved := list(workplace.glob("runs/*/*/checkpoints/1/position/metadata"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(saved) == 1


def test_two_sweeps_are_not_at_the_same_point(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    point = points()[0]
    claim(point)
    with folder_lock(point.folder, "--out", SWEEP_LOCK):
        assert run("--only", "coi1-") == 1
    assert f"is in use by process {os.getpid()}" in capfd.readouterr().out
    assert state_of(point) == "partial"
    assert run("--only", "coi1-") == 0


def test_two_sweeps_are_not_in_the_same_folder(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with folder_lock("runs/quickstart", "--out", SWEEP_LOCK):
        assert run() == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: --out: runs/quickstart: is in use by process ")
    assert not list(workplace.glob("runs/*/*"))


def test_a_folder_that_cannot_be_written_is_told_before_a_point_starts(
    workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("--out", "coi_jax/train.txt/sweep") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"error: --out: coi_jax/train.txt/sweep: cannot be written \(.*\); name another .*", line)


def test_workers_run_points_at_the_same_time(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each of the first two points ends only once the other has begun."""
    meets = 'pathlib.Path(arm).touch(); other = "coi12" if arm == "coi1" else "coi1"\n'
    meets += "while not pathlib.Path(other).exists(): time.sleep(0.01)\ntrain(2)"
    set_fakes(workplace, train=meets, evaluate='print("scored " + arm); score()')
    assert run("--workers", "2") == 0
    output = capfd.readouterr().out
    assert "3 of 3 points done" in output
    assert re.search(r"^\[coi12-\w+\] scored coi12$", output, re.MULTILINE)
    assert "scored coi12\n" in (points()[1].folder / "log.txt").read_text()


def test_a_killed_worker_takes_no_other_point_with_it(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One that is killed is replaced, and its point is run again where that is asked for."""
    killed = 'import os\nif arm == "coi12" and not os.path.exists("killed"):\n'
    killed += '    open("killed", "w").close(); os.kill(os.getpid(), signal.SIGKILL)\ntrain(2)'
    set_fakes(workplace, train=killed)
    assert run("--workers", "2", "--retries", "1") == 0
    assert [state_of(point) for point in points()] == ["done"] * 3
    assert capfd.readouterr().out.count("== coi12-") == 2


def test_points_run_in_one_process(workplace: Path) -> None:
    """A new one is started after a failure."""
    set_fakes(
        workplace, train='import os; open("pids", "a").write(f"{os.getpid()} "); train(2); arm == "coi12" and [][0]'
    )
    assert run() == 1
    first, second, third = (workplace / "pids").read_text().split()
    assert first == second != third


@pytest.mark.parametrize("text", ["", "[]", '{"provenance": {}}', '{"provenance": {"checkpoint": 2}}'])
def test_damaged_results_are_written_again(workplace: Path, text: str) -> None:
    assert run("--only", "coi1-") == 0
    point = points()[0]
    next(Path(point.folder).rglob("results.json")).write_text(text)
    assert state_of(point) == "partial"


def test_a_damaged_last_checkpoint_is_trained_again(workplace: Path) -> None:
    assert run("--only", "coi1-") == 0
    point = points()[0]
    for text in ("", "{}", "[]", '{"total_steps": null}'):
        (Path(point.folder) / "checkpoints/2/position/metadata").write_text(text)
        assert state_of(point) == "partial"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_so_that_the_run_saves(workplace: Path, number: signal.Signals) -> None:
    with running_sweep(workplace) as process:
        assert process.stdout is not None
        process.send_signal(number)
        output, began = process.stdout.read(), time.monotonic()
        assert process.wait(timeout=20) == cli.EXIT_INTERRUPTED
    assert time.monotonic() - began < 20
    assert "0 of 3 points done" in output
    assert "run the same command again" in output
    assert [state_of(point) for point in points()] == ["partial", "new", "new"]
    assert checkpoint_steps.steps(points()[0].folder / "checkpoints") == [1]


class NoMachines:
    """A backend that runs nothing."""

    stopped = False

    def __enter__(self) -> "NoMachines":
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped = True

    def run(self, points: Sequence[Point]) -> list[Outcome]:
        return [Outcome(point, "failed", "there are no machines") for point in points]


def test_a_backend_is_one_entry(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    backend: Backend = NoMachines()
    monkeypatch.setitem(BACKENDS, "nowhere", lambda settings: backend)
    assert run("--backend", "nowhere", "--only", "coi1-") == 1
    assert "there are no machines" in capfd.readouterr().out
    assert backend.stopped


def test_the_last_step_is_read_as_the_trainer_writes_it(tmp_path: Path) -> None:
    point = expand(write_sweep(tmp_path, 'yield {"arm": "coi1"}'), {}, tmp_path)[0]
    assert not is_trained(point)
    state = TrainState({"weight": jnp.ones(2)}, {"mean": jnp.ones(2)}, jnp.array(0))
    for step in (5, 10):
        with checkpoint.Checkpoints(point.folder / "checkpoints", keep=2) as checkpoints:
            checkpoints.save(state, step, {"total_steps": 10, "loader": "x"})
        assert is_trained(point) == (step == 10)
