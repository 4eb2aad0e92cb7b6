"""The interface of every network, which keeps NNX out of the rest of the project.

Parameters are a plain nested dict of fp32 arrays: what optax, Orbax and `jax.jit` see. With low-rank adapters only
those are trained, and the rest is a frozen base that may be stored in fewer bytes; `split` separates the two and `join`
puts them together. `Network` itself is static and hashable, so jitted functions close over it.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from coi_jax.common.errors import UserError
from coi_jax.config.model import DecoderConfig, LoraConfig, T5Config
from coi_jax.models.chunked_loss import chunked_loss_sums
from coi_jax.models.decoder import Decoder
from coi_jax.models.kv_cache import Cache, constrain_cache, unstack_layers
from coi_jax.models.layer_stacks import default_unroll, is_unstacked, unstack
from coi_jax.models.layers import Linear
from coi_jax.models.lora import add_adapters, linear_maps, lora_delta
from coi_jax.models.losses import LossSums, loss_sums
from coi_jax.models.quantization import MaybeQuantized, cast_unquantized, dequantize, quantize
from coi_jax.models.t5 import T5
from coi_jax.models.target_positions import keep_targets
from coi_jax.parallel.sharding import constrain

Params = dict[str, Any]
Batch = Mapping[str, Array]


@dataclass(frozen=True)
class Network:
    """A decoder or a T5, by the type of its config."""

    config: DecoderConfig | T5Config
    vocabulary_size: int
    lora: LoraConfig | None = None  # adapters; None: all parameters are trained

    @property
    def has_dropout(self) -> bool:
        """Return whether there is any dropout, so that a key changes the loss."""
        return bool(self.config.dropout or (self.lora and self.lora.dropout))

    def init(self, key: Key[Array, ""]) -> Params:
        """Return random parameters, a pure function of `key`."""
        return self.cast_base(nnx.to_pure_dict(nnx.state(_make(self, key))))

    def abstract(self) -> Params:
        """Return the parameters' shapes and dtypes (`jax.ShapeDtypeStruct` leaves), without computing any."""
        shapes: Params = jax.eval_shape(self.cast_base, nnx.to_pure_dict(_split(self)[1]))
        return shapes

    def logical_axes(self) -> Params:
        """Return for every parameter the logical names of its axes; None for an axis that has none."""
        flat = {path: variable.axes for path, variable in nnx.to_flat_state(_split(self)[1])}
        return nnx.traversals.unflatten_mapping(flat)

    def parameter_counts(self) -> dict[str, int]:
        """Return the number of parameters that are trained, and of all, adapters included."""
        flat = nnx.traversals.flatten_mapping(self.abstract())
        sizes = {path: math.prod(leaf.shape) for path, leaf in flat.items()}
        trained = sum(size for path, size in sizes.items() if self.lora is None or _is_adapter(path))
        return {"trained": trained, "total": sum(sizes.values())}

    def split(self, tree: Params) -> tuple[Params, Params | None]:
        """Split a tree like that of the parameters into what is trained and the frozen base (None without adapters)."""
        if self.lora is None:
            return tree, None
        flat = nnx.traversals.flatten_mapping(tree)
        trained = {path: leaf for path, leaf in flat.items() if _is_adapter(path)}
        frozen = {path: leaf for path, leaf in flat.items() if not _is_adapter(path)}
        return nnx.traversals.unflatten_mapping(trained), nnx.traversals.unflatten_mapping(frozen)

    def join(self, trained: Params, frozen: Params | None) -> Params:
        """Return the tree that `split` has split."""
        if frozen is None:
            return trained
        flat = nnx.traversals.flatten_mapping(trained) | nnx.traversals.flatten_mapping(frozen)
        return nnx.traversals.unflatten_mapping(flat)

    def merge(self, params: Params) -> Params:
        """Return fp32 parameters of the network without adapters, which are merged into their kernels."""
        flat = nnx.traversals.flatten_mapping(params)
        merged = {path: dequantize(leaf, jnp.float32) for path, leaf in flat.items() if not _is_adapter(path)}
        for name, linear in self.adapted_linear_maps.items():
            path = tuple(name.split("."))
            a, b = flat[*path, "adapter", "a"], flat[*path, "adapter", "b"]
            merged[*path, "kernel"] += lora_delta(a, b, linear.adapter.scaling, stacked=linear.stacked)
        return nnx.traversals.unflatten_mapping(merged)

    @property
    def linear_maps(self) -> dict[str, Linear]:
        """Return the linear maps by their dotted names, with shapes in place of values."""
        return _split(self)[2]

    @property
    def adapted_linear_maps(self) -> dict[str, Linear]:
        """Return the linear maps that have adapters, by their dotted names."""
        return {name: linear for name, linear in self.linear_maps.items() if linear.has_adapter}

    def cast_base(self, params: Params) -> Params:
        """Return parameters, given in fp32, in the dtypes that this network stores them in."""
        flat = nnx.traversals.flatten_mapping(params)
        return nnx.traversals.unflatten_mapping(
            {path: self.cast_base_parameter(path, leaf) for path, leaf in flat.items()}
        )

    def cast_base_parameter(self, path: tuple[str, ...], array: Array) -> MaybeQuantized:
        """Return one parameter, given in fp32, as this network stores it: matrices of the base in `lora.base_dtype`."""
        if self.lora is None or self.lora.base_dtype == "float32" or not _is_matrix(path):
            return array
        linear = self.linear_maps.get(".".join(path[:-1]))
        if self.lora.base_dtype == "int8" and linear is not None and linear.stacked:
            return quantize(array, tuple(range(1, 1 + linear.inputs)))
        return array.astype(jnp.bfloat16)

    def cast_for_decoding(self, params: Params) -> Params:
        """Return parameters with matrices in the compute dtype: reading them is most of the time of a decode step."""
        flat = nnx.traversals.flatten_mapping(params)
        dtype = self.config.dtype
        cast = {path: cast_unquantized(leaf, dtype) if _is_matrix(path) else leaf for path, leaf in flat.items()}
        return nnx.traversals.unflatten_mapping(cast)

    def logits(self, params: Params, batch: Batch) -> Float[Array, "rows length vocabulary"]:
        """Return the logits at every target position of a packed batch, in the compute dtype, without dropout."""
        module = self.module(params)
        return _sharded(module.unembed(module.hidden(batch)))

    def loss(
        self, params: Params, batch: Batch, *, target_capacity: int | None = None, key: Key[Array, ""] | None = None
    ) -> LossSums:
        """Return weighted sums over the targets of a packed batch; a loss of NaN where a device has more than it may.

        Args:
          params: the parameters.
          batch: packed rows with targets and weights.
          target_capacity: the most targets that one device has, for which alone logits are computed; None: any number.
          key: of dropout; None: no dropout.
        """
        hidden = self.module(params).hidden(batch, key)
        kept = keep_targets(hidden, batch["targets"], batch["weights"], target_capacity)
        sums = self._target_loss(params, *kept)
        is_whole = jnp.sum(kept[2] != 0) == jnp.sum(batch["weights"] != 0)
        return sums._replace(loss=jnp.where(is_whole, sums.loss, jnp.nan))

    def _target_loss(self, params: Params, hidden: Array, targets: Array, weights: Array) -> LossSums:
        if not self.config.loss_chunk:
            return loss_sums(_sharded(self.module(params).unembed(hidden)), targets, weights)
        head = "embedding" if self.config.tied_embedding else "head"

        def unembed(part: Params, hidden: Array) -> Array:
            return self.module(params | {head: part}).unembed(hidden)

        return chunked_loss_sums(unembed, params[head], hidden, targets, weights, self.config.loss_chunk)

    def empty_cache(self, rows: int, *, prompt_length: int, max_new_tokens: int) -> Cache:
        """Return a cache of rows without tokens.

        Args:
          rows: of the batch.
          prompt_length: tokens of the longest prompt, padding included.
          max_new_tokens: the most tokens that will be generated.
        """
        return constrain_cache(self.module(self.abstract()).empty_cache(rows, prompt_length, max_new_tokens))

    def prefill(
        self,
        params: Params,
        prompts: Int[Array, "batch length"],
        lengths: Int[Array, "batch"],
        *,
        max_new_tokens: int,
        longest: int | None = None,
        kept: Cache | None = None,
        read: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "batch vocabulary"], Cache]:
        """Read right-padded prompts; return the logits of each row's first new token, and the cache.

        Args:
          params: the parameters.
          prompts: token ids; those after a row's length are ignored.
          lengths: tokens of each prompt, at least 1.
          max_new_tokens: the most tokens that will be generated; sets the size of the cache.
          longest: tokens of the longest prompt that the cache has room for; None: those of `prompts`.
          kept: the cache of earlier prompts, where it `serves_prefixes`; None: an empty one.
          read: how many tokens of all prompts `kept` has; whole chunks, and fewer than any prompt has.
        """
        longest = prompts.shape[1] if longest is None else longest
        module = self.module(params)
        if kept is not None:
            assert isinstance(module, Decoder)  # whose cache it is
            return _next_sharded(*module.prefill(prompts, lengths, kept, read))
        cache = self.empty_cache(len(prompts), prompt_length=longest, max_new_tokens=max_new_tokens)
        cache = unstack_layers(cache) if is_unstacked(params) else cache
        return _next_sharded(*module.prefill(prompts, lengths, cache))

    def decode_step(
        self, params: Params, cache: Cache, tokens: Int[Array, "batch"]
    ) -> tuple[Float[Array, "batch vocabulary"], Cache]:
        """Append one token to each row; return the logits of the next one, and the cache after it.

        Args:
          params: the parameters.
          cache: of `prefill` or of an earlier step.
          tokens: one id for each row.
        """
        return _next_sharded(*self.module(params).decode_step(cache, tokens))

    @property
    def unrolls_decoding(self) -> bool:
        """Return whether decoding runs over unstacked layers: where `scan_unroll` takes all of them at once."""
        config = self.config
        layers = config.decoder_layers if isinstance(config, T5Config) else config.layers
        return (config.scan_unroll or default_unroll(layers)) >= layers

    def unstack_layers(self, params: Params) -> Params:
        """Return the parameters with the layers that decode unstacked."""
        stack = "decoder" if isinstance(self.config, T5Config) else "layers"
        flat = nnx.traversals.flatten_mapping(params[stack])
        layers = {path: unstack(leaf) for path, leaf in flat.items()}
        return params | {stack: nnx.traversals.unflatten_mapping(layers)}

    def module(self, params: Params) -> Decoder | T5:
        """Return the NNX module around these parameters, for callers that need a part of the network."""
        module: Decoder | T5 = nnx.merge(_split(self)[0], params)
        return module


