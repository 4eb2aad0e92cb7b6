import errno
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from coi_jax.common.errors import UserError
from coi_jax.runs import checkpoint
from coi_jax.runs.checkpoint import Checkpoints, latest_step, read_position, restore_params
from coi_jax.runs.checkpoint_steps import steps
from tests.helpers.tiny_models import Trained, mesh, network


@pytest.fixture(scope="module")
def eight() -> Trained:
    return Trained(network(), mesh(fsdp=2, tensor=2, replica=2))


@pytest.fixture(scope="module")
def one() -> Trained:
    return Trained(network(), mesh())


def save(folder: Path, trained: Trained, *at: int, keep: int = 3) -> None:
    with Checkpoints(folder, keep=keep) as checkpoints:
        for step in at:
            checkpoints.save(trained.state, step, {"total_steps": 9, "loader": "data"})


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


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(KeyError), checkpoint.storage_errors(tmp_path):
        raise KeyError("other")
