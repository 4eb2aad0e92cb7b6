"""Every file of a run, of its token caches and its dataset, and of a build's work folder is damaged, one at a time.

One bit is flipped, or the file is cut, emptied or deleted. The command then ends as if nothing had happened (from the
last good checkpoint, from a cache or a stage that is written again), or stops with one line that names the file. What
differs at the end is said in a line that names the file.
"""

import collections
import contextlib
import dataclasses
import functools
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from coi_jax import evaluate, report, train
from coi_jax.common import cli
from coi_jax.data import token_cache
from coi_jax.data.loader import Loader
from coi_jax.parallel import processes, sharding
from coi_jax.tokenizers.vocabulary import load_vocabulary
from data_pipeline.build.build_job import REPORT
from data_pipeline.build.review.chain_outcomes import FILE
from tests.helpers import builds, damages, soak_runs
from tests.helpers.damages import Damage
from tests.helpers.token_caches import write_caches

STOPPED_AFTER = soak_runs.STEPS - 1
FLIPS = 3  # bits of each file, one at a time
# Written for people and read by no command: training goes on without them, and what they show ends there.
UNREAD = ("run/tensorboard/",)


@dataclasses.dataclass(frozen=True)
class Job:
    """A command on a folder whose files are damaged.

    Attributes:
      prepare: makes what is damaged in the folder `w`.
      command: what goes on with it.
      end: what is compared.
    """

    prepare: Callable[[Path], None]
    command: Callable[[Path], int]
    end: Callable[[Path], dict[str, Any]]


def train_to_the_end(folder: Path) -> int:
    return train.main(soak_runs.training(folder / "config.json", folder / "run"))


def evaluate_run(folder: Path) -> int:
    return evaluate.main([f"--workdir={folder / 'run'}"])


def build_chains(folder: Path) -> int:
    return builds.run(builds.flags(folder / "built", None, **{"joins.lengths": "()"}))


def report_run(folder: Path) -> int:
    return report.main([f"--runs={folder / 'run'}", f"--out={folder / 'page.html'}"])


def stop_training(folder: Path) -> None:
    """Trains until SIGTERM arrives in the last step but one."""
    soak_runs.make_data(folder)
    iterate = Loader.iterate

    def interrupted(self: Loader, *arguments: Any) -> Iterator[Any]:
        for step, batch in enumerate(iterate(self, *arguments), 1):
            if step == STOPPED_AFTER:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "iterate", interrupted)
        assert train_to_the_end(folder) == 0


def stop_evaluating(folder: Path) -> None:
    """Trains, and leaves an evaluation with some answers and no results, as a kill does."""
    finish(folder)
    place = folder / "run" / "eval" / soak_runs.TEST
    lines = (place / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (place / "predictions.jsonl").write_bytes(b"".join(lines[:4]))
    (place / "results.json").unlink()


def finish(folder: Path) -> None:
    soak_runs.make_data(folder)
    assert train_to_the_end(folder) == 0
    assert evaluate_run(folder) == 0


def stop_building(folder: Path) -> None:
    """Leaves all stages of a build, and none of what is made of them."""
    assert build_chains(folder) == 0
    shutil.rmtree(folder / "built")


def end_of_building(folder: Path) -> dict[str, Any]:
    work = folder / "built.work"
    return builds.contents(folder / "built") | {name: (work / name).read_bytes() for name in (FILE, REPORT)}


JOBS = {
    "train": Job(stop_training, train_to_the_end, lambda folder: soak_runs.end_of_training(folder / "run")),
    "evaluate": Job(stop_evaluating, evaluate_run, lambda folder: soak_runs.end_of_evaluation(folder / "run")),
    "build": Job(stop_building, build_chains, end_of_building),
    "report": Job(finish, report_run, lambda folder: {"page": (folder / "page.html").read_bytes()}),
}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets commands run in this process, and writes missing token caches without TensorFlow."""

    def write(config: Any, specs: Any, _: object) -> None:
        for spec in specs:
            shutil.rmtree(token_cache.cache_folder(config, spec, load_vocabulary(config))[0], True)
        write_caches(config, specs)

    one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", one)
    monkeypatch.setattr(processes, "start_jax", lambda **_: None)
    monkeypatch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)
    monkeypatch.setattr(token_cache, "_write_in_child", write)


def run(command: Callable[[Path], int], folder: Path) -> tuple[int, str]:
    """The exit status, and what was said on stderr."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        return cli.run(lambda: command(folder)), errors.getvalue()


def names(damage: Damage, said: str) -> bool:
    """Whether something that was said names the file, its folder, or its checkpoint."""
    parts = damage.file.split("/")
    places = ["/".join(parts[:3])] if "checkpoints" in parts else [damage.file, "/".join(parts[:-1])]
    return any(f"/{place}" in said for place in places)


def outcome(job: Job, folder: Path, damage: Damage, wanted: dict[str, Any]) -> str:
    """What came of a damage: `same`, `named` where the end differs, `stopped`; else why that is a fault."""
    status, said = run(job.command, folder)
    if status == 0:
        found = job.end(folder)
        differ = {key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)}
        if damage.file.startswith(UNREAD):
            differ -= {"events"}
        if not differ:
            return "same"
        return "named" if names(damage, said) else f"FAULT: other {sorted(differ)}, and nothing is said: {said[-300:]}"
    lines = said.rstrip("\n").split("\n")
    if status != cli.EXIT_USER_ERROR or not lines[-1].startswith("error: "):
        return f"FAULT: ended with status {status}: {said[-300:]}"
    return "stopped" if names(damage, lines[-1]) else f"FAULT: stopped without naming the file: {lines[-1]}"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", JOBS)
def test_no_damaged_file_is_used_silently(
    tmp_path: Path, name: str, count: Callable[[str], int], seed: int, measured: Callable[..., None]
) -> None:
    job, folder, sound = JOBS[name], tmp_path / "w", tmp_path / "sound"
    job.prepare(folder)
    shutil.copytree(folder, sound)
    assert run(job.command, folder)[0] == 0
    wanted, found = job.end(folder), {}
    for damage in damages.draw(sound, seed, count("damages"), FLIPS):
        if damage.file == "config.json":
            continue  # the user's own, which says what to do
        shutil.rmtree(folder)
        shutil.copytree(sound, folder)
        damage.apply(folder)
        found[damage] = outcome(job, folder, damage, wanted)
    tally = collections.Counter(text if text.isalpha() else "FAULT" for text in found.values())
    measured(damages=len(found), files=len({damage.file for damage in found}), **tally)
    assert not {damage: text for damage, text in found.items() if not text.isalpha()}, f"--soak_seed {seed}"
