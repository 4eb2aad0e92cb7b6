"""The decoder of the Llama, Mistral, Qwen and Gemma families: one network, whose config spells their differences.

RMSNorm, rotary positions, grouped-query attention and a gated MLP (Touvron et al. 2023). Layers may alternate between
two kinds: local ones, which attend within a sliding window, and global ones, which attend to everything before.

Dimensions: B batch, L length, H query heads, C head_dim, D model_dim, V vocabulary.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from coi_jax.config.model import DecoderConfig
from coi_jax.models import kv_cache
from coi_jax.models.attention import Attention, AttentionPattern, cached_attention, causal_self_attention
from coi_jax.models.kv_cache import Cache, KeyValues
from coi_jax.models.layer_stacks import LayerIndex
from coi_jax.models.layers import (
    MLP,
    Embedding,
    Linear,
    RMSNorm,
    constrain_residual,
    dropout,
    layer_keys,
    scan_layers,
    softcap,
    split_key,
    stack_layers,
)
from coi_jax.models.rotary import (
    Rotation,
    query_scale,
    rotary_cos_sin,
    rotary_frequencies,
    rotary_scale,
    sequence_lengths,
)
from coi_jax.parallel.hardware import platform

Value = TypeVar("Value")
Heads = Float[Array, "B H L C"]
Local = Bool[Array, ""] | np.bool_ | None  # whether a layer has a window; None where all layers are of one kind

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
}


NO_WINDOW = 2**30  # more positions than any text has
# Tokens of a prompt that are read together.
CHUNK, CHUNK_ON_CPU = 256, 64


class DecoderLayer(nnx.Module):
    """Attention and MLP, each behind a norm and with a residual."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        norm = functools.partial(RMSNorm, epsilon=config.norm_epsilon, offset=config.norm_offset)
        if config.norm_placement != "post":
            self.attention_norm, self.mlp_norm = norm(config.model_dim), norm(config.model_dim)
        if config.norm_placement != "pre":
            self.attention_post_norm, self.mlp_post_norm = norm(config.model_dim), norm(config.model_dim)
        if config.qk_norm:
            together = config.qk_norm == "all_heads"
            self.query_norm = norm(config.head_dim * (config.heads if together else 1))
            self.key_norm = norm(config.head_dim * (config.kv_heads if together else 1))
        self.attention = Attention(
            config.model_dim, config.heads, config.kv_heads, config.head_dim, bias=config.qkv_bias, rngs=rngs
        )
        self.mlp = MLP(config.model_dim, config.mlp_dim, ACTIVATIONS[config.activation], rngs=rngs)

    def project_qkv(
        self, x: Float[Array, "B L D"], rotation: Rotation, key: Key[Array, ""] | None = None
    ) -> tuple[Heads, KeyValues]:
        """Return the rotated queries of `x`, and its rotated keys with their values.

        Args:
          x: the residual stream.
          rotation: what is done to queries and keys at each position.
          key: of dropout; None: no dropout.
        """
        query_key, kv_key = split_key(key, 2)
        normed = x if self.config.norm_placement == "post" else self.attention_norm(x)
        query = self.attention.queries(normed, query_key)
        keys, values = self.attention.keys_values(normed, kv_key)
        if self.config.qk_norm == "all_heads":
            query, keys = _normalize_together(self.query_norm, query), _normalize_together(self.key_norm, keys)
        elif self.config.qk_norm:
            query, keys = self.query_norm(query), self.key_norm(keys)
        return rotation.of_queries(query), KeyValues(rotation.of_keys(keys), values)

    def finish_layer(
        self, x: Float[Array, "B L D"], attended: Heads, key: Key[Array, ""] | None = None
    ) -> Float[Array, "B L D"]:
        """Add the projected output of attention to the residual stream, then the MLP's output.

        Args:
          x: the residual stream.
          attended: the output of each head.
          key: of dropout; None: no dropout.
        """
        keys, rate, placement = split_key(key, 4), self.config.dropout, self.config.norm_placement
        output = self.attention.project_output(attended, keys[2])
        x = x + dropout(output if placement == "pre" else self.attention_post_norm(output), rate, keys[0])
        output = self.mlp(x if placement == "post" else self.mlp_norm(x), key=keys[3])
        return constrain_residual(
            x + dropout(output if placement == "pre" else self.mlp_post_norm(output), rate, keys[1])
        )


