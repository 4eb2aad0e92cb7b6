"""Map the parameters of a network to the tensors of a published checkpoint, by the names in `Family.tensors`.

A linear map of torch is [outputs, inputs]; a kernel here is [inputs…, outputs…], with separate axes for heads and
channels, and stacked over the layers. All other parameters have the same layout.
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
from coi_jax.families.family import Family, TensorNames
from coi_jax.families.registry import FAMILIES
from coi_jax.models import Params
from coi_jax.parallel.sharding import keys

Tensor = Shaped[np.ndarray, "..."]

# The fields of the model section that give the axes of a tensor, by the end of the parameter's path.
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
    "query_norm.scale": "head_dim, or heads · head_dim",
    "key_norm.scale": "head_dim, or kv_heads · head_dim",
    "_bias.table": "relative_buckets × heads",
    ".scale": "model_dim",
}

_PREFIXES = [prefix for family in FAMILIES.values() for prefix in family.key_prefixes]
_UNUSED = re.compile("|".join(family.unused_keys for family in FAMILIES.values() if family.unused_keys))
_FUSED = dict(pair for family in FAMILIES.values() for pair in family.fused_keys)


def tensor_names(config: DecoderConfig | T5Config) -> TensorNames:
    """Return the names of a network's tensors: those of the first family whose networks have its switches."""
    section = config.model_dump()
    tables = (table for family in FAMILIES.values() for table in family.tensors)
    return next(table for table in tables if table.switches.items() <= section.items())


def names(config: DecoderConfig | T5Config) -> dict[str, str]:
    """Return the key of each parameter by its path; {} stands for the number of the layer."""
    return tensor_names(config).keys


def duplicate_keys(config: DecoderConfig | T5Config) -> dict[str, str]:
    """Return the redundant keys that a checkpoint may have, and for each the key whose tensor must be the same."""
    table = tensor_names(config)
    tied_head = (table.keys["head.kernel"],) if config.tied_embedding else ()
    return dict.fromkeys((*tied_head, *table.embedding_copies), table.keys["embedding.table"])


def canonical_key(key: str) -> str | None:
    """Return a key without a prefix that only some checkpoints have; None where the network has no such part."""
    if _UNUSED.fullmatch(key):
        return None
    for prefix, common in _PREFIXES:
        if key.startswith(prefix):
            return common + key.removeprefix(prefix)
    return key


def fused_parts(key: str) -> tuple[str, ...]:
    """Return the keys of the tensors whose rows a checkpoint's tensor holds one after another; none for any other."""
    head, number, tail = _split_layer(key)
    return tuple(part.format(number) for part in _FUSED.get(f"{head}{{}}{tail}", ()))


