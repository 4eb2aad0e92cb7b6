"""SIGKILL of whole process groups at random moments: the end is that of a run that nothing interrupted, bit for bit."""

import dataclasses
import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Quantization
from transformers import LlamaConfig

from coi_jax.common import files
from tests.helpers import gguf_files, kill_targets, killed, published_models, soak_runs, super_ni_tasks
from tests.helpers.answered_runs import write_run
from tests.helpers.kill_targets import ADAPTER_TRAINING, EVALUATION, SERVING, STEPS, SWEEP, TRAINING, Paid
from tests.helpers.killed import Run, Victim
from tests.helpers.llm_server import running
from tests.helpers.reference_models import reference
from tests.helpers.scripted_server import Response, completion, serving
from tests.helpers.tokenizer_folders import llama3

pytestmark = pytest.mark.xdist_group("kills")  # commands are forked from one server

Measured = Callable[..., None]
Make = Callable[[Path], Any]
OTHERS = 5  # of every other command there are fewer kills by this factor
REPLY_SECONDS = 0.02
LLAMA: dict[str, Any] = {
    "vocab_size": 552,  # more rows than the tokenizer has tokens
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "attn_implementation": "eager",
    "tie_word_embeddings": False,
}


@dataclasses.dataclass(frozen=True)
class Killing:
    """What the kills of all commands share."""

    place: Path
    kills: int
    seed: int
    measured: Measured

    def __call__(self, victim: Victim, make: Make, share: int = OTHERS) -> killed.Tally:
        """Kills a command, and keeps the figures; `make` fills an empty folder."""
        numbers = iter(range(10**9))

        def prepare() -> Path:
            folder = self.place / f"run{next(numbers)}"
            folder.mkdir(parents=True)
            make(folder)
            return folder

        seconds, wanted = killed.measure(victim, prepare())
        kills = max(1, self.kills // share)
        tally = killed.kill_often(victim, prepare, kills, self.seed, seconds, wanted)
        self.measured(uninterrupted_seconds=round(seconds, 2), **dataclasses.asdict(tally))
        return tally


@pytest.fixture
def kill(tmp_path: Path, count: Callable[[str], int], seed: int, measured: Measured) -> Killing:
    return Killing(tmp_path / "kills", count("kills"), seed, measured)


def test_training(kill: Killing) -> None:
    tally = kill(TRAINING, kill_targets.make_training, share=1)
    # A checkpoint is written while training goes on, until the next one is due at most.
    assert tally.most_again <= 2 * soak_runs.INTERVAL, f"--soak_seed {kill.seed}"


def test_training_of_adapters_with_validation(kill: Killing) -> None:
    assert kill(ADAPTER_TRAINING, kill_targets.make_adapter_training).kills > 0


def test_evaluation(kill: Killing, trained: Path) -> None:
    assert kill(EVALUATION, lambda folder: shutil.copytree(trained, folder / "run")).kills > 0


def test_serving(kill: Killing, trained: Path) -> None:
    assert kill(SERVING, lambda folder: shutil.copytree(trained, folder / "run")).kills > 0


def test_sweep(kill: Killing) -> None:
    assert kill(SWEEP, kill_targets.make_sweep).kills > 0


def test_conversion_of_safetensors(kill: Killing, tmp_path: Path) -> None:
    source = published_models.save(tmp_path / "published", "Llama 3.2")
    assert (
        kill(kill_targets.conversion("published"), lambda folder: shutil.copytree(source, folder / "published")).kills
        > 0
    )


def test_conversion_of_gguf(kill: Killing, tmp_path: Path) -> None:
    llama3(tmp_path / "tokenizer")
    source = tmp_path / "model.gguf"
    gguf_files.write(source, reference(LlamaConfig(**LLAMA)), tmp_path / "tokenizer", Quantization.Q8_0, "llama-bpe")
    assert (
        kill(kill_targets.conversion("model.gguf"), lambda folder: shutil.copyfile(source, folder / "model.gguf")).kills
        > 0
    )


def test_building(kill: Killing, tmp_path: Path) -> None:
    source, log = super_ni_tasks.write(tmp_path / "super_ni"), tmp_path / "log"
    with running(brain="reader", delay=REPLY_SECONDS, log=str(log)) as server:
        paid = Paid(lambda: [row["key"] for row in files.read_jsonl(log)])
        assert kill(kill_targets.building(server.url, source, paid), lambda folder: None).kills > 0


def test_judging(kill: Killing) -> None:
    def prefer(request: dict[str, Any], _: int) -> Response:
        time.sleep(REPLY_SECONDS)
        better = random.Random(files.digest(request)).choice(("first", "second", "tie"))
        return completion(json.dumps({"reason": "It is.", "better": better}))

    def make(folder: Path) -> None:
        write_run(folder / "a", 24)
        write_run(folder / "b", 9)

    with serving(prefer) as served:
        paid = Paid(lambda: [files.digest(request) for request in served.requests])
        assert kill(kill_targets.judging(f"{served.url}/v1", paid), make).kills > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_to_training_redoes_nothing(
    number: signal.Signals, tmp_path: Path, trained: Path, seed: int, measured: Measured
) -> None:
    folder, chance = tmp_path / "run", random.Random(f"{seed} {number}")
    folder.mkdir()
    kill_targets.make_training(folder)
    run, step = Run(TRAINING, folder), chance.randrange(1, STEPS - 1)
    assert run.wait_until(lambda _: kill_targets.logged(folder) >= step, chance.uniform(0, killed.LATEST)), run.said()
    run.send(number)
    assert run.wait() == (130 if number == signal.SIGINT else 0), run.said()
    done = kill_targets.logged(folder)
    assert TRAINING.lost(folder) == 0, f"--soak_seed {seed}"
    _, end = killed.measure(TRAINING, folder)
    assert end == soak_runs.end_of_training(trained), f"--soak_seed {seed}"
    measured(stopped_after=done)


@pytest.mark.parametrize("name", ["training", "evaluation"])
def test_a_stop_and_a_continuation_change_nothing(
    name: str, tmp_path: Path, trained: Path, seed: int, measured: Measured
) -> None:
    folder, chance = tmp_path / "run", random.Random(f"{seed} {name}")
    folder.mkdir()
    victim = TRAINING if name == "training" else EVALUATION
    if name == "training":
        kill_targets.make_training(folder)
        wanted = soak_runs.end_of_training(trained)
    else:
        shutil.copytree(trained, folder / "run")
        whole = tmp_path / "whole"
        shutil.copytree(trained, whole / "run")
        _, wanted = killed.measure(victim, whole)
    run, stops = Run(victim, folder), 0
    while run.wait_until(lambda _: True, chance.uniform(0.1, 0.6)):
        run.send(signal.SIGSTOP)
        time.sleep(chance.uniform(0.05, 0.2))
        run.send(signal.SIGCONT)
        stops += 1
    assert run.wait() == 0, run.said()
    assert victim.end(folder) == wanted, f"--soak_seed {seed}"
    measured(stops=stops)