class Decoder(nnx.Module):
    """The whole network. Methods are pure functions of the parameters that it holds and of their arguments."""

    def __init__(self, config: DecoderConfig, vocabulary_size: int, *, rngs: nnx.Rngs) -> None:
        self.config = config
        # Every layer adds about a unit of variance, next to which smaller embeddings would be lost. A table that is
        # scaled or tied must be small all the same: it is multiplied by √model_dim, or it computes the logits.
        small = config.tied_embedding or config.scaled_embedding
        std = config.model_dim**-0.5 if small else 1.0
        self.embedding = Embedding(vocabulary_size, config.model_dim, std=std, rngs=rngs)
        self.layers = stack_layers(lambda keys: DecoderLayer(config, rngs=keys), config.layers, rngs=rngs)
        self.final_norm = RMSNorm(config.model_dim, config.norm_epsilon, config.norm_offset)
        if not config.tied_embedding:
            self.head = Linear({"embed": config.model_dim}, {"vocabulary": vocabulary_size}, rngs=rngs)

    def hidden(self, batch: Mapping[str, Array], key: Key[Array, ""] | None = None) -> Float[Array, "B L D"]:
        """Return the normed last hidden states of a packed batch: `tokens`, `segments` and `positions`, all [B, L]."""
        lengths = None
        if self._depends_on_length(batch["tokens"].shape[1]):
            lengths = sequence_lengths(batch["positions"], batch["segments"])
        return self._forward(batch["tokens"], batch["positions"], batch["segments"], lengths, key)

    def unembed(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        """Return the logits of hidden states."""
        logits = self.embedding.attend(hidden) if self.config.tied_embedding else self.head(hidden)
        return softcap(logits, self.config.logits_softcap)

    def prefill(
        self, prompts: Int[Array, "B L"], lengths: Int[Array, "B"], cache: Cache, read: Int[Array, ""] | int = 0
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Return the logits after each right-padded prompt, and the cache with the prompts.

        Prompts are read in chunks, no more than the longest one has: the time depends on its tokens, not on L.

        Args:
          prompts: token ids.
          lengths: tokens of each prompt.
          cache: of `empty_cache` for prompts of this length, or of earlier prompts that begin with the same tokens.
          read: how many tokens of all prompts the cache has; whole chunks, and fewer than any prompt has.
        """
        cache = cache._replace(prompt_lengths=lengths if cache.prompt_lengths is not None else None)
        chunk = chunk_length(prompts.shape[1])
        padded = jnp.pad(prompts, ((0, 0), (0, -prompts.shape[1] % chunk)))

        def read_chunk(state: tuple[Array, Array, Cache]) -> tuple[Array, Array, Cache]:
            start, last, cache = state
            tokens = jax.lax.dynamic_slice_in_dim(padded, start, chunk, axis=1)
            cache = cache._replace(length=jnp.full_like(lengths, start))
            hidden, cache = self._extend(cache, tokens)
            place = jnp.clip(lengths - 1 - start, 0, chunk - 1)
            ends_here = (lengths - 1) // chunk == start // chunk
            found = jnp.take_along_axis(hidden, place[:, None, None], axis=1)
            return start + chunk, jnp.where(ends_here[:, None, None], found, last), cache

        last = constrain_residual(jnp.zeros((len(prompts), 1, self.config.model_dim), jnp.dtype(self.config.dtype)))
        state = (jnp.asarray(read, jnp.int32), last, cache)
        _, last, cache = jax.lax.while_loop(lambda state: state[0] < jnp.max(lengths), read_chunk, state)
        return self.unembed(last)[:, 0], cache._replace(length=lengths)

    def decode_step(self, cache: Cache, tokens: Int[Array, "B"]) -> tuple[Float[Array, "B V"], Cache]:
        """Return the logits after one more token of each row, and the cache with it."""
        hidden, cache = self._extend(cache, tokens[:, None])
        return self.unembed(hidden)[:, 0], cache

    def _extend(self, cache: Cache, tokens: Int[Array, "B L"]) -> tuple[Float[Array, "B L D"], Cache]:
        """Return the normed last hidden states of the next tokens of each row, and the cache with them."""
        start = cache.length
        positions = start[:, None] + jnp.arange(tokens.shape[1])[None]
        lengths = None if cache.prompt_lengths is None else cache.prompt_lengths[:, None]
        rotations = self._per_layer_kind(lambda local: self._rotation(positions, lengths, local))
        windows = self._per_layer_kind(lambda local: (self.config.window if local else None) or NO_WINDOW)

        def body(
            layer: DecoderLayer, carry: tuple[Array, KeyValues], inputs: tuple[LayerIndex, Local]
        ) -> tuple[tuple[Array, KeyValues], None]:
            (x, kv), (index, local) = carry, inputs
            query, new = layer.project_qkv(x, _select_kind(rotations, local))
            kv = kv_cache.write(kv, new, index, start)
            past = kv_cache.read(kv, index)
            window = _select_kind(windows, local)
            attended = cached_attention(
                query, past, positions, window=window, scale=self._scale, cap=self.config.attention_softcap
            )
            return (layer.finish_layer(x, attended), kv), None

        carry = (self._embed(tokens, None), cache.self_attention)
        (x, kv), _ = self._scan(body, carry, np.arange(self.config.layers))
        return self.final_norm(x), cache._replace(self_attention=kv, length=start + tokens.shape[1])

    def empty_cache(self, rows: int, prompt_length: int, max_new_tokens: int) -> Cache:
        """Return a cache of rows without tokens.

        Args:
          rows: of the batch.
          prompt_length: tokens of the longest prompt, padding included.
          max_new_tokens: the most tokens that follow a prompt.
        """
        config, length = self.config, jnp.zeros((rows,), jnp.int32)
        chunk = chunk_length(prompt_length)
        slots = max(-(-prompt_length // chunk) * chunk, prompt_length + max_new_tokens)
        kv = kv_cache.empty((config.layers, rows, config.kv_heads, slots, config.head_dim), config.dtype)
        return Cache(kv, None, None, length, length if self._depends_on_length(prompt_length) else None)

    def _forward(
        self,
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"],
        segments: Int[Array, "B L"] | None,
        lengths: Int[Array, "B _"] | None,
        key: Key[Array, ""] | None,
    ) -> Float[Array, "B L D"]:
        """Return the normed last hidden states."""
        rotations = self._per_layer_kind(lambda local: self._rotation(positions, lengths, local))
        patterns = self._per_layer_kind(lambda local: AttentionPattern(segments, self.config.window if local else None))
        embedding_key, rest = split_key(key, 2)

        def body(layer: DecoderLayer, x: Array, inputs: tuple[Array | None, Local]) -> tuple[Array, None]:
            (project_key, finish_key), local = split_key(inputs[0], 2), inputs[1]
            query, kv = layer.project_qkv(x, _select_kind(rotations, local), project_key)
            attend = functools.partial(self._self_attention, query, kv)
            attended = _apply_kind(local, [functools.partial(attend, pattern) for pattern in patterns])
            return layer.finish_layer(x, attended, finish_key), None

        x = self._embed(tokens, embedding_key)
        x, _ = self._scan(body, x, layer_keys(rest, self.config.layers))
        return self.final_norm(x)

    def _self_attention(self, query: Heads, kv: KeyValues, pattern: AttentionPattern) -> Heads:
        cap, kernel = self.config.attention_softcap, self.config.attention
        return causal_self_attention(query, kv, pattern, scale=self._scale, cap=cap, kernel=kernel)

    @property
    def _scale(self) -> float:
        scale: float = self.config.attention_scale_dim**-0.5
        return scale

    def _per_layer_kind(self, make: Callable[[bool], Value]) -> list[Value]:
        """Return `make(local)` for each kind of layers that there is: one kind, or global and local."""
        if self.config.global_layer_interval:
            return [make(False), make(True)]
        return [make(self.config.window is not None)]

    def _scan(self, body: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        """Scan `body` over the layers; its input says whether the layer is local, None where all are of one kind."""
        config = self.config
        numbers = np.arange(config.layers)
        local = ~np.isin(numbers, config.global_layers) if config.global_layer_interval else None
        return scan_layers(body, self.layers, carry, (inputs, local), remat=config.remat, unroll=config.scan_unroll)

    def _depends_on_length(self, longest: int) -> bool:
        """Return whether rows of some positions may hold sequences whose angles are those of long ones (LongRoPE)."""
        return self.config.rope.scaling == "longrope" and longest > self.config.rope.original_length

    def _rotation(self, positions: Int[Array, "B L"], lengths: Int[Array, "B _"] | None, local: bool) -> Rotation:
        """Return the rotation of each position.

        LongRoPE has other angles for sequences longer than its original length. As in `transformers`, the length of
        the sequence decides, and not its row's or its batch's: all its tokens are rotated alike. A generated text has
        the angles of its prompt's length, so that its keys can be kept; `transformers` computes them all again where
        a text grows beyond the original length.

        Args:
          positions: of the tokens.
          lengths: tokens of the sequence of each position, or one number a row; None: all sequences are short.
          local: whether the layer has a window.
        """
        rope, head_dim = self.config.rope, self.config.head_dim
        frequencies: np.ndarray | Array = rotary_frequencies(rope, head_dim, local=local)
        if lengths is not None:
            long = jnp.asarray(rotary_frequencies(rope, head_dim, local=local, long=True))
            is_long = (lengths > rope.original_length)[:, :, None]
            frequencies = jnp.where(is_long, long[None, None], frequencies[None, None])
        angles = rotary_cos_sin(positions, frequencies, rotary_scale(rope, local=local))
        return Rotation(angles, query_scale(rope, positions))

    def _embed(self, tokens: Int[Array, "B L"], key: Key[Array, ""] | None) -> Float[Array, "B L D"]:
        embedded = self.embedding(tokens, jnp.dtype(self.config.dtype))
        if self.config.scaled_embedding:
            embedded = embedded * jnp.asarray(self.config.model_dim**0.5, embedded.dtype)
        return constrain_residual(dropout(embedded, self.config.dropout, key))


def chunk_length(prompt_length: int) -> int:
    """Return the tokens of a chunk of a prompt: an accelerator needs more of them to be busy."""
    return min(prompt_length, CHUNK_ON_CPU if platform() == "cpu" else CHUNK)


def _normalize_together(norm: RMSNorm, heads: Heads) -> Heads:
    """Normalize the channels of all heads of a position as one vector."""
    merged = jnp.moveaxis(heads, 1, 2)
    return jnp.moveaxis(norm(merged.reshape(*merged.shape[:2], -1)).reshape(merged.shape), 2, 1)


def _select_kind(kinds: list[Value], local: Local) -> Value:
    """Return the value for a layer's kind, of the values for all kinds."""
    if local is None or isinstance(local, np.bool_):
        return kinds[int(local or 0)]
    selected: Value = jax.tree.map(lambda of_global, of_local: jnp.where(local, of_local, of_global), *kinds)
    return selected


def _apply_kind(local: Local, kinds: list[Callable[[], Heads]]) -> Heads:
    """Call the function for a layer's kind alone: kernels must know the window when they are compiled."""
    if local is None or isinstance(local, np.bool_):
        return kinds[int(local or 0)]()
    heads: Heads = jax.lax.cond(local, kinds[1], kinds[0])
    return heads
