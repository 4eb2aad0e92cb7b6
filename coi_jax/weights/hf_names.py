"""Published checkpoints: where each parameter lies, by the names that the families give (`Family.tensors`).

A linear map of torch is [outputs, inputs]; a kernel here is [inputs…, outputs…], with heads apart from their channels,
and stacked over the layers. All else is laid out alike.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Shaped

from coi_jax.common.errors import UserError
from coi_jax.config.model import DecoderConfig, T5Config
from coi_jax.families.family import TensorNames
from coi_jax.families.registry import FAMILIES
from coi_jax.models import Params
from coi_jax.parallel.sharding import keys

Tensor = Shaped[np.ndarray, "..."]

# The config's fields that a tensor's axes come from, by the end of the parameter's path.
SIZES = {
    "embedding.table": "vocabulary_size × model_dim",
    "head.kernel": "vocabulary_size × model_dim",
    "query.kernel": "heads · head_dim × model_dim",
    "query.bias": "heads · head_dim",
    "key.kernel": "kv_heads · head_dim × model_dim",
    "key.bias": "kv_heads · head_dim",
    "value.kernel": "kv_heads · head_dim × model_dim",
    "value.bias": "kv_heads · head_dim",
    "output.kernel": "model_dim × heads · head_dim",
    "gate.kernel": "mlp_dim × model_dim",
    "up.kernel": "mlp_dim × model_dim",
    "down.kernel": "model_dim × mlp_dim",
    "query_norm.scale": "head_dim",
    "key_norm.scale": "head_dim",
    "_bias.table": "relative_buckets × heads",
    ".scale": "model_dim",
}

_PREFIXES = [prefix for family in FAMILIES.values() for prefix in family.key_prefixes]
_UNUSED = re.compile("|".join(family.unused_keys for family in FAMILIES.values() if family.unused_keys))


def tensor_names(config: DecoderConfig | T5Config) -> TensorNames:
    """Return the names of a network's tensors: those of the first family that has its switches."""
    section = config.model_dump()
    tables = (table for family in FAMILIES.values() for table in family.tensors)
    return next(table for table in tables if table.switches.items() <= section.items())


def names(config: DecoderConfig | T5Config) -> dict[str, str]:
    """Return the key of each parameter's path; {} stands for the number of the layer."""
    return tensor_names(config).keys


def copies(config: DecoderConfig | T5Config) -> dict[str, str]:
    """Return the keys that a checkpoint may hold besides, and for each the key whose tensor must be the same."""
    table = tensor_names(config)
    tied_head = (table.keys["head.kernel"],) if config.tied_embedding else ()
    return dict.fromkeys((*tied_head, *table.embedding_copies), table.keys["embedding.table"])


def common_key(key: str) -> str | None:
    """Return a key without a prefix that only some checkpoints have; None where the network has no such part."""
    if _UNUSED.fullmatch(key):
        return None
    for prefix, common in _PREFIXES:
        if key.startswith(prefix):
            return common + key.removeprefix(prefix)
    return key


@dataclass(frozen=True)
class Place:
    """Where a parameter lies, and how a tensor becomes it.

    Attributes:
      path: of the parameter.
      keys: of its tensors, one for each layer where it is stacked.
      shape: of the parameter; of one layer of it where it is stacked.
      stacked: whether it has a first axis of layers.
    """

    path: str
    keys: tuple[str, ...]
    shape: tuple[int, ...]
    stacked: bool

    @property
    def is_kernel(self) -> bool:
        """Whether it is a linear map, which torch holds the other way round."""
        return self.path.endswith(".kernel")

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """The shape of one tensor: [outputs, inputs] of a linear map, heads and channels in one axis."""
        if self.is_kernel:
            inputs = 2 if self.path.endswith(".output.kernel") else 1  # heads and channels
            return math.prod(self.shape[inputs:]), math.prod(self.shape[:inputs])
        return (math.prod(self.shape),) if self.path.endswith(".bias") else self.shape

    def from_tensor(self, tensor: Tensor) -> Tensor:
        """One layer of the parameter: a view, for axes are only swapped and split."""
        return (tensor.T if self.is_kernel else tensor).reshape(self.shape)

    def to_tensor(self, layer: Tensor) -> Tensor:
        """The tensor of one layer of the parameter; a view, as above."""
        if self.is_kernel:
            return layer.reshape(self.tensor_shape[::-1]).T
        return layer.reshape(self.tensor_shape)


