"""A Llama-type decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU (Touvron et al. 2023).

Dimensions: B batch, L length, H query heads, C head width, D width, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from coi_jax.config import DecoderConfig
from coi_jax.models import caches
from coi_jax.models.attention import Attention, attend, causal_mask, length_mask, segment_mask
from coi_jax.models.caches import Cache, KeyValues
from coi_jax.models.layers import (
    Embedding,
    GatedMLP,
    Linear,
    RMSNorm,
    dropout,
    layer_keys,
    residual,
    scan,
    split_key,
    stack,
)

Rotation = tuple[Float[Array, "B L half"], Float[Array, "B L half"]]


def rotation(positions: Int[Array, "B L"], head_width: int, theta: float) -> Rotation:
    """Cosines and sines of each position's rotary angles (Su et al. 2021, section 3.2.2), in fp32."""
    exponents = jnp.arange(0, head_width, 2, dtype=jnp.float32) / head_width
    angles = positions[:, :, None].astype(jnp.float32) / jnp.power(theta, exponents)[None, None]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "B H L C"], angles: Rotation) -> Float[Array, "B H L C"]:
    """Turn each pair (i, i + C/2) by its angle: the pairing of Llama's published checkpoints."""
    cosine, sine = (part[:, None] for part in angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)


class DecoderLayer(nnx.Module):
    """Attention and MLP, each behind a norm and with a residual."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.attention_norm = RMSNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config.width, config.heads, config.kv_heads, config.head_width, rngs=rngs)
        self.mlp_norm = RMSNorm(config.width, config.norm_epsilon)
        self.mlp = GatedMLP(config.width, config.mlp_width, jax.nn.silu, rngs=rngs)

    def project(self, x: Float[Array, "B L D"], angles: Rotation) -> tuple[Float[Array, "B H L C"], KeyValues]:
        """The rotated queries of `x`, and its rotated keys with their values."""
        normed = self.attention_norm(x)
        keys, values = self.attention.keys_values(normed)
        return rotate(self.attention.queries(normed), angles), KeyValues(rotate(keys, angles), values)

    def finish(
        self,
        x: Float[Array, "B L D"],
        query: Float[Array, "B H L C"],
        memory: KeyValues,
        mask: Bool[Array, "#B #L M"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Attend to `memory`, then the MLP."""
        keys = split_key(key, 2)
        mixed = attend(query, memory, mask, scale=self.config.head_width**-0.5)
        x = x + dropout(self.attention.join(mixed), self.config.dropout, keys[0])
        return residual(x + dropout(self.mlp(self.mlp_norm(x)), self.config.dropout, keys[1]))


class Decoder(nnx.Module):
    """The whole network. Methods are pure functions of the parameters that it holds and of their arguments."""

    def __init__(self, config: DecoderConfig, vocabulary_size: int, *, rngs: nnx.Rngs) -> None:
        self.config = config
        # Every layer adds about a unit of variance, beside which smaller embeddings would hardly be seen. A tied table
        # must stay small all the same, for it also makes the logits.
        std = config.width**-0.5 if config.tied_embedding else 1.0
        self.embedding = Embedding(vocabulary_size, config.width, std=std, rngs=rngs)
        self.layers = stack(lambda keys: DecoderLayer(config, rngs=keys), config.layers, rngs=rngs)
        self.final_norm = RMSNorm(config.width, config.norm_epsilon)
        if not config.tied_embedding:
            self.head = Linear({"embed": config.width}, {"vocabulary": vocabulary_size}, rngs=rngs)

    def __call__(self, batch: Mapping[str, Array], key: Key[Array, ""] | None = None) -> Float[Array, "B L V"]:
        """Logits of a packed batch: `tokens`, `segments` and `positions`, all [B, L]."""
        segments = batch["segments"]
        mask = causal_mask(segments.shape[1]) & segment_mask(segments, segments)
        hidden, _ = self._forward(batch["tokens"], batch["positions"], mask, key, remember=False)
        return self._logits(hidden)

    def prefill(
        self, prompts: Int[Array, "B L"], lengths: Int[Array, "B"], max_new_tokens: int
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Logits after the last token of each right-padded prompt, and room for `max_new_tokens` more."""
        batch, length = prompts.shape
        positions = jnp.broadcast_to(jnp.arange(length)[None], (batch, length))
        hidden, memory = self._forward(prompts, positions, causal_mask(length), None, remember=True)
        last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
        valid = length_mask(lengths, length + max_new_tokens)
        memory = caches.allocate(memory, max_new_tokens)
        cache = Cache(memory, None, valid, None, lengths, jnp.asarray(length, jnp.int32))
        return self._logits(last)[:, 0], cache

    def decode_step(self, cache: Cache, tokens: Int[Array, "B"]) -> tuple[Float[Array, "B V"], Cache]:
        """Logits after one more token of each row. At most `max_new_tokens` steps fit."""
        angles = self._rotation(cache.length[:, None])
        valid = cache.valid | (jnp.arange(cache.valid.shape[1]) == cache.slot)[None]

        def body(
            layer: DecoderLayer, carry: tuple[Array, KeyValues], index: Array
        ) -> tuple[tuple[Array, KeyValues], None]:
            x, memory = carry
            query, new = layer.project(x, angles)
            memory = caches.write(memory, new, index, cache.slot)
            return (layer.finish(x, query, caches.read(memory, index), valid[:, None]), memory), None

        carry = (self._embed(tokens[:, None], None), cache.self_attention)
        (x, memory), _ = self._scan(body, carry, jnp.arange(self.config.layers))
        return self._logits(self.final_norm(x))[:, 0], cache.grown(memory, valid)

    def _forward(
        self,
        tokens: Int[Array, "B L"],
        positions: Int[Array, "B L"],
        mask: Bool[Array, "#B L L"],
        key: Key[Array, ""] | None,
        *,
        remember: bool,
    ) -> tuple[Float[Array, "B L D"], Any]:
        """The normed last hidden states, and all layers' keys and values (None without `remember`)."""
        angles = self._rotation(positions)
        embedding_key, rest = split_key(key, 2)

        def body(layer: DecoderLayer, x: Array, key: Array | None) -> tuple[Array, KeyValues | None]:
            query, memory = layer.project(x, angles)
            return layer.finish(x, query, memory, mask, key), memory if remember else None

        x = self._embed(tokens, embedding_key)
        x, memory = self._scan(body, x, layer_keys(rest, self.config.layers))
        return self.final_norm(x), memory

    def _scan(self, body: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        config = self.config
        return scan(body, self.layers, carry, inputs, remat=config.remat, unroll=config.scan_unroll)

    def _rotation(self, positions: Int[Array, "B L"]) -> Rotation:
        return rotation(positions, self.config.head_width, self.config.rope_theta)

    def _embed(self, tokens: Int[Array, "B L"], key: Key[Array, ""] | None) -> Float[Array, "B L D"]:
        embedded = self.embedding(tokens, jnp.dtype(self.config.dtype))
        return residual(dropout(embedded, self.config.dropout, key))

    def _logits(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        return self.embedding.attend(hidden) if self.config.tied_embedding else self.head(hidden)
