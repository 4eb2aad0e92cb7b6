"""The decoder of the Llama, Mistral, Qwen and Gemma families: one network, whose config spells their differences.

RMSNorm, rotary positions, grouped-query attention and a gated MLP (Touvron et al. 2023). Layers may alternate between
two kinds: local ones, which see a window, and global ones, which see everything before.

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
from coi_jax.models.attention import Attention, AttentionPattern, attend, attend_rows
from coi_jax.models.kv_cache import Cache, KeyValues
from coi_jax.models.layer_stacks import LayerIndex
from coi_jax.models.layers import (
    MLP,
    Embedding,
    Linear,
    RMSNorm,
    dropout,
    layer_keys,
    residual,
    scan,
    softcap,
    split_key,
    stack,
)
from coi_jax.models.rotary import Rotation, frequencies, rotate, rotation

Value = TypeVar("Value")
Heads = Float[Array, "B H L C"]
Local = Bool[Array, ""] | np.bool_ | None  # whether a layer has a window; None where all layers are of one kind

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
}


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
            self.query_norm, self.key_norm = norm(config.head_dim), norm(config.head_dim)
        self.attention = Attention(
            config.model_dim, config.heads, config.kv_heads, config.head_dim, bias=config.qkv_bias, rngs=rngs
        )
        self.mlp = MLP(config.model_dim, config.mlp_dim, ACTIVATIONS[config.activation], rngs=rngs)

    def project(
        self, x: Float[Array, "B L D"], angles: Rotation, key: Key[Array, ""] | None = None
    ) -> tuple[Heads, KeyValues]:
        """The rotated queries of `x`, and its rotated keys with their values."""
        query_key, memory_key = split_key(key, 2)
        normed = x if self.config.norm_placement == "post" else self.attention_norm(x)
        query = self.attention.queries(normed, query_key)
        keys, values = self.attention.keys_values(normed, memory_key)
        if self.config.qk_norm:
            query, keys = self.query_norm(query), self.key_norm(keys)
        return rotate(query, angles), KeyValues(rotate(keys, angles), values)

    def finish(
        self, x: Float[Array, "B L D"], mixed: Heads, key: Key[Array, ""] | None = None
    ) -> Float[Array, "B L D"]:
        """Add what attention gave, then the MLP."""
        keys, rate, placement = split_key(key, 4), self.config.dropout, self.config.norm_placement
        mixed_in = self.attention.join(mixed, keys[2])
        x = x + dropout(mixed_in if placement == "pre" else self.attention_post_norm(mixed_in), rate, keys[0])
        added = self.mlp(x if placement == "post" else self.mlp_norm(x), key=keys[3])
        return residual(x + dropout(added if placement == "pre" else self.mlp_post_norm(added), rate, keys[1]))


class Decoder(nnx.Module):
    """The whole network. Methods are pure functions of the parameters that it holds and of their arguments."""

    def __init__(self, config: DecoderConfig, vocabulary_size: int, *, rngs: nnx.Rngs) -> None:
        self.config = config
        # Every layer adds about a unit of variance, beside which smaller embeddings would hardly be seen. A table that
        # is scaled or tied must stay small all the same: it is multiplied by √model_dim, or makes the logits.
        small = config.tied_embedding or config.scaled_embedding
        std = config.model_dim**-0.5 if small else 1.0
        self.embedding = Embedding(vocabulary_size, config.model_dim, std=std, rngs=rngs)
        self.layers = stack(lambda keys: DecoderLayer(config, rngs=keys), config.layers, rngs=rngs)
        self.final_norm = RMSNorm(config.model_dim, config.norm_epsilon, config.norm_offset)
        if not config.tied_embedding:
            self.head = Linear({"embed": config.model_dim}, {"vocabulary": vocabulary_size}, rngs=rngs)

    def hidden(self, batch: Mapping[str, Array], key: Key[Array, ""] | None = None) -> Float[Array, "B L D"]:
        """The normed last hidden states of a packed batch: `tokens`, `segments` and `positions`, all [B, L]."""
        return self._forward(batch["tokens"], batch["positions"], batch["segments"], key, remember=False)[0]

    def unembed(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        """Logits of hidden states."""
        logits = self.embedding.attend(hidden) if self.config.tied_embedding else self.head(hidden)
        return softcap(logits, self.config.logits_softcap)

    def prefill(
        self, prompts: Int[Array, "B L"], lengths: Int[Array, "B"], max_new_tokens: int
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Logits after the last token of each right-padded prompt, and room for `max_new_tokens` more."""
        positions = jnp.broadcast_to(jnp.arange(prompts.shape[1])[None], prompts.shape)
        hidden, memory = self._forward(prompts, positions, None, None, remember=True)
        last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
        seen = jnp.where(positions < lengths[:, None], positions, kv_cache.EMPTY)
        return self.unembed(last)[:, 0], kv_cache.begin(memory, seen, lengths, max_new_tokens)

    def decode_step(self, cache: Cache, tokens: Int[Array, "B"]) -> tuple[Float[Array, "B V"], Cache]:
        """Logits after one more token of each row. At most `max_new_tokens` steps fit."""
        position, positions = cache.length[:, None], cache.next_positions()
        angles = self._of_kinds(lambda local: self._rotation(position, local))
        mask = self._of_kinds(lambda local: kv_cache.visible(positions, position, self.config.window if local else 0))

        def body(
            layer: DecoderLayer, carry: tuple[Array, KeyValues], inputs: tuple[LayerIndex, Local]
        ) -> tuple[tuple[Array, KeyValues], None]:
            (x, memory), (index, local) = carry, inputs
            query, new = layer.project(x, _choose(angles, local))
            memory = kv_cache.write(memory, new, index, cache.slot)
            past = kv_cache.read(memory, index)
            mixed = attend(query, past, _choose(mask, local), scale=self._scale, cap=self.config.attention_softcap)
            return (layer.finish(x, mixed), memory), None

        carry = (self._embed(tokens[:, None], None), cache.self_attention)
        (x, memory), _ = self._scan(body, carry, np.arange(self.config.layers))
        return self.unembed(self.final_norm(x))[:, 0], cache.grown(memory, positions)

    def _forward(
        self,
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"],
        segments: Int[Array, "B L"] | None,
        key: Key[Array, ""] | None,
        *,
        remember: bool,
    ) -> tuple[Float[Array, "B L D"], Any]:
        """The normed last hidden states, and all layers' keys and values (None without `remember`)."""
        angles = self._of_kinds(lambda local: self._rotation(positions, local))
        sights = self._of_kinds(lambda local: AttentionPattern(segments, self.config.window if local else 0))
        embedding_key, rest = split_key(key, 2)

        def body(layer: DecoderLayer, x: Array, inputs: tuple[Array | None, Local]) -> tuple[Array, KeyValues | None]:
            (project_key, finish_key), local = split_key(inputs[0], 2), inputs[1]
            query, memory = layer.project(x, _choose(angles, local), project_key)
            mixed = _switch(local, [functools.partial(self._attend_rows, query, memory, sight) for sight in sights])
            return layer.finish(x, mixed, finish_key), memory if remember else None

        x = self._embed(tokens, embedding_key)
        x, memory = self._scan(body, x, layer_keys(rest, self.config.layers))
        return self.final_norm(x), memory

    def _attend_rows(self, query: Heads, memory: KeyValues, sight: AttentionPattern) -> Heads:
        cap, kernel = self.config.attention_softcap, self.config.attention
        return attend_rows(query, memory, sight, scale=self._scale, cap=cap, kernel=kernel)

    @property
    def _scale(self) -> float:
        return self.config.attention_scale_dim**-0.5

    def _of_kinds(self, make: Callable[[bool], Value]) -> list[Value]:
        """What `make(local)` gives for the kinds of layers that there are: one kind, or global and local."""
        if self.config.global_layer_interval:
            return [make(False), make(True)]
        return [make(bool(self.config.window))]

    def _scan(self, body: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        """Scans `body` over the layers; with its input it gets the layer's kind, None where there is one."""
        config = self.config
        numbers = np.arange(1, config.layers + 1)
        local = numbers % config.global_layer_interval != 0 if config.global_layer_interval else None
        return scan(body, self.layers, carry, (inputs, local), remat=config.remat, unroll=config.scan_unroll)

    def _rotation(self, positions: Int[Array, "B L"], local: bool) -> Rotation:
        return rotation(positions, frequencies(self.config.rope, self.config.head_dim, local=local))

    def _embed(self, tokens: Int[Array, "B L"], key: Key[Array, ""] | None) -> Float[Array, "B L D"]:
        embedded = self.embedding(tokens, jnp.dtype(self.config.dtype))
        if self.config.scaled_embedding:
            embedded = embedded * jnp.asarray(self.config.model_dim**0.5, embedded.dtype)
        return residual(dropout(embedded, self.config.dropout, key))


def _choose(kinds: list[Value], local: Local) -> Value:
    """The value of a layer's kind, of those that all kinds have."""
    if local is None or isinstance(local, np.bool_):
        return kinds[int(local or 0)]
    return jax.tree.map(lambda everywhere, nearby: jnp.where(local, nearby, everywhere), *kinds)


def _switch(local: Local, kinds: list[Callable[[], Heads]]) -> Heads:
    """Computes for a layer's kind alone: kernels need to know the window when they are compiled."""
    if local is None or isinstance(local, np.bool_):
        return kinds[int(local or 0)]()
    return jax.lax.cond(local, kinds[1], kinds[0])
