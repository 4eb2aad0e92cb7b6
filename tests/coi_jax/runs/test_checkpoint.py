import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coi_jax.common.errors import UserError
from coi_jax.runs import checkpoint, streamed_checkpoint
from coi_jax.runs.checkpoint import Checkpoints, latest_step, read_position, restore_params
from coi_jax.runs.checkpoint_steps import steps
from coi_jax.runs.checksums import checksums
from coi_jax.runs.damage import DamagedCheckpoint, NotReadBack, damage_errors
from coi_jax.runs.storage_errors import storage_errors
from coi_jax.runs.streamed_checkpoint import Streamed
from coi_jax.runs.train_state import TrainState
from tests.helpers.tiny_models import Trained, mesh, network


@pytest.fixture(scope="module")
def eight() -> Trained:
    return Trained(network(), mesh(fsdp=2, tensor=2, replica=2))


@pytest.fixture(scope="module")
def one() -> Trained:
    return Trained(network(), mesh())


def save(folder: Path, trained: Trained, *at: int, keep: int = 3) -> None:
    save_state(folder, trained.state, *at, keep=keep)


def save_state(folder: Path, state: TrainState, *at: int, keep: int) -> None:
    with Checkpoints(folder, keep=keep) as checkpoints:
        for step in at:
            checkpoints.save(state, step, {"total_steps": 9, "loader": "data"})


def assert_same(left: Any, right: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(left), jax.device_get(right))


def test_the_newest_few_are_kept_with_their_position(tmp_path: Path, one: Trained) -> None:
    assert latest_step(tmp_path / "none") is None
    save(tmp_path, one, 2, 4, 10, keep=2)
    assert steps(tmp_path) == [4, 10]
    assert latest_step(tmp_path) == 10
    assert read_position(tmp_path, 4) == {"step": 4, "total_steps": 9, "loader": "data"}


@pytest.mark.parametrize("way", ["8 to 1", "1 to 8"])
def test_a_state_moves_to_another_mesh_bit_by_bit(tmp_path: Path, one: Trained, eight: Trained, way: str) -> None:
    source, target = (eight, one) if way == "8 to 1" else (one, eight)
    save(tmp_path, source, 5)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        restored = checkpoints.restore(5, target.abstract, target.shardings)
    assert_same((restored.params, restored.opt_state), (source.state.params, source.state.opt_state))
    assert int(restored.step) == 5
    assert jax.tree.all(jax.tree.map(lambda leaf, place: leaf.sharding == place, restored, target.shardings))


@pytest.mark.parametrize("axes", [None, {"tensor": 4}])
def test_parameters_are_read_alone(tmp_path: Path, eight: Trained, axes: dict[str, int] | None) -> None:
    save(tmp_path, eight, 3)
    params = restore_params(tmp_path, network(), mesh=mesh(**axes) if axes else None)
    assert_same(params, eight.state.params)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path, one: Trained) -> None:
    with pytest.raises(UserError, match="train the run first"):
        restore_params(tmp_path, network())
    save(tmp_path, one, 3)
    with pytest.raises(UserError, match="/7: "):
        restore_params(tmp_path, network(), step=7)


@pytest.mark.parametrize("changes", [{"model__model_dim": 32}, {"model__layers": 3}, {"model__tied_embedding": True}])
def test_parameters_of_another_network_are_refused(tmp_path: Path, one: Trained, changes: dict[str, Any]) -> None:
    save(tmp_path, one, 3)
    with pytest.raises(UserError, match="does not hold this network's parameters"):
        restore_params(tmp_path, network(**changes))


def test_a_step_is_saved_once(tmp_path: Path, one: Trained) -> None:
    save(tmp_path, one, 3, 3)
    save(tmp_path, one, 3)
    assert steps(tmp_path) == [3]


