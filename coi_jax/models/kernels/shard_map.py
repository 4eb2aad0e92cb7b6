"""Run an attention kernel on every device of a mesh with `jax.shard_map`, on the rows and heads that it holds.

Dimensions: B batch, L positions, H query heads, K key-value heads, C head_dim; lower case for those of one device.
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
# A function of queries, keys and values, the queries' segments, the keys' segments, and constants.
Kernel = Callable[..., Queries]


def local_shape(query: Queries) -> tuple[int, ...]:
    """Return [b, h, l, c], the shape of the queries on one device of the mesh in use."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return query.shape
    return jax.sharding.NamedSharding(mesh, _query_spec(query)).shard_shape(query.shape)


def shard_attention(
    kernel: Kernel, query: Queries, kv: KeyValues, segments: Segments, constants: Any = (), specs: Any = ()
) -> Queries:
    """Return the attention of all rows: each device runs `kernel` on its own rows, heads and queries.

    A device that holds a part of a row's queries gets the keys and values of the whole row.

    Args:
      kernel: a function of queries [b, h, l, c], keys and values [b, k, L, c], segments of queries [b, l] and of keys
        [b, L], and of the constants.
      query: the queries of all rows and heads.
      kv: keys and values.
      segments: numbers of the examples of packed rows, or None.
      constants: a tree of arrays.
      specs: a PartitionSpec for each of the constants.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return kernel(query, kv, segments, segments, constants)
    queries = _query_spec(query)
    keys = activation_spec(kv.keys.shape, ("batch", "kv_heads", None, "head"))
    group = query.shape[1] // kv.keys.shape[1]

    def local_attention(query: Array, kv: KeyValues, *rest: Any) -> Queries:
        shared = queries[1] is not None and keys[1] is None
        return kernel(query, _select_kv_head(query, kv, group) if shared else kv, *rest)

    rows = PartitionSpec(queries[0], queries[2]), PartitionSpec(queries[0], None)
    return jax.shard_map(
        local_attention,
        in_specs=(queries, keys, *rows, specs),
        out_specs=queries,
        axis_names={*mesh.axis_names},
        check_vma=False,  # kernels do not declare along which axes their outputs vary
    )(query, kv, segments, segments, constants)


def _query_spec(query: Queries) -> PartitionSpec:
    return activation_spec(query.shape, ("batch", "heads", "length", "head"))


def _select_kv_head(query: Float[Array, "b h l c"], kv: KeyValues, group: int) -> KeyValues:
    """Return the one key-value head of a device's query heads, where `tensor` divides the groups of query heads."""
    first = jax.lax.axis_index("tensor") * query.shape[1] // group
    selected: KeyValues = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, 1, axis=1), kv)
    return selected
