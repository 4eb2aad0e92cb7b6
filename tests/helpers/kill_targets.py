"""The commands that are killed, each on a folder of its own: how it is made, what runs, and what must come out."""

import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from coi_jax import convert, evaluate, judge, train
from coi_jax.common import cli
from coi_jax.data.loader import Loader
from coi_jax.llm.reply_store import SqliteStore
from coi_jax.runs import checkpoint_steps
from tests.helpers import builds, soak_runs
from tests.helpers.fake_commands import make_workplace, set_fakes
from tests.helpers.killed import Condition, Victim
from tests.helpers.llm_clients import KEY

STEPS = 12
STEP_SECONDS = 0.03  # so that kills come between steps too


def there(pattern: str) -> Condition:
    """Whether something in the folder has a name of this pattern."""
    return lambda folder: any(True for _ in folder.glob(pattern))


def _lines(path: Path) -> list[bytes]:
    """The whole lines of a file."""
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1].splitlines(keepends=True)


def train_slowly(folder: Path, flags: Sequence[str] = ()) -> int:
    """Train with some time between steps."""
    iterate = Loader.iterate

    def slowly(self: Loader, *arguments: Any) -> Iterator[Any]:
        for batch in iterate(self, *arguments):
            time.sleep(STEP_SECONDS)
            yield batch

    with mock.patch.object(Loader, "iterate", slowly):
        return cli.run(lambda: train.main([*soak_runs.training(folder / "config.json", folder / "run"), *flags]))


def train_at(jump: float, folder: Path) -> int:
    """Train with a clock that is so many seconds off."""
    now = time.time
    with mock.patch("time.time", side_effect=lambda: now() + jump):
        return train_slowly(folder)


def _saved(folder: Path) -> list[int]:
    return sorted(checkpoint_steps.steps(folder / "run" / "checkpoints"))


def logged(folder: Path) -> int:
    """The rows of metrics.jsonl."""
    return len(_lines(folder / "run" / "metrics.jsonl"))


TRAINING = Victim(
    train_slowly,
    lambda folder: soak_runs.end_of_training(folder / "run"),
    {
        "compile": there("run/environment.json"),
        "step": lambda folder: logged(folder) > max([0, *_saved(folder)]),
        "save": there("run/checkpoints/*tmp*/*"),
        "commit": there("run/checkpoints/*tmp*/position*/metadata"),
        "delete": lambda folder: len(_saved(folder)) > soak_runs.KEPT,
        "finish": lambda folder: logged(folder) == STEPS,
    },
    lost=lambda folder: max(0, logged(folder) - max([0, *_saved(folder)])),
)


ADAPTERS: dict[str, Any] = {
    "data.length": 256,
    "lora.rank": 2,
    "lora.alpha": 4.0,
    "train.validation": {"every": 2, "split": "validation", "examples": None, "keep_best": True},
}


def make_adapter_training(folder: Path) -> None:
    """Fills a folder with what a training of adapters needs, with validation and its best checkpoint."""
    soak_runs.make_data(folder, **{"train.length.count": STEPS} | ADAPTERS)


def _end_of_adapter_training(folder: Path) -> dict[str, Any]:
    """The end of a training, with its best checkpoint and the base that it trained beside."""
    best = folder / "run" / "best"
    [step] = checkpoint_steps.steps(best)
    kept = {f"best/{name}": data for name, data in soak_runs.arrays(best / str(step)).items()}
    base = (folder / "run" / "base" / "checksums.json").read_bytes()
    return soak_runs.end_of_training(folder / "run") | kept | {"best": step, "base": base}


ADAPTER_TRAINING = dataclasses.replace(TRAINING, end=_end_of_adapter_training)


def _evaluation(folder: Path) -> int:
    return cli.run(lambda: evaluate.main([f"--workdir={folder / 'run'}"]))


