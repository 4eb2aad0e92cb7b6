from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float

from launch.preflight import hlo, hlo_costs, programs, topologies
from launch.preflight.hlo_costs import Costs
from launch.preflight.programs import Memory

pytestmark = pytest.mark.tpu

LAYERS = 6
SPECS = PartitionSpec("fsdp"), PartitionSpec(None, "fsdp")


def compiled(unroll: int) -> Costs:
    """The costs of a network whose layers gather their weights, on four chips."""
    devices = topologies.devices(topologies.parse("v5e-4"))
    mesh = jax.make_mesh((4,), ("fsdp",), (AxisType.Auto,), devices=devices)

    def layer(x: Float[Array, "rows D"], part: Float[Array, "quarter D"]) -> tuple[Float[Array, "rows D"], None]:
        kernel = jax.lax.all_gather(part, "fsdp", tiled=True)
        return jnp.tanh(x @ kernel), None

    @jax.shard_map(mesh=mesh, in_specs=SPECS, out_specs=SPECS)
    def gradients(x: Float[Array, "rows D"], kernels: Float[Array, "L quarter D"]) -> tuple[Array, Array]:
        def loss(x: Array, kernels: Array) -> Float[Array, ""]:
            return jnp.sum(jax.lax.scan(layer, x, kernels, unroll=unroll)[0])

        of_x, of_kernels = jax.grad(loss, argnums=(0, 1))(x, kernels)
        return of_x, of_kernels

    shapes = (256, 256), (LAYERS, 256, 256)
    lowered = jax.jit(gradients).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    text = lowered.compile().as_text()
    assert text is not None
    return hlo_costs.count(hlo.parse(text))


def test_a_scanned_network_costs_what_the_unrolled_one_does() -> None:
    scanned, unrolled = compiled(unroll=1), compiled(unroll=LAYERS)
    kernel = 256 * 256
    for costs in (scanned, unrolled):
        sizes: Counter[str] = Counter()
        for item in costs.collectives:
            sizes[item.kind] += int(item.bytes)
        # The compiler gathers what it multiplies in bfloat16, and adds gradients up in float32.
        assert sizes == {"all-gather": LAYERS * kernel * 2, "reduce-scatter": LAYERS * kernel * 4}
    assert scanned.flops == unrolled.flops == 2 * 64 * kernel * 3 * LAYERS


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 18.50G of 15.75G hbm. Exceeded hbm "
            "capacity by 2.75G.",
            18.5 * 2**30,
        ),
        (
            "Ran out of memory on HBM, the total memory required for HLO temporaries (480.00G) exceeds available HBM "
            "(15.75G).",
            480 * 2**30,
        ),
        ("INTERNAL: something else", 0),
    ],
)
def test_what_a_program_would_need_is_read_from_the_complaint(message: str, size: float) -> None:
    assert programs._memory_needed(message) == size


def test_memory_is_the_sum_of_its_kinds() -> None:
    memory = Memory({"parameters": 3, "temporaries": 4}, capacity=7)
    assert memory.total == 7
    assert memory.fits
    assert not Memory(memory.kinds, capacity=6).fits