def test_an_unfinished_checkpoint_does_not_count(tmp_path: Path, one: Trained) -> None:
    save(tmp_path, one, 3)
    (tmp_path / "6.orbax-checkpoint-tmp-1").mkdir()
    assert latest_step(tmp_path) == 3
    save(tmp_path, one, 8)
    assert steps(tmp_path) == [3, 8]


def test_a_full_disk_is_one_error_and_leaves_the_earlier_checkpoint(
    tmp_path: Path, one: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, one, 3)

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: write failed") from OSError(errno.ENOSPC, "No space left on device")

    with Checkpoints(tmp_path, keep=1) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "save", full)
        with pytest.raises(OSError, match="No space left on device") as caught:
            checkpoints.save(one.state, 4, {})
    assert caught.value.errno == errno.ENOSPC
    assert_same(restore_params(tmp_path, network()), one.state.params)


def test_numbers_that_are_not_finite_are_not_restored(tmp_path: Path, one: Trained) -> None:
    leaves, tree = jax.tree.flatten(one.state.params)
    damaged = jax.tree.unflatten(tree, [leaves[0].at[0].set(jnp.nan), *leaves[1:]])
    save_state(tmp_path, one.state._replace(params=damaged), 3, keep=1)
    said = rf"checkpoint: {tmp_path}/3: [a-z_.]+ holds numbers that are not finite .* to use the checkpoint before"
    with pytest.raises(UserError, match=said):
        restore_params(tmp_path, network())
    with Checkpoints(tmp_path, keep=1) as checkpoints, pytest.raises(UserError, match=said):
        checkpoints.restore(3, one.abstract, one.shardings)


def test_a_frozen_base_is_finite_too(tmp_path: Path) -> None:
    adapted = network(lora__rank=2)
    _, frozen = adapted.split(adapted.init(jax.random.key(0)))
    checkpoint.save_base(tmp_path / "base", jax.tree.map(lambda leaf: leaf * jnp.inf, frozen))
    with pytest.raises(UserError, match=rf"base: {tmp_path}/base: [a-z_.]+ holds numbers that are not finite"):
        checkpoint.restore_base(tmp_path / "base", adapted)


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(KeyError), storage_errors(tmp_path):
        raise KeyError("other")


FAILED = "UNKNOWN: Error reading local file \"/x/d\": Input/output error [os_error_code='5']"
LOST = "NOT_FOUND: Error opening local file \"/x/d\": No such file or directory [os_error_code='2']"