def _answers(folder: Path) -> list[bytes]:
    return _lines(folder / "run" / "eval" / soak_runs.TEST / "predictions.jsonl")


def _keeps_answers(folder: Path, marks: Sequence[list[bytes]]) -> None:
    """No answer that was written is generated again: it stays where it was."""
    for before in marks:
        assert _answers(folder)[: len(before)] == before


def make_training(folder: Path) -> None:
    """Fills a folder with what a training needs."""
    soak_runs.make_data(folder, **{"train.length.count": STEPS})


EVALUATION = Victim(
    _evaluation,
    lambda folder: soak_runs.end_of_evaluation(folder / "run"),
    {
        "prepare": there("run/eval/*/generated_from.json"),
        "answers": lambda folder: len(_answers(folder)) > 0,
        "score": lambda folder: len(_answers(folder)) == soak_runs.TESTS,
        "finish": there("run/eval/*/results.json"),
    },
    mark=_answers,
    settle=_keeps_answers,
)


def _conversion(source: str, folder: Path) -> int:
    """A command that has ended says that its folder is there; so it is given only where there is none."""
    out = folder / "out"
    if out.exists():
        return 0
    flags = ["--config.vocabulary.kind=bytes"] if source == "published" else []
    return cli.run(lambda: convert.main([f"--src={folder / source}", f"--out={out}", *flags]))


def _converted(folder: Path) -> dict[str, Any]:
    """The files of a folder, or the arrays of a run and its other files."""
    out = folder / "out"
    step = out / "checkpoints" / "0"
    arrays = soak_runs.arrays(step) if step.exists() else {}
    names = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    plain = {name: path.read_bytes() for name, path in names.items() if "checkpoints/" not in name}
    return arrays | {name: _without_paths(data, folder) for name, data in plain.items()}


def _without_paths(data: bytes, folder: Path) -> bytes:
    """What a file holds but for the names of this folder, and for the hash of a text that has them."""
    text = data.replace(str(folder).encode(), b"")
    if text == data or not data.startswith(b"{"):
        return text
    return json.dumps({name: value for name, value in json.loads(text).items() if name != "sha256"}).encode()


def conversion(source: str) -> Victim:
    """A published folder or a GGUF file becomes a run or a folder, in a hidden folder first."""
    return Victim(
        functools.partial(_conversion, source),
        _converted,
        {"write": there(".out*/*"), "finish": there("out")},
    )


def _build(url: str, source: Path, folder: Path) -> int:
    return builds.run(builds.flags(folder / "built", source, **builds.endpoint(url)))


