import itertools
import math
import os
import re
import shutil
import signal
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.config.run import RunConfig
from coi_jax.models import Network, Params
from coi_jax.runs import checkpoint, checkpoint_steps
from coi_jax.runs.metrics_rows import read_metrics
from coi_jax.runs.run_folder import RunFolder, open_run
from coi_jax.runs.train_state import TrainState
from coi_jax.training import loop
from coi_jax.training.loop import CheckpointSchedule, Fitted, TrainingJob, best_interval, prepare
from coi_jax.training.step import Batch
from coi_jax.training.termination import Termination
from tests.helpers import published_models, tiny_models
from tests.helpers.configs import epochs, quickstart_config
from tests.helpers.tiny_models import StandInLoader, assert_close, run_config
from tests.helpers.token_caches import small_config, write_caches, write_dataset
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


def fit(job: TrainingJob) -> Fitted:
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_a_request_once_and_then_the_end(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Termination() as stop:
        assert not stop.requested(1)
        os.kill(os.getpid(), number)
        assert stop.requested(2)
        assert stop.signal == number
        assert signal.getsignal(number) is before
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Termination() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested(1)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_checkpoints_are_due_by_steps_and_by_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    schedule = CheckpointSchedule(run_config(train__checkpoint_every=4, train__checkpoint_minutes=2.0).train)
    by_steps = CheckpointSchedule(run_config(train__checkpoint_every=4, train__checkpoint_minutes=None).train)
    due = []
    for step in range(1, 10):
        now[0] += 50
        due += [step] if schedule.is_due(step) else []
        assert by_steps.is_due(step) == (step % 4 == 0)
    assert due == [3, 4, 7, 8]  # at 150 s, then by steps, again 150 s after that, and by steps


def test_the_time_between_checkpoints_follows_from_preemptions(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    settings: dict[str, Any] = {"train__checkpoint_every": 1000, "train__preemption_hours": 4.0}
    settings["train__checkpoint_minutes"] = 10.0
    schedule = CheckpointSchedule(run_config(**settings).train)
    due = []
    for step in range(1, 40):
        now[0] += 60
        if schedule.is_due(step):
            due.append(step)
            now[0] += 5  # a save
            schedule.has_saved()
    assert schedule.seconds == pytest.approx(best_interval(5.0, 4 * 3600.0))
    assert due == [10, 17, 24, 31, 38]  # the first after 10 minutes, the others after 376 s


@pytest.mark.parametrize(("save", "failure"), [(5.0, 14400.0), (60.0, 3600.0), (300.0, 3600.0)])
def test_no_other_interval_loses_less_time(save: float, failure: float) -> None:
    """Daly's model: the run is split into parts, each taken again from its beginning where a failure hits it."""

    def wall_time(interval: float) -> float:
        return failure * math.expm1((interval + save) / failure) / interval

    best = best_interval(save, failure)
    assert wall_time(best) <= min(wall_time(best * factor) for factor in (0.8, 0.9, 1.1, 1.25))
    assert best_interval(2 * failure, failure) == failure


def test_numbers_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    config = run_config(train__checkpoint_every=4, train__keep_checkpoints=1)
    job = make_job(tmp_path, config)
    steps = itertools.count(1)

    def poisoned_at_eight(state: TrainState, batch: Batch) -> Any:
        if next(steps) == 8:
            state = state._replace(params=jax.tree.map(lambda leaf: (leaf - leaf) / (leaf - leaf), state.params))
        return job.step(state, batch)

    with pytest.raises(UserError, match=r"loss of step 8: nan: training diverged.*\(examples example 7: python"):
        fit(TrainingJob(**{**vars(job), "step": poisoned_at_eight}))
    assert checkpoint_steps.steps(tmp_path / "checkpoints") == [4]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params(tmp_path)))


def poisoned(batches: Iterator[Any], start: int, steps: Collection[int]) -> Iterator[Any]:
    """Batches whose weights are infinite at some steps, which count from 1."""
    for step, batch in enumerate(batches, start + 1):
        yield batch | {"weights": jnp.where(step in steps, jnp.inf, batch["weights"])}


class PoisonedLoader(StandInLoader):
    def __init__(self, total_steps: int, steps: Collection[int]) -> None:
        super().__init__(total_steps)
        self.steps = steps

    def iterate(self, start_step: int, sharding: jax.sharding.Sharding) -> Iterator[Any]:
        return poisoned(super().iterate(start_step, sharding), start_step, self.steps)