def test_what_storage_says_of_a_write_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output error") as told, storage_errors(tmp_path):
        raise ValueError(FAILED)
    assert (told.value.errno, told.value.filename) == (errno.EIO, str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be written .*403.*; run the same command"), storage_errors(tmp_path):
        raise RuntimeError("save failed") from ValueError("PERMISSION_DENIED: HTTP status 403")


@pytest.mark.parametrize(
    "error",
    [
        UserError("checkpoint", "3", "was not written as it was saved"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),  # of a device
        KeyError("a defect"),
    ],
)
def test_what_is_no_fault_of_storage_stays_what_it_is(tmp_path: Path, error: Exception) -> None:
    """Also where it was raised while a file was found missing, as many are."""
    error.__context__ = FileNotFoundError(errno.ENOENT, "No such file or directory", "missing")
    with pytest.raises(type(error)) as told, storage_errors(tmp_path):
        raise error
    assert told.value is error


def test_what_cannot_be_read_may_be_sound(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output error"), damage_errors(tmp_path, 3):
        raise ValueError(FAILED)
    with pytest.raises(DamagedCheckpoint), damage_errors(tmp_path, 3):
        raise ValueError(LOST)


@pytest.fixture(scope="module")
def two_steps(one: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of two steps that nobody changes: tests take copies."""
    folder = tmp_path_factory.mktemp("checkpoints")
    save_state(folder, trained_state(one), 3, 4, keep=3)
    return folder


def trained_state(trained: Trained) -> TrainState:
    """A state whose moments are not zeros, of which nothing would be written."""
    moments = jax.tree.map(
        lambda leaf: (jnp.sin(jnp.arange(leaf.size) + 1.0)).reshape(leaf.shape), trained.state.params
    )
    scale = trained.state.opt_state[1]
    scale = scale._replace(mu=moments, nu=moments)
    return trained.state._replace(opt_state=(trained.state.opt_state[0], scale, *trained.state.opt_state[2:]))


def array_files(folder: Path) -> list[Path]:
    """The files with numbers of arrays; which of them are still referred to is up to the store."""
    return list(folder.glob("ocdbt*/d/*"))


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def flip_array_bits(folder: Path) -> None:
    """Flip a bit in every 64 bytes, for nothing refers to some of them."""
    for path in array_files(folder):
        data = bytearray(path.read_bytes())
        for place in range(len(data) // 2 % 64, len(data), 64):
            data[place] ^= 1
        path.write_bytes(data)


def replace_by(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink()
    make(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of the parameters": lambda step: flip_array_bits(step / "params"),
    "a bit of the optimizer": lambda step: flip_array_bits(step / "optimizer"),
    "a bit of the position": lambda step: flip_bit(step / "position" / "metadata"),
    "half of each file": lambda step: [
        path.write_bytes(path.read_bytes()[:100]) for path in array_files(step / "params")
    ],
    "no files": lambda step: shutil.rmtree(step / "optimizer" / "ocdbt.process_0"),
    "no parameters": lambda step: shutil.rmtree(step / "params"),
    "no optimizer": lambda step: shutil.rmtree(step / "optimizer"),
    "no position": lambda step: shutil.rmtree(step / "position"),
    "an array for the position": lambda step: (step / "position" / "metadata").write_text("[]"),
    "an empty position": lambda step: (step / "position" / "metadata").write_text("{}"),
    "a pipe for the position": lambda step: replace_by(step / "position" / "metadata", os.mkfifo),
    "an array for the optimizer's metadata": lambda step: (step / "optimizer" / "_METADATA").write_text("[]"),
    "a folder for the parameters' metadata": lambda step: replace_by(step / "params" / "_METADATA", os.mkdir),
}


def restore(checkpoints: Checkpoints, folder: Path, trained: Trained) -> None:
    """Restore step 4, as training does."""
    read_position(folder, 4)
    checkpoints.restore(4, trained.abstract, trained.shardings)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_set_aside_for_the_one_before(
    tmp_path: Path, one: Trained, two_steps: Path, damage: str
) -> None:
    folder = shutil.copytree(two_steps, tmp_path / "run")
    DAMAGES[damage](folder / "4")
    with Checkpoints(folder, keep=3) as checkpoints:
        with pytest.raises(DamagedCheckpoint, match=r"/4: is damaged \(.*; .* go on from step 3") as caught:
            restore(checkpoints, folder, one)
        assert "\n" not in str(caught.value)
        checkpoints.set_aside(caught.value)
        assert steps(folder) == [3]
        assert (folder / "damaged-4").is_dir()
        restored = checkpoints.restore(3, one.abstract, one.shardings)
        assert_same(restored, trained_state(one)._replace(step=jnp.asarray(3)))
        checkpoints.save(one.state, 4, {"total_steps": 9, "loader": "data"})
    assert steps(folder) == [3, 4]
    assert_same(restore_params(folder, network()), one.state.params)


def test_the_only_checkpoint_is_not_set_aside(tmp_path: Path, one: Trained, two_steps: Path) -> None:
    shutil.copytree(two_steps / "3", tmp_path / "3")
    shutil.rmtree(tmp_path / "3" / "params")
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        with pytest.raises(DamagedCheckpoint, match="remove the folder to train from the beginning") as caught:
            checkpoints.restore(3, one.abstract, one.shardings)
        with pytest.raises(DamagedCheckpoint):
            checkpoints.set_aside(caught.value)
    assert steps(tmp_path) == [3]


def test_a_damaged_best_checkpoint_asks_for_no_other_training(tmp_path: Path, one: Trained, two_steps: Path) -> None:
    shutil.copytree(two_steps / "3", tmp_path / "best" / "3")
    shutil.rmtree(tmp_path / "best" / "3" / "params")
    with Checkpoints(tmp_path / "best", keep=1) as checkpoints, pytest.raises(DamagedCheckpoint) as caught:
        checkpoints.restore(3, one.abstract, one.shardings)
    assert "remove the folder: training then goes on without it" in str(caught.value)
    assert "from the beginning" not in str(caught.value)


def test_a_checkpoint_without_checksums_is_read_as_before(tmp_path: Path, one: Trained, two_steps: Path) -> None:
    folder = shutil.copytree(two_steps, tmp_path / "run")
    shutil.rmtree(folder / "4" / "position")
    checkpoint.write_position(folder, 4, {"total_steps": 9, "loader": "data"})
    assert_same(restore_params(folder, network(), step=4), one.state.params)
    with pytest.raises(UserError, match="does not hold this network's parameters"):
        restore_params(folder, network(model__layers=3), step=4)


def test_parameters_of_another_dtype_are_read_as_the_networks(tmp_path: Path, one: Trained) -> None:
    """As a conversion writes them."""
    halves = jax.tree.map(lambda leaf: np.asarray(leaf.astype(jnp.bfloat16)), one.state.params)
    (tmp_path / "0").mkdir()

    def streamed(leaf: np.ndarray) -> Streamed:
        return Streamed(leaf.shape, leaf.dtype, 1, lambda _: leaf)

    arrays = streamed_checkpoint.write(tmp_path / "0" / "params", jax.tree.map(streamed, halves))
    assert arrays == checksums({"params": halves})
    checkpoint.write_position(tmp_path, 0, {"total_steps": 0, "loader": "", checkpoint.ARRAYS: arrays})
    params = restore_params(tmp_path, network())
    assert_same(params, jax.tree.map(lambda leaf: leaf.astype(np.float32), halves))


@pytest.mark.parametrize(
    "error", [PermissionError("denied"), OSError(errno.EIO, "I/O error"), ValueError("UNAVAILABLE: no network")]
)
def test_errors_of_the_storage_are_no_damage(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error).replace("[", r"\[")) as caught, damage_errors(tmp_path, 3):
        raise error
    assert caught.value is error


def damage_before_read_back(monkeypatch: pytest.MonkeyPatch, step: int, damage: str) -> None:
    """Damage a checkpoint between the last byte that is written of it and the read-back."""
    read_back = Checkpoints._read_back

    def damage_first(self: Checkpoints) -> None:
        if self._saving["step"] == step:
            DAMAGES[damage](next(Path(self._folder).glob(f"{step}.*")))
        read_back(self)

    monkeypatch.setattr(Checkpoints, "_read_back", damage_first)


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_older_checkpoint_outlives_a_newer_one_that_cannot_be_read_back(
    tmp_path: Path, one: Trained, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    damage_before_read_back(monkeypatch, 4, damage)
    state = trained_state(one)
    with pytest.raises(NotReadBack, match=r"/4: was not written as it was saved \(.*run again to go on from step 3"):
        save_state(tmp_path, state, 3, 4, keep=1)
    assert steps(tmp_path) == [3]


def test_training_goes_on_after_a_checkpoint_that_cannot_be_read_back(
    tmp_path: Path, one: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_before_read_back(monkeypatch, 4, "no parameters")
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (2, 3, 4):
            checkpoints.save(one.state, step, {})
        checkpoints._finish_last()
        assert steps(tmp_path) == [2, 3]
        checkpoints.save(one.state, 5, {})
    assert steps(tmp_path) == [3, 5]
    assert re.search(r"/4 was not written as it was saved \(.*\); older checkpoints are kept", capsys.readouterr().err)
    assert_same(restore_params(tmp_path, network()), one.state.params)
