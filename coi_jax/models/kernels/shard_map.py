"""A kernel's work laid on the devices of a mesh: each attends with its own rows and heads, as they lie there.

Dimensions: B batch, L positions, H query heads, K key-value heads, C head width; lower case for those of one device.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from coi_jax.models.kv_cache import KeyValues
from coi_jax.parallel.sharding import activation_spec

Queries = Float[Array, "B H L C"]
Segments = Int[Array, "B L"] | None
# Of queries, keys and values, the queries' segments, the keys' segments, and constants.
Kernel = Callable[..., Queries]


def local_shape(query: Queries) -> tuple[int, ...]:
    """[b, h, l, c], the queries of one device of the mesh in use."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return query.shape
    return jax.sharding.NamedSharding(mesh, _query_spec(query)).shard_shape(query.shape)


def by_device(
    kernel: Kernel, query: Queries, memory: KeyValues, segments: Segments, constants: Any = (), specs: Any = ()
) -> Queries:
    """What `kernel` gives on every device of the mesh in use: its rows, its heads, its queries, keys of whole rows.

    Args:
      kernel: a function of queries [b, h, l, c], keys and values [b, k, L, c], segments of queries [b, l] and of keys
        [b, L], and of the constants.
      query: of all rows and heads.
      memory: keys and values.
      segments: of packed rows, or None.
      constants: a tree of arrays.
      specs: how they are divided, a PartitionSpec for each.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return kernel(query, memory, segments, segments, constants)
    queries = _query_spec(query)
    keys = activation_spec(memory.keys.shape, ("batch", "kv_heads", None, "head"))
    group = query.shape[1] // memory.keys.shape[1]

    def of_device(query: Array, memory: KeyValues, *rest: Any) -> Queries:
        shared = queries[1] is not None and keys[1] is None
        return kernel(query, _own_head(query, memory, group) if shared else memory, *rest)

    rows = PartitionSpec(queries[0], queries[2]), PartitionSpec(queries[0], None)
    return jax.shard_map(
        of_device,
        in_specs=(queries, keys, *rows, specs),
        out_specs=queries,
        axis_names={*mesh.axis_names},
        check_vma=False,  # kernels do not say along which axes what they give varies
    )(query, memory, segments, segments, constants)


def _query_spec(query: Queries) -> PartitionSpec:
    return activation_spec(query.shape, ("batch", "heads", "length", "head"))


def _own_head(query: Float[Array, "b h l c"], memory: KeyValues, group: int) -> KeyValues:
    """The key-value head of a device's query heads, of all that it holds where `tensor` divides their groups."""
    first = jax.lax.axis_index("tensor") * query.shape[1] // group
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, 1, axis=1), memory)