@dataclass(frozen=True)
class ParameterMapping:
    """The tensors of a checkpoint that make up one parameter.

    Attributes:
      path: the dotted path of the parameter.
      keys: keys of its tensors; one for each layer if it is stacked.
      shape: shape of the parameter; of one layer if it is stacked.
      stacked: whether its first axis is layers.
    """

    path: str
    keys: tuple[str, ...]
    shape: tuple[int, ...]
    stacked: bool

    @property
    def is_kernel(self) -> bool:
        """Return whether it is a linear map, which torch transposes."""
        return self.path.endswith(".kernel")

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Return the shape of one tensor: [outputs, inputs] of a linear map, with heads and channels in one axis."""
        if self.is_kernel:
            inputs = 2 if self.path.endswith(".output.kernel") else 1  # heads and channels
            return math.prod(self.shape[inputs:]), math.prod(self.shape[:inputs])
        return (math.prod(self.shape),) if self.path.endswith(".bias") else self.shape

    def from_tensor(self, tensor: Tensor) -> Tensor:
        """Return one layer of the parameter as a view: axes are only swapped and split."""
        return (tensor.T if self.is_kernel else tensor).reshape(self.shape)

    def to_tensor(self, layer: Tensor) -> Tensor:
        """Return the tensor of one layer of the parameter, as a view."""
        if self.is_kernel:
            return layer.reshape(self.tensor_shape[::-1]).T
        return layer.reshape(self.tensor_shape)


def parameter_mappings(config: DecoderConfig | T5Config, abstract: Params) -> dict[str, ParameterMapping]:
    """Return the mapping of every parameter of a tree, by its path.

    Args:
      config: the model section.
      abstract: a tree whose leaves have a `shape`; it may be a part of the network's parameters.
    """
    table = names(config)
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract):
        name = ".".join(keys(path))
        stacked = "{}" in table[name]
        numbered = tuple(table[name].format(layer) for layer in range(leaf.shape[0])) if stacked else (table[name],)
        found[name] = ParameterMapping(name, numbered, tuple(leaf.shape[1:] if stacked else leaf.shape), stacked)
    return found


Part = tuple[ParameterMapping, int]  # one layer of a parameter, or the whole of one that is not stacked


def tensor_parts(mappings: Mapping[str, ParameterMapping], family: Family) -> dict[str, list[Part]]:
    """Return the parts of each tensor of a family's checkpoint, by its key; their rows follow one another.

    Args:
      mappings: `parameter_mappings` of all parameters.
      family: whose layout is written.
    """
    parts = {key: [(mapping, number)] for mapping in mappings.values() for number, key in enumerate(mapping.keys)}
    layers = max(len(mapping.keys) for mapping in mappings.values())
    for whole, names in family.fused_keys:
        for layer in range(layers):
            parts[whole.format(layer)] = [parts.pop(name.format(layer))[0] for name in names]
    return parts


class ResolvedKeys(NamedTuple):
    """The keys of a checkpoint for the tensors of a network.

    Attributes:
      keys: the checkpoint's own key, by the key that `names` gives.
      duplicates: pairs of the checkpoint's own keys whose tensors must be the same.
    """

    keys: dict[str, str]
    duplicates: list[tuple[str, str]]


def resolve_keys(
    config: DecoderConfig | T5Config,
    mappings: dict[str, ParameterMapping],
    shapes: Mapping[str, tuple[int, ...]],
    source: object,
) -> ResolvedKeys:
    """Find every tensor of a network in a checkpoint.

    Args:
      config: the model section.
      mappings: `parameter_mappings` of all parameters.
      shapes: shapes of the checkpoint's tensors, by key.
      source: the checkpoint, for the error.

    Raises:
      UserError: keys are missing, are not the network's, or hold tensors of another shape; it lists all of them.
    """
    found = {common: key for key in shapes if (common := canonical_key(key)) is not None}
    duplicates = []
    for copy, original in duplicate_keys(config).items():
        if copy in found:
            copied = found.pop(copy)
            if found.setdefault(original, copied) != copied:
                duplicates.append((found[original], copied))
    expected = {key: mapping for mapping in mappings.values() for key in mapping.keys}
    present = [key for key in expected if key in found]
    wrong = [key for key in present if tuple(shapes[found[key]]) != expected[key].tensor_shape]
    lists = {
        "missing": summarize_keys([key for key in expected if key not in found]),
        "not of this network": summarize_keys([found[key] for key in found if key not in expected]),
        "of another shape": [_shape_error(key, shapes[found[key]], expected[key]) for key in _first_of_layers(wrong)],
    }
    if any(lists.values()):
        text = "; ".join(f"{what}: {_first(keys)}" for what, keys in lists.items() if keys)
        raise UserError("weights", source, f"{text}; does the config describe another network?")
    return ResolvedKeys({key: found[key] for key in expected}, duplicates)


def _first(found: list[str], limit: int = 12) -> str:
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


def _shape_error(key: str, shape: tuple[int, ...], mapping: ParameterMapping) -> str:
    fields = next(fields for end, fields in SIZES.items() if mapping.path.endswith(end))
    return f"{key} {list(shape)}, where {list(mapping.tensor_shape)} is due ({fields})"


def summarize_keys(keys: Sequence[str]) -> list[str]:
    """Return keys with those that differ only in the number of their layer as one.

    Example: `["layers.0.a", "layers.1.a", "layers.3.a", "b"]` → `["layers.0-1,3.a", "b"]`.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for key in keys:
        head, number, tail = _split_layer(key)
        groups.setdefault((head, tail), []).extend([int(number)] if number else [])
    return [head + _ranges(sorted(layers)) + tail for (head, tail), layers in groups.items()]


def _first_of_layers(keys: Sequence[str]) -> list[str]:
    """Return the first of the keys that differ only in the number of their layer."""
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
    """Return a tree of parameters (or of their gradients) from the tensors of a small checkpoint, all in memory.

    Args:
      config: the model section.
      abstract: `Network.abstract()`.
      tensors: the tensors by key.

    Raises:
      UserError: a key is missing, is not the network's, or holds a tensor of another shape.
    """
    mappings = parameter_mappings(config, abstract)
    tensors = _split_fused(tensors, mappings)
    resolved = resolve_keys(config, mappings, {key: tensor.shape for key, tensor in tensors.items()}, "in memory")

    def leaf(path: tuple[jax.tree_util.DictKey, ...], _: jax.ShapeDtypeStruct) -> Tensor:
        mapping = mappings[".".join(keys(path))]
        layers = [mapping.from_tensor(tensors[resolved.keys[key]]) for key in mapping.keys]
        return np.stack(layers) if mapping.stacked else layers[0].copy()

    params: Params = jax.tree_util.tree_map_with_path(leaf, abstract)
    return params


def _split_fused(tensors: Mapping[str, Tensor], mappings: Mapping[str, ParameterMapping]) -> dict[str, Tensor]:
    """Return tensors with those that hold the rows of several in parts."""
    rows = {key: mapping.tensor_shape[0] for mapping in mappings.values() for key in mapping.keys}
    found = dict(tensors)
    for key in tensors:
        if parts := fused_parts(key):
            starts = np.cumsum([rows[part] for part in parts])
            found |= zip(parts, np.split(found.pop(key), starts[:-1]), strict=True)
    return found


def to_tensors(config: DecoderConfig | T5Config, params: Params, family: Family) -> Iterator[tuple[str, Tensor]]:
    """Yield the key and the tensor of all that a family's checkpoint holds, of parameters that are in memory.

    Args:
      config: the model section.
      params: the parameters.
      family: whose layout it is.
    """
    leaves = {".".join(keys(path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    for key, parts in tensor_parts(parameter_mappings(config, params), family).items():
        layers = [(part, leaves[part.path][number] if part.stacked else leaves[part.path]) for part, number in parts]
        yield key, np.concatenate([part.to_tensor(np.asarray(layer)) for part, layer in layers])