def test_a_step_that_is_not_finite_is_left_out_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command goes on from the last checkpoint, without the step that stopped it."""
    job = make_job(tmp_path, run_config())
    with pytest.raises(
        UserError, match=r"of step 6: .* --config\.train\.on_not_finite=skip \(examples example 5: python"
    ):
        fit(replace(job, loader=PoisonedLoader(10, {6})))
    job = make_job(tmp_path, run_config(train__on_not_finite="skip"))
    fitted = fit(replace(job, loader=PoisonedLoader(10, {6})))
    assert fitted.step == 10
    assert np.isfinite(fitted.loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params(tmp_path)))
    said = capsys.readouterr().err
    assert "left out: loss of step 6: " in said
    assert f"(examples example 5: python -m coi_jax.batch --workdir {tmp_path} --step 6)" in said
    rows = {row["step"]: row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")}
    assert rows[6] is None
    assert sorted(rows) == list(range(1, 11))


def test_a_step_that_is_left_out_changes_nothing(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"train__length__count": 4, "train__checkpoint_every": 1, "train__keep_checkpoints": 4}
    job = make_job(tmp_path, run_config(train__on_not_finite="skip", **settings))
    fit(replace(job, loader=PoisonedLoader(4, {3})))
    two, three, four = (
        jax.device_get(checkpoint.restore_params(tmp_path / "checkpoints", tiny_models.network(), step=step))
        for step in (2, 3, 4)
    )
    assert_close(two, three, tolerance=0)
    with pytest.raises(AssertionError):
        assert_close(three, four, tolerance=0)


def test_too_many_steps_in_a_row_are_an_error_all_the_same(tmp_path: Path) -> None:
    job = make_job(tmp_path, run_config(train__length__count=20, train__on_not_finite="skip"))
    with pytest.raises(UserError, match=r"of step 13: .*more than 10 steps in a row are not finite"):
        fit(replace(job, loader=PoisonedLoader(20, range(3, 20))))


@pytest.mark.parametrize(("steps", "left_out"), [(range(4, 7), None), ([2, 6], 2), (range(1, 7), None)])
def test_a_run_whose_last_half_is_left_out_is_an_error(
    tmp_path: Path, steps: Collection[int], left_out: int | None
) -> None:
    """Also where it was stopped in between: nothing is saved of its end, so the same command says so again."""
    settings: dict[str, Any] = {"train__length__count": 6, "train__checkpoint_every": 5}
    job = make_job(tmp_path, run_config(train__on_not_finite="skip", **settings))
    for _ in range(2):
        if left_out is None:
            message = f"of step 6: .*the last {len(steps)} of 6 steps are not finite; lower config.optimizer"
            with pytest.raises(UserError, match=message):
                fit(replace(job, loader=PoisonedLoader(6, steps)))
            assert checkpoint_steps.steps(tmp_path / "checkpoints") == [5]
        else:
            assert fit(replace(job, loader=PoisonedLoader(6, steps))).left_out == left_out


def test_an_update_that_is_not_finite_ends_the_last_step_too(tmp_path: Path) -> None:
    config = run_config(train__length__count=1, optimizer__learning_rate=3e38, optimizer__weight_decay=2.0)
    with pytest.raises(UserError, match=r"parameters of step 1: not finite: training diverged"):
        fit(make_job(tmp_path, config))
    assert checkpoint_steps.steps(tmp_path / "checkpoints") == []


def test_a_damaged_checkpoint_is_passed_over_and_the_end_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(train__length__count=6, train__checkpoint_every=2, train__keep_checkpoints=2)
    fit(make_job(tmp_path, config))
    whole, rows = params(tmp_path), numbers(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "6" / "params")
    assert fit(make_job(tmp_path, config))[0] == 6
    errors = capsys.readouterr().err
    assert re.search(r"6 is damaged \(.*\); it is kept as damaged-6, and the one before it is used", errors)
    assert "going on from step 4" in errors
    assert numbers(tmp_path) == rows
    jax.tree.map(np.testing.assert_array_equal, params(tmp_path), whole)


def test_a_tokenizer_larger_than_the_embedding_is_known_before_anything_is_written(tmp_path: Path) -> None:
    FAMILIES["llama3"](tmp_path / "model")
    fields = {"vocabulary__kind": "tokenizer", "vocabulary__folder": str(tmp_path / "model")}
    config = run_config(**fields, model__vocabulary_size=400, data__cache_folder=str(tmp_path / "caches"))
    with pytest.raises(UserError, match=r"config\.model\.vocabulary_size: 400: the vocabulary has 405 ids"):
        prepare(config, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "caches").exists()
    assert not (tmp_path / "run").exists()


def test_rows_longer_than_the_published_positions_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, run = run_config(), RunFolder(tmp_path)
    loop.warn_of_positions(config, run)
    for positions, warned in ((config.data.length, False), (config.data.length - 1, True)):
        values = {"model_type": "llama", "max_position_embeddings": positions}
        files.write_json(run.published / "config.json", values)
        loop.warn_of_positions(config, run)
        assert (f"longer than the {positions} that" in capsys.readouterr().err) == warned


def test_what_does_not_fit_a_row_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "data", {1: 60, 2: 40})
    config = small_config(tmp_path, data__length=130, **epochs(1.0))
    write_caches(config)
    prepare(config, open_run(tmp_path / "run", config))
    assert "of 100 examples, " in capsys.readouterr().err


def test_weights_are_checked_before_any_data_are_read(tmp_path: Path) -> None:
    """There are no data here, and the tensors have other sizes than their config.json says."""
    folder = published_models.save(tmp_path / "model", "Qwen 3")
    path = folder / "config.json"
    files.write_json(path, files.read_json(path) | {"intermediate_size": 40})
    absent = {"data.folder": str(tmp_path / "none"), "data.cache_folder": str(tmp_path / "caches")}
    config = quickstart_config({"weights.folder": str(folder), "vocabulary": "bytes"} | absent)
    run = open_run(tmp_path / "run", config)
    with pytest.raises(UserError, match=r"mlp.gate_proj.weight \[36, 20\], where \[40, 20\] is due"):
        prepare(config, run)