def places(config: DecoderConfig | T5Config, abstract: Params) -> dict[str, Place]:
    """The place of every parameter of a tree, by its path.

    Args:
      config: of the network.
      abstract: leaves have a `shape`; it may be a part of the network's parameters.
    """
    table = names(config)
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract):
        name = ".".join(keys(path))
        stacked = "{}" in table[name]
        numbered = tuple(table[name].format(layer) for layer in range(leaf.shape[0])) if stacked else (table[name],)
        found[name] = Place(name, numbered, tuple(leaf.shape[1:] if stacked else leaf.shape), stacked)
    return found


class Held(NamedTuple):
    """How a checkpoint names what a network needs.

    Attributes:
      keys: by the key that `names` gives, the checkpoint's own.
      twins: pairs of the checkpoint's own keys whose tensors must be the same.
    """

    keys: dict[str, str]
    twins: list[tuple[str, str]]


def resolve(
    config: DecoderConfig | T5Config, where: dict[str, Place], shapes: Mapping[str, tuple[int, ...]], source: object
) -> Held:
    """Finds every tensor of a network in a checkpoint.

    Args:
      config: of the network.
      where: of `places`, of all its parameters.
      shapes: of the checkpoint's tensors, by key.
      source: the checkpoint, for the error.

    Raises:
      UserError: keys are missing, are not the network's, or hold tensors of another shape; it lists all of them.
    """
    held = {common: key for key in shapes if (common := common_key(key)) is not None}
    twins = []
    for copy, original in copies(config).items():
        if copy in held:
            copied = held.pop(copy)
            if held.setdefault(original, copied) != copied:
                twins.append((held[original], copied))
    due = {key: place for place in where.values() for key in place.keys}
    wrong = [key for key, place in due.items() if key in held and tuple(shapes[held[key]]) != place.tensor_shape]
    lists = {
        "missing": condense([key for key in due if key not in held]),
        "not of this network": condense([held[key] for key in held if key not in due]),
        "of another shape": [_shape_error(key, shapes[held[key]], due[key]) for key in _one_a_layer(wrong)],
    }
    if any(lists.values()):
        text = "; ".join(f"{what}: {_first(found)}" for what, found in lists.items() if found)
        raise UserError("weights", source, f"{text}; does the config describe another network?")
    return Held({key: held[key] for key in due}, twins)


def _first(found: list[str], limit: int = 12) -> str:
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


def _shape_error(key: str, shape: tuple[int, ...], place: Place) -> str:
    fields = next(fields for end, fields in SIZES.items() if place.path.endswith(end))
    return f"{key} {list(shape)}, where {list(place.tensor_shape)} is due ({fields})"


def condense(keys: Sequence[str]) -> list[str]:
    """Keys that differ in the number of their layer become one.

    Example: `["layers.0.a", "layers.1.a", "layers.3.a", "b"]` → `["layers.0-1,3.a", "b"]`.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for key in keys:
        head, number, tail = _split_layer(key)
        groups.setdefault((head, tail), []).extend([int(number)] if number else [])
    return [head + _ranges(sorted(layers)) + tail for (head, tail), layers in groups.items()]


def _one_a_layer(keys: Sequence[str]) -> list[str]:
    """The first of the keys that differ in the number of their layer."""
    return list({_split_layer(key)[::2]: key for key in reversed(keys)}.values())[::-1]


def _split_layer(key: str) -> tuple[str, str, str]:
    found = re.fullmatch(r"(.*?\.)([0-9]+)(\..*)", key)
    return (found[1], found[2], found[3]) if found else (key, "", "")


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def to_params(config: DecoderConfig | T5Config, abstract: Params, tensors: Mapping[str, Tensor]) -> Params:
    """A tree of parameters (or of their gradients) from the tensors of a small checkpoint, all in memory.

    Args:
      config: of the network.
      abstract: of `Network.abstract`.
      tensors: by key.

    Raises:
      UserError: a key is missing, is not the network's, or holds a tensor of another shape.
    """
    where = places(config, abstract)
    held = resolve(config, where, {key: tensor.shape for key, tensor in tensors.items()}, "in memory")

    def leaf(path: tuple[jax.tree_util.DictKey, ...], _: jax.ShapeDtypeStruct) -> Tensor:
        place = where[".".join(keys(path))]
        layers = [place.from_tensor(tensors[held.keys[key]]) for key in place.keys]
        return np.stack(layers) if place.stacked else layers[0].copy()

    return jax.tree_util.tree_map_with_path(leaf, abstract)


def to_tensors(config: DecoderConfig | T5Config, params: Params) -> Iterator[tuple[str, Tensor]]:
    """The key and the tensor of each parameter, layer by layer."""
    where = places(config, params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        place = where[".".join(keys(path))]
        for number, key in enumerate(place.keys):
            yield key, place.to_tensor(np.asarray(leaf[number] if place.stacked else leaf))
