from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from coi_jax.common import files
from coi_jax.runs import read_back
from coi_jax.runs.checksums import checksums
from coi_jax.runs.read_back import find_damage

TREE = {
    "params": {
        "stack": jnp.asarray(np.random.default_rng(0).normal(size=(5, 3, 4)), jnp.bfloat16),
        "matrix": jnp.asarray(np.random.default_rng(1).normal(size=(7, 3)), jnp.float32),
    },
    "optimizer": ({"count": jnp.asarray(3)}, [jnp.arange(6.0)]),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    for item, tree in TREE.items():
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
            writer.save(tmp_path / item, args=ocp.args.StandardSave(tree))
    return tmp_path


@pytest.mark.parametrize("block", [1, 30, 2**26])
def test_arrays_are_read_in_blocks_of_any_size(saved: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_back, "BLOCK", block)
    assert find_damage(saved, checksums(TREE)) == ""


def test_every_array_is_in_the_share_of_one_process(saved: Path) -> None:
    shares = [slice(index, None, 3) for index in range(3)]
    for path in checksums(TREE):
        wanted = checksums(TREE) | {path: "float32[1] 00000000"}
        found = [find_damage(saved, wanted, share) for share in shares]
        assert sorted(found) == ["", "", f"{path} is not what was saved"]


def test_a_description_of_the_arrays_that_is_no_json_is_damage(saved: Path) -> None:
    files.write_text(saved / "optimizer" / "_METADATA", '{"tree_metadata": ')
    assert "optimizer/_METADATA" in find_damage(saved, checksums(TREE))
