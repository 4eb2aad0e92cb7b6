from typing import Any

import jax
import pytest

from coi_jax.common.errors import UserError
from coi_jax.training.loop import TrainingJob
from launch.preflight import fit, programs
from launch.preflight.hlo_costs import Costs
from launch.preflight.programs import Memory, Program
from launch.preflight.topologies import Topology
from launch.preflight.workload import Means
from tests.helpers.configs import examples
from tests.helpers.tiny_models import run_config

MEANS = Means(inputs=5, targets=5, examples=100)
V5E = Topology("v5e", (2, 2), memory=10**6)
KEPT = {"none": 16, "dots_attention": 12, "dots": 8, "projections": 6, "attention": 5, "full": 4}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Instead of compiling, takes memory for what each policy keeps of a row, and for the parts of its positions."""
    rows_of_chip: list[int] = []

    def compile_train(job: TrainingJob, rows: int, topology: Topology) -> Program:
        settings, mesh = job.config, job.mesh.shape
        share = rows / (mesh["replica"] * mesh["fsdp"] * settings.train.microbatches)
        rows_of_chip.append(int(share))
        kept = int(100_000 * share * KEPT[settings.model.remat] / (mesh["sequence"] * mesh["tensor"] ** 0.5))
        memory = Memory({"parameters": 1000, "temporaries": kept}, topology.hbm)
        return Program("train", memory, Costs(1.0, 1.0, (), 0), 0.0, 0.0)

    monkeypatch.setattr(programs, "compile_train", compile_train)
    return rows_of_chip


def search(memory: int, **overrides: Any) -> list[fit.Attempt]:
    topology = Topology("v5e", (2, 2), memory=memory)
    config = run_config(**{"data__folder": "nowhere", "data__batch__rows": 16, **overrides})
    return fit.search(config, jax.devices()[:4], topology, MEANS)


def test_what_fits_is_left_as_it_is(compiled: list[int]) -> None:
    (only,) = search(7_000_000)
    assert only.fits
    assert fit.describe(only.changes) == ""
    assert compiled == [4]


def test_first_less_is_kept(compiled: list[int]) -> None:
    attempts = search(3_300_000)
    assert [item.changes for item in attempts] == [{}, {"model.remat": "dots_attention"}, {"model.remat": "dots"}]
    assert [item.fits for item in attempts] == [False, False, True]
    assert fit.describe(attempts[-1].changes) == "--config.model.remat=dots"
    assert attempts[-1].config.model.remat == "dots"


def test_then_rows_are_taken_in_parts(compiled: list[int]) -> None:
    last = search(900_000)[-1]
    assert last.fits
    assert last.changes == {"model.remat": "full", "train.microbatches": 2}
    assert compiled[-1] == 2


def test_then_the_mesh_divides_more(compiled: list[int]) -> None:
    attempts = search(350_000)
    assert attempts[-1].fits
    assert attempts[-1].changes["mesh.tensor"] * attempts[-1].changes["mesh.sequence"] == 2
    assert "--config.mesh.fsdp=2" in fit.describe(attempts[-1].changes)
    assert all(not item.fits for item in attempts[:-1])


def test_rows_are_taken_one_by_one_at_last(compiled: list[int]) -> None:
    counted = run_config(
        data__folder="nowhere",
        **examples(14),
        data__length=16,
        mesh__replica=2,
        model__remat="full",
    )
    parts = [
        changes["train.microbatches"] for changes in fit.candidates(counted, 4, MEANS) if "mesh.fsdp" not in changes
    ]
    assert parts == [2, 3], "14 examples fill 11 rows, 3 on each of four devices"


def test_copies_are_given_up_before_anything_else_of_the_mesh(compiled: list[int]) -> None:
    meshes = [changes for changes in fit.candidates(run_config(mesh__replica=2), 4, MEANS) if "mesh.fsdp" in changes]
    assert meshes[0] == {"model.remat": "full", "mesh.replica": 1, "mesh.fsdp": 4, "mesh.tensor": 1, "mesh.sequence": 1}


def test_a_state_that_is_too_large_is_not_compiled(compiled: list[int]) -> None:
    attempts = search(5_000)
    assert compiled == []
    assert not any(item.fits for item in attempts)
    state = attempts[0].memory
    assert set(state.kinds) == {"parameters", "optimizer"}
    assert len(attempts) < 10, "neither remat nor microbatches can make it smaller"
    needed = fit.chips_needed(attempts)
    assert needed is not None
    assert 4 * state.total / 5_000 <= needed <= 4 * state.total / 5_000 + 1


def test_the_config_itself_must_match_the_topology(compiled: list[int]) -> None:
    with pytest.raises(UserError, match=r"config\.mesh: .*does not make 4 devices"):
        search(10**9, mesh__fsdp=3)
    with pytest.raises(UserError, match=r"config\.data\.batch\.rows: 6"):
        search(10**9, data__batch__rows=6)