def build(config: DecoderConfig | T5Config, vocabulary_size: int, lora: LoraConfig | None = None) -> Network:
    """Return the network of a model config, with adapters where `lora` is given.

    Args:
      config: the model section.
      vocabulary_size: one more than the largest token id.
      lora: the adapters, or None.

    Raises:
      UserError: the config's embedding has fewer rows, or `lora` names something that is not a linear map.
    """
    if config.vocabulary_size and config.vocabulary_size < vocabulary_size:
        hint = f"the vocabulary has {vocabulary_size} ids; use the checkpoint's own tokenizer, or a larger embedding"
        raise UserError("config.model.vocabulary_size", config.vocabulary_size, hint)
    network = Network(config, config.vocabulary_size or vocabulary_size, lora)
    _split(network)
    return network


def _sharded(logits: Float[Array, "rows length vocabulary"]) -> Float[Array, "rows length vocabulary"]:
    return constrain(logits, ("batch", "length", "vocabulary"))


def _next_sharded(
    logits: Float[Array, "batch vocabulary"], cache: Cache
) -> tuple[Float[Array, "batch vocabulary"], Cache]:
    return constrain(logits, ("batch", "vocabulary")), constrain_cache(cache)


def _is_matrix(path: tuple[str, ...]) -> bool:
    """Return whether a parameter is a matrix that activations are multiplied with, in the compute dtype."""
    return path[-1] == "kernel" or path == ("embedding", "table")


def _is_adapter(path: tuple[str, ...]) -> bool:
    return "adapter" in path


def _make(network: Network, key: Key[Array, ""]) -> Decoder | T5:
    config, rngs = network.config, nnx.Rngs(params=key)
    module: Decoder | T5
    if isinstance(config, T5Config):
        module = T5(config, network.vocabulary_size, rngs=rngs)
    else:
        module = Decoder(config, network.vocabulary_size, rngs=rngs)
    if network.lora:
        add_adapters(module, network.lora, rngs=rngs)
    return module


@functools.cache
def _split(network: Network) -> tuple[Any, nnx.State[Any, Any], dict[str, Linear]]:
    """Return the module's structure, its abstract state and its linear maps by name; computed once for each network."""
    module = nnx.eval_shape(lambda: _make(network, jax.random.key(0)))
    structure, state = nnx.split(module)
    return structure, state, linear_maps(module)
