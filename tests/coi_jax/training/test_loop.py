import os
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.models import Network, Params
from coi_jax.runs import checkpoint
from coi_jax.runs.metrics_log import read_metrics
from coi_jax.runs.run_folder import RunFolder, open_run
from coi_jax.training import loop
from coi_jax.training.loop import Termination, TrainingJob, prepare
from tests.helpers import tiny_models
from tests.helpers.tiny_models import StandInLoader, run_config
from tests.helpers.tokenizer_folders import FAMILIES

TIMES = {"seconds_per_step", "tokens_per_second", "examples_per_second", "mfu"}


@pytest.fixture(autouse=True)
def known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)


def make_job(
    folder: Path, config: RunConfig, fingerprint: str = "some data", network: Network | None = None, **mesh: int
) -> TrainingJob:
    loader = StandInLoader(tiny_models.steps_of(config), fingerprint)
    network = network or tiny_models.network()
    return loop.make_job(config, open_run(folder, config), tiny_models.mesh(**mesh), loader, network)


def fit(job: TrainingJob) -> tuple[int, float]:
    with tiny_models.quick_compilation():
        return loop.fit(job)


def numbers(folder: Path) -> list[dict[str, Any]]:
    rows = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def params(folder: Path) -> Params:
    restored: Params = jax.device_get(checkpoint.restore_params(folder / "checkpoints", tiny_models.network()))
    return restored


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    config = run_config()
    assert fit(make_job(whole, config))[0] == 10
    monkeypatch.setattr(Termination, "requested", lambda self, step: step == 5)
    assert fit(make_job(parted, config))[0] == 5
    monkeypatch.undo()
    monkeypatch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)
    assert fit(make_job(parted, config))[0] == 10
    assert numbers(parted) == numbers(whole)
    jax.tree.map(np.testing.assert_array_equal, params(parted), params(whole))


def test_adapters_go_on_beside_the_base_that_was_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    config = run_config(train__length__count=4, lora__rank=2, lora__dropout=0.2, lora__base_dtype="int8")
    network = tiny_models.network(lora__rank=2, lora__dropout=0.2, lora__base_dtype="int8")
    fit(make_job(whole, config, network=network))
    monkeypatch.setattr(Termination, "requested", lambda self, step: step == 2)
    fit(make_job(parted, config, network=network))
    monkeypatch.undo()
    monkeypatch.setattr("coi_jax.parallel.hardware.matmul_peak", lambda dtype: 1e12)
    monkeypatch.setattr("coi_jax.runs.checkpoint.save_base", None)
    fit(make_job(parted, config, network=network))
    assert numbers(parted) == numbers(whole)
    for read in (checkpoint.restore_params, restore_base):
        jax.tree.map(
            np.testing.assert_array_equal,
            *(jax.device_get(read(folder / "checkpoints", network)) for folder in (whole, parted)),
        )
    adapters = checkpoint.restore_params(whole / "checkpoints", network)
    found, expected = map(tiny_models.structure, (adapters, network.split(network.abstract())[0]))
    assert found == expected


def restore_base(checkpoints: Path, network: Network) -> Params:
    return checkpoint.restore_base(checkpoints.parent / "base", network)


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint_on_any_mesh(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = run_config(train__keep_checkpoints=3)
    fit(make_job(whole, config))
    job = make_job(killed, config)

    seven = iter([job.step] * 7)

    def break_at_seven(state: Any, batch: Any) -> Any:
        step = next(seven, None)
        if step is None:
            raise KeyboardInterrupt
        return step(state, batch)

    with pytest.raises(KeyboardInterrupt):
        fit(TrainingJob(**{**vars(job), "step": break_at_seven}))
    assert checkpoint.latest_step(killed / "checkpoints") == 4
    assert fit(make_job(killed, config, fsdp=2, tensor=2))[0] == 10
    assert [row["step"] for row in numbers(killed)] == list(range(1, 11))
    losses = [[row["loss"] for row in numbers(folder)] for folder in (killed, whole)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_other_data_under_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    config = run_config(train__length__count=2)
    fit(make_job(tmp_path, config))
    with pytest.raises(UserError, match="trained on data that has changed"):
        fit(make_job(tmp_path, config, fingerprint="other data"))


def test_rows_that_the_sequence_axis_does_not_divide_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mesh\.sequence: 3"):
        make_job(tmp_path, run_config(), sequence=3)


def test_sigterm_is_a_request_once_and_then_the_end() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Termination() as stop:
        assert not stop.requested(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested(2)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_tokenizer_larger_than_the_embedding_is_known_before_anything_is_written(tmp_path: Path) -> None:
    FAMILIES["llama3"](tmp_path / "model")
    fields = {"vocabulary__kind": "tokenizer", "vocabulary__folder": str(tmp_path / "model")}
    config = run_config(**fields, model__vocabulary_size=400, data__cache_folder=str(tmp_path / "caches"))
    with pytest.raises(UserError, match=r"config\.model\.vocabulary_size: 400: the vocabulary has 405 ids"):
        prepare(config, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "caches").exists()
    assert not (tmp_path / "run").exists()
