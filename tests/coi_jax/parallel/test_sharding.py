import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from coi_jax.common.errors import UserError
from coi_jax.config.run import MeshConfig
from coi_jax.models.quantization import quantize
from coi_jax.parallel import sharding
from tests.helpers import tiny_models


def sizes(devices: int = 8, **axes: int) -> tuple[int, ...]:
    config = MeshConfig(**({"replica": 1, "fsdp": 1, "tensor": 1, "sequence": 1} | axes))
    return config.sizes(devices)


def test_one_axis_takes_the_rest_of_the_devices() -> None:
    assert sizes(fsdp=-1) == (1, 8, 1, 1)
    assert sizes(replica=2, fsdp=-1, tensor=2) == (2, 2, 2, 1)
    assert sizes(devices=1, tensor=-1) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({"fsdp": 3}, "does not make 8 devices"),
        ({"fsdp": -1, "tensor": 3}, "does not make 8 devices"),
        ({"fsdp": 4}, "does not make 8 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_named(axes: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        sizes(**axes)


@pytest.mark.parametrize("kind", ["decoder", "t5"])
def test_every_matrix_is_divided_by_every_axis_that_divides_parameters(kind: str) -> None:
    network, mesh = tiny_models.network(kind), tiny_models.mesh(fsdp=2, tensor=2)
    placed = sharding.shardings(network.logical_axes(), network.abstract(), mesh)
    for path, leaf in jax.tree_util.tree_leaves_with_path(network.abstract()):
        place = placed
        for key in path:
            place = place[key.key]
        name = sharding.path_name(path)
        parts = 1 if "norm" in name else 2 if "bias" in name else 4
        assert np.prod(leaf.shape) == parts * np.prod(place.shard_shape(leaf.shape)), name


def test_a_dimension_that_the_mesh_does_not_divide_is_named_with_its_parameter() -> None:
    abstract, axes = {"head": {"kernel": jnp.zeros((16, 31))}}, {"head": {"kernel": ("embed", "vocabulary")}}
    with pytest.raises(
        UserError, match=r"config\.mesh\.tensor: 4: does not divide vocabulary = 31 of parameter head\.kernel"
    ):
        sharding.shardings(axes, abstract, tiny_models.mesh(tensor=4))


def test_a_large_parameter_that_nothing_divides_is_an_error_only_where_the_mesh_could() -> None:
    abstract, axes = {"table": jnp.zeros((1024, 128))}, {"table": (None, "head")}
    with pytest.raises(UserError, match=r"parameter table.*copied to every device"):
        sharding.shardings(axes, abstract, tiny_models.mesh(fsdp=2))
    assert sharding.shardings(axes, abstract, tiny_models.mesh(replica=2))["table"].is_fully_replicated
    small = {"table": jnp.zeros((8, 128))}
    assert sharding.shardings(axes, small, tiny_models.mesh(fsdp=2))["table"].is_fully_replicated
    norms = {"table": jax.ShapeDtypeStruct((1024, 8192), jnp.float32)}
    stacked = sharding.shardings({"table": ("layers", None)}, norms, tiny_models.mesh(fsdp=2))
    assert stacked["table"].is_fully_replicated, "a norm's scale stays whole in a network of any depth"


def test_the_scales_of_a_quantised_parameter_lie_as_their_channels() -> None:
    kernel = jax.eval_shape(lambda: quantize(jnp.zeros((3, 8, 4, 6)), (1,)))
    mesh = tiny_models.mesh(fsdp=2, tensor=2)
    [placed] = sharding.shardings([("layers", "embed", "heads", "head")], [kernel], mesh)
    assert placed.qvalue.spec == PartitionSpec(None, "fsdp", "tensor", None)
    assert placed.scale.spec == PartitionSpec(None, None, "tensor", None)


def test_adapters_are_small_by_their_rank() -> None:
    abstract, axes = [jax.ShapeDtypeStruct((2, 16, 16_384), jnp.float32)], [("layers", "rank", "mlp")]
    [placed] = sharding.shardings(axes, abstract, tiny_models.mesh(fsdp=2))
    assert placed.is_fully_replicated


def test_an_unknown_logical_axis_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'embed'"):
        sharding.rule(sharding.PARAMETER_RULES, "embedd")


@pytest.mark.parametrize(("kv_heads", "spec"), [(8, "tensor"), (4, "tensor"), (2, None), (1, None)])
def test_key_value_heads_are_whole_where_more_devices_share_them(kv_heads: int, spec: str | None) -> None:
    abstract = {"kernel": jax.ShapeDtypeStruct((2, 512, kv_heads, 512), jnp.float32)}
    axes = {"kernel": ("layers", "embed", "kv_heads", "head")}
    for mesh in (tiny_models.mesh(fsdp=2, tensor=4), sharding.abstract_mesh(tensor=4)):
        assert sharding.shardings(axes, abstract, mesh)["kernel"].spec[2] == spec
    three = {"kernel": jax.ShapeDtypeStruct((2, 512, 3, 512), jnp.float32)}
    with pytest.raises(UserError, match="does not divide kv_heads = 3"):
        sharding.shardings(axes, three, tiny_models.mesh(tensor=4))


def test_a_vocabulary_that_is_not_divided_gets_the_size_that_is() -> None:
    abstract = {"table": jax.ShapeDtypeStruct((32_001, 4096), jnp.float32)}
    with pytest.raises(UserError, match=r"set config\.model\.vocabulary_size to 32004"):
        sharding.shardings({"table": ("vocabulary", "embed")}, abstract, tiny_models.mesh(tensor=4))


@dataclass(frozen=True)
class Chip:
    """What the arrangement of devices looks at."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    device_kind: str = "TPU v4"
    core_on_chip: int = 0
    process_index: int = 0


def chips(slices: int, platform: str = "tpu") -> list[Chip]:
    """Slices of 2 × 2 × 2 chips, in an order in which slices are mixed."""
    places = [(x, y, z) for x in range(2) for y in range(2) for z in range(2)]
    return [
        Chip(8 * part + number, part, place, platform) for number, place in enumerate(places) for part in range(slices)
    ]


@pytest.mark.parametrize("replica", [2, 4])
def test_slices_differ_along_replica_alone(replica: int) -> None:
    found = sharding.arrange((replica, 8 // replica, 2, 1), chips(slices=2))
    assert found.shape == (replica, 8 // replica, 2, 1)
    assert len({chip.id for chip in found.flat}) == 16
    for number, part in enumerate(found):
        assert {chip.slice_index for chip in part.flat} == {number * 2 // replica}


def test_a_mesh_within_whose_replicas_slices_would_lie_is_an_error_on_tpus() -> None:
    with pytest.raises(UserError, match=r"config\.mesh\.replica: 1: the devices are of 2 slices"):
        sharding.arrange((1, 8, 2, 1), chips(slices=2))
    assert sharding.arrange((1, 8, 2, 1), chips(slices=2, platform="gpu")).shape == (1, 8, 2, 1)


def test_optimizer_state_lies_as_its_parameter() -> None:
    mesh = tiny_models.mesh(fsdp=2, tensor=2)
    place = jax.sharding.NamedSharding(mesh, PartitionSpec(None, "fsdp", "tensor"))
    params = {"kernel": ((3, 8, 12), place)}
    state = {
        "count": jnp.zeros(()),
        "mean": {"kernel": jnp.zeros((3, 8, 12))},
        "row": {"kernel": jnp.zeros((3, 8))},
        "column": {"kernel": jnp.zeros((3, 12))},
        "nothing": {"kernel": jnp.zeros((1,))},
    }
    specs = jax.tree.map(lambda found: found.spec, sharding.like_parameters(state, params, mesh))
    assert specs["count"] == specs["nothing"]["kernel"] == PartitionSpec()
    assert specs["mean"]["kernel"] == place.spec
    assert specs["row"]["kernel"] == PartitionSpec(None, "fsdp")
    assert specs["column"]["kernel"] == PartitionSpec(None, "tensor")


def test_activations_are_laid_on_the_mesh_in_use() -> None:
    x = jnp.ones((4, 6, 8))
    constrain = jax.jit(lambda x: sharding.constrain(x, ("batch", "length", "mlp")))
    assert len(constrain(x).sharding.device_set) == 1
    with jax.set_mesh(tiny_models.mesh(replica=2, fsdp=2, tensor=2)):
        assert constrain(x).sharding.shard_shape(x.shape) == (1, 6, 4)
        assert constrain(x[:1]).sharding.shard_shape((1, 6, 8)) == (1, 6, 4)


def test_rows_go_to_replica_and_fsdp_and_positions_to_sequence() -> None:
    mesh = tiny_models.mesh(replica=2, fsdp=2, sequence=2)
    assert sharding.data_parallel(mesh) == 4
    assert sharding.batch_sharding(mesh).shard_shape((8, 16)) == (2, 8)
    sharding.check_lengths([16, 0], mesh)
    with pytest.raises(UserError, match=r"mesh\.sequence: 2: does not divide rows of 15"):
        sharding.check_lengths([15], mesh)