def _built(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = dict(builds.contents(folder / "built"))
    manifest = json.loads(found["manifest.json"])
    for section in (manifest["notes"]["config"], manifest["notes"]["config"]["opinion"]):
        del section["endpoint"]["base_url"]
    manifest["notes"]["config"].pop("store", None)
    return found | {"manifest.json": manifest}


def _stored(folder: Path) -> set[str]:
    path = folder / "replies.sqlite"
    return set(SqliteStore(path)) if path.exists() else set()


class Paid:
    """That no call is made again whose reply was stored before a kill."""

    def __init__(self, asked: Callable[[], list[str]]) -> None:
        self._asked = asked

    def mark(self, folder: Path) -> tuple[int, set[str]]:
        """The number of calls so far, and the keys of those that are stored."""
        return len(self._asked()), _stored(folder)

    def settle(self, _: Path, marks: Sequence[tuple[int, set[str]]]) -> None:
        """Check the calls after each mark."""
        keys = self._asked()
        for before, stored in marks:
            assert not stored & set(keys[before:]), "paid twice"


def building(url: str, source: Path, paid: Paid) -> Victim:
    """A build, with a model behind a server."""
    return Victim(
        functools.partial(_build, url, source),
        _built,
        {"replies": there("replies.sqlite*"), "stages": there("built.work/stages/*"), "finish": there("built")},
        mark=paid.mark,
        settle=paid.settle,
        environment=builds.ENVIRONMENT,
    )


def _judge(url: str, folder: Path) -> int:
    config = ["--config=configs/judge/pairwise.py", f"--config.endpoint.base_url={url}"]
    runs = [f"--a={folder / 'a'}", f"--b={folder / 'b'}", "--task=coi2_test"]
    return cli.run(lambda: judge.main([*runs, *config, f"--config.store={folder / 'replies.sqlite'}"]))


def _verdicts(folder: Path) -> dict[str, Any]:
    text = (folder / "a" / "judge" / "coi2_test_vs_b_by_model.json").read_bytes()
    return {"verdicts": _without_paths(text, folder)}


def judging(url: str, paid: Paid) -> Victim:
    """A comparison by a model behind a server."""
    return Victim(
        functools.partial(_judge, url),
        _verdicts,
        {"replies": lambda folder: bool(_stored(folder)), "finish": there("a/judge/*")},
        mark=paid.mark,
        settle=paid.settle,
        environment={"OPENAI_API_KEY": KEY, "COI_LLM_MODEL": "m"},
    )


QUESTIONS = 12


def _serve(folder: Path) -> int:
    """A server, and a client that asks it one thing after the other and writes down what it says."""
    from tests.helpers.servers import running_server

    path = folder / "answers.jsonl"
    with running_server(folder / "run") as server, open(path, "ab") as file:
        file.truncate(sum(map(len, _lines(path))))
        for number in range(len(_lines(path)), QUESTIONS):
            settings = {"model": "run", "prompt": f"question {number}", "max_tokens": 6, "temperature": 1.0, "seed": 1}
            reply = server.post("/v1/completions", json=settings)
            assert reply.status_code == 200, reply.text
            text = reply.json()["choices"][0]["text"]
            file.write(json.dumps(text).encode() + b"\n")
            file.flush()
    return 0


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _is_untouched(folder: Path, marks: Sequence[dict[str, bytes]]) -> None:
    for before in marks:
        assert _files(folder / "run") == before


SERVING = Victim(
    _serve,
    lambda folder: {"answers": _lines(folder / "answers.jsonl")},
    {"load": there("answers.jsonl"), "answers": lambda folder: bool(_lines(folder / "answers.jsonl"))},
    mark=lambda folder: _files(folder / "run"),
    settle=_is_untouched,
)


def _sweep(folder: Path) -> int:
    from launch.sweep import __main__ as sweep

    os.chdir(folder)
    return cli.run(lambda: sweep.main(["--sweep", "configs/sweeps/quickstart.py", "--backend", "local"]))


def make_sweep(folder: Path) -> None:
    """A workplace whose trainer and evaluator note whom they were called for."""
    make_workplace(folder)
    note = "time.sleep(0.2); open('{}', 'a').write(arm + '\\n'); "
    set_fakes(folder, note.format("trained") + "train(2)", note.format("scored") + "score()")


def _trained(folder: Path) -> set[str]:
    """The arms that have been trained to the end."""
    done = folder.glob("runs/quickstart/*/checkpoints/2/position/metadata")
    return {path.parents[3].name.partition("-")[0] for path in done if path.read_bytes()}


def _calls(folder: Path) -> list[str]:
    return [line.decode().strip() for line in _lines(folder / "trained")]


def _trains_once(folder: Path, marks: Sequence[tuple[int, set[str]]]) -> None:
    for before, trained in marks:
        assert not trained & set(_calls(folder)[before:]), "trained again"


SWEEP = Victim(
    _sweep,
    lambda folder: {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("runs/*/*/eval/*/results.json")
    },
    {
        "train": there("trained"),
        "evaluate": there("scored"),
        "last": lambda folder: len(_calls(folder)) >= 3,
    },
    mark=lambda folder: (len(_calls(folder)), _trained(folder)),
    settle=_trains_once,
)
