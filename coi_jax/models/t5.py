"""T5: an encoder-decoder with a relative position bias (Raffel et al. 2020), of version 1.0 or 1.1 (Shazeer 2020).

FLAN-T5 and mT5 have the shape of version 1.1.

Dimensions: B batch, S encoder length, L decoder length, H heads, C head_dim, D model_dim, V vocabulary.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from coi_jax.config.model import T5Config
from coi_jax.models import kv_cache
from coi_jax.models.attention import Attention, attend, causal_mask, length_mask, segment_mask
from coi_jax.models.kv_cache import Cache, KeyValues
from coi_jax.models.layer_stacks import LayerIndex
from coi_jax.models.layers import (
    MLP,
    Embedding,
    Linear,
    RMSNorm,
    dropout,
    layer_keys,
    parameter,
    residual,
    scan,
    split_key,
    stack,
)

START = 0  # the decoder's first input, T5's padding id

gelu = functools.partial(jax.nn.gelu, approximate=True)


def relative_bucket(
    distance: Int[Array, "*shape"], buckets: int, max_distance: int, *, bidirectional: bool
) -> Int[Array, "*shape"]:
    """The bucket of each distance key position - query position (Raffel et al. 2020, section 2.1).

    Half of the buckets hold one small distance each, the other half grow logarithmically up to `max_distance`,
    beyond which all distances share the last. With `bidirectional` each direction has half of the buckets;
    without, keys after the query share bucket 0.
    """
    offset = jnp.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        offset = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    exact = buckets // 2
    growth = jnp.log(jnp.maximum(distance, 1) / exact) / np.log(max_distance / exact)
    logarithmic = exact + (growth * (buckets - exact)).astype(distance.dtype)
    return offset + jnp.where(distance < exact, distance, jnp.minimum(logarithmic, buckets - 1))


class RelativeBias(nnx.Module):
    """One number for each bucket and head, added to attention scores; shared by all layers of a stack."""

    def __init__(self, config: T5Config, *, bidirectional: bool, rngs: nnx.Rngs) -> None:
        self.max_distance, self.bidirectional = config.relative_max_distance, bidirectional
        shape = (config.relative_buckets, config.heads)
        self.table = parameter(rngs.params(), shape, ("buckets", "heads"), config.model_dim**-0.5)

    def at(self, distances: Int[Array, "N"]) -> Float[Array, "H N"]:
        """The bias at some distances key position - query position."""
        table = self.table[...]
        return table[relative_bucket(distances, len(table), self.max_distance, bidirectional=self.bidirectional)].T

    def square(self, length: int) -> Float[Array, "H length length"]:
        """The bias between all positions of a row.

        It depends on the distance alone, so 2 · length numbers are looked up and each query's row is the one before it
        shifted by one: repeated end to end and read back with one number less a row. The gradient of that is a sum,
        where that of a lookup for every pair is a slow scatter.
        """
        distances = jnp.concatenate([jnp.arange(length), jnp.arange(-length, 0)])
        period = 2 * length
        repeated = jnp.tile(self.at(distances), (1, length))[:, : length * (period - 1)]
        return repeated.reshape(-1, length, period - 1)[:, :, :length]


class EncoderLayer(nnx.Module):
    """Attention and MLP, each behind a norm and with a residual."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs) -> None:
        self.rate = config.dropout
        self.attention_norm = RMSNorm(config.model_dim, config.norm_epsilon)
        self.attention = make_attention(config, rngs)
        self.mlp_norm = RMSNorm(config.model_dim, config.norm_epsilon)
        self.mlp = make_mlp(config, rngs)

    def __call__(
        self,
        x: Float[Array, "B S D"],
        mask: Bool[Array, "B #S S"],
        bias: Float[Array, "H S S"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B S D"]:
        """The layer's output."""
        keys = split_key(key, 6)
        normed = self.attention_norm(x)
        query, memory = self.attention.queries(normed, keys[3]), self.attention.keys_values(normed, keys[4])
        mixed = attend(query, memory, mask, scale=1.0, bias=bias)
        x = x + dropout(self.attention.join(mixed, keys[5]), self.rate, keys[0])
        return residual(x + dropout(self.mlp(self.mlp_norm(x), self.rate, keys[1]), self.rate, keys[2]))


class DecoderLayer(nnx.Module):
    """Self-attention, attention to the encoder, and MLP, each behind a norm and with a residual."""

    def __init__(self, config: T5Config, *, rngs: nnx.Rngs) -> None:
        self.rate = config.dropout
        self.attention_norm = RMSNorm(config.model_dim, config.norm_epsilon)
        self.attention = make_attention(config, rngs)
        self.cross_norm = RMSNorm(config.model_dim, config.norm_epsilon)
        self.cross_attention = make_attention(config, rngs)
        self.mlp_norm = RMSNorm(config.model_dim, config.norm_epsilon)
        self.mlp = make_mlp(config, rngs)

    def project(
        self, x: Float[Array, "B L D"], key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, "B H L C"], KeyValues]:
        """Queries, keys and values of self-attention."""
        query_key, memory_key = split_key(key, 2)
        normed = self.attention_norm(x)
        return self.attention.queries(normed, query_key), self.attention.keys_values(normed, memory_key)

    def finish(
        self,
        x: Float[Array, "B L D"],
        query: Float[Array, "B H L C"],
        memory: KeyValues,
        mask: Bool[Array, "#B #L M"],
        bias: Float[Array, "H L M"],
        encoded: KeyValues,
        encoded_mask: Bool[Array, "B #L S"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Attend to `memory`, then to the keys and values of the encoder, then the MLP."""
        keys = split_key(key, 7)
        mixed = attend(query, memory, mask, scale=1.0, bias=bias)
        x = x + dropout(self.attention.join(mixed, keys[4]), self.rate, keys[0])
        query = self.cross_attention.queries(self.cross_norm(x), keys[5])
        mixed = attend(query, encoded, encoded_mask, scale=1.0)
        x = x + dropout(self.cross_attention.join(mixed, keys[6]), self.rate, keys[1])
        return residual(x + dropout(self.mlp(self.mlp_norm(x), self.rate, keys[2]), self.rate, keys[3]))


class T5(nnx.Module):
    """The whole network. Methods are pure functions of the parameters that it holds and of their arguments."""

    def __init__(self, config: T5Config, vocabulary_size: int, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.embedding = Embedding(vocabulary_size, config.model_dim, std=1.0, rngs=rngs)
        self.encoder_bias = RelativeBias(config, bidirectional=True, rngs=rngs)
        self.encoder = stack(lambda keys: EncoderLayer(config, rngs=keys), config.layers, rngs=rngs)
        self.encoder_norm = RMSNorm(config.model_dim, config.norm_epsilon)
        self.decoder_bias = RelativeBias(config, bidirectional=False, rngs=rngs)
        self.decoder = stack(lambda keys: DecoderLayer(config, rngs=keys), config.decoder_layers, rngs=rngs)
        self.decoder_norm = RMSNorm(config.model_dim, config.norm_epsilon)
        if not config.tied_embedding:
            self.head = Linear({"embed": config.model_dim}, {"vocabulary": vocabulary_size}, rngs=rngs)

    def hidden(self, batch: Mapping[str, Array], key: Key[Array, ""] | None = None) -> Float[Array, "B L D"]:
        """The decoder's normed last hidden states.

        Of a packed batch: `encoder_tokens`, `encoder_segments` [B, S]; `tokens`, `segments` [B, L].
        """
        encoder_key, decoder_key = split_key(key, 2)
        sources, segments = batch["encoder_segments"], batch["segments"]
        encoded = self.encode(batch["encoder_tokens"], segment_mask(sources, sources), encoder_key)
        return self._decode(batch["tokens"], segments, encoded, segment_mask(segments, sources), decoder_key)

    def unembed(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        """Logits of hidden states."""
        if self.config.tied_embedding:
            return self.embedding.attend(hidden * self.config.model_dim**-0.5)
        return self.head(hidden)

    def encode(
        self, tokens: Int[Array, "B S"], mask: Bool[Array, "B #S S"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "B S D"]:
        """The encoder's output."""
        bias = self.encoder_bias.square(tokens.shape[1])

        def body(layer: EncoderLayer, x: Array, key: Array | None) -> tuple[Array, None]:
            return layer(x, mask, bias, key), None

        keys = split_key(key, 3)
        x = self._embed(tokens, keys[0])
        x, _ = self._scan(body, self.encoder, x, layer_keys(keys[1], self.config.layers))
        return dropout(self.encoder_norm(x), self.config.dropout, keys[2])

    def prefill(
        self, prompts: Int[Array, "B S"], lengths: Int[Array, "B"], max_new_tokens: int
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Encode the prompts and decode the start token; every layer's keys of the prompt are computed here, once."""
        batch, length = prompts.shape
        prompt_mask = length_mask(lengths, length)
        encoded = self.encode(prompts, prompt_mask[:, None])

        def body(layer: DecoderLayer, carry: None, _: None) -> tuple[None, KeyValues]:
            return carry, layer.cross_attention.keys_values(encoded)

        _, cross = self._scan(body, self.decoder, None, None)
        empty = jax.tree.map(lambda leaf: leaf[:, :, :, :0], cross)
        cache = Cache(
            self_attention=kv_cache.allocate(empty, max_new_tokens + 1),
            cross_attention=cross,
            positions=jnp.full((batch, max_new_tokens + 1), kv_cache.EMPTY, jnp.int32),
            cross_valid=prompt_mask,
            length=jnp.zeros((batch,), jnp.int32),
            slot=jnp.zeros((), jnp.int32),
        )
        return self.decode_step(cache, jnp.full((batch,), START, jnp.int32))

    def decode_step(self, cache: Cache, tokens: Int[Array, "B"]) -> tuple[Float[Array, "B V"], Cache]:
        """Logits after one more token of each row. At most `max_new_tokens` steps fit."""
        assert cache.cross_valid is not None  # prefill made this cache
        cross_mask = cache.cross_valid[:, None]
        positions = cache.next_positions()
        mask = kv_cache.visible(positions, cache.length[:, None], 0)
        bias = self.decoder_bias.at(jnp.arange(positions.shape[1]) - cache.slot)[:, None]

        def body(
            layer: DecoderLayer, carry: tuple[Array, KeyValues], inputs: tuple[LayerIndex, KeyValues]
        ) -> tuple[tuple[Array, KeyValues], None]:
            (x, memory), (index, cross) = carry, inputs
            query, new = layer.project(x)
            memory = kv_cache.write(memory, new, index, cache.slot)
            past = kv_cache.read(memory, index)
            x = layer.finish(x, query, past, mask, bias, cross, cross_mask)
            return (x, memory), None

        carry = (self._embed(tokens[:, None], None), cache.self_attention)
        inputs = (np.arange(self.config.decoder_layers), cache.cross_attention)
        (x, memory), _ = self._scan(body, self.decoder, carry, inputs)
        return self.unembed(self.decoder_norm(x))[:, 0], cache.grown(memory, positions)

    def _decode(
        self,
        tokens: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        encoded: Float[Array, "B S D"],
        encoded_mask: Bool[Array, "B L S"],
        key: Key[Array, ""] | None,
    ) -> Float[Array, "B L D"]:
        """The normed last hidden states of the decoder."""
        mask = causal_mask(tokens.shape[1]) & segment_mask(segments, segments)
        bias = self.decoder_bias.square(tokens.shape[1])

        def body(layer: DecoderLayer, x: Array, key: Array | None) -> tuple[Array, None]:
            keys = split_key(key, 3)
            query, memory = layer.project(x, keys[0])
            cross = layer.cross_attention.keys_values(encoded, keys[1])
            return layer.finish(x, query, memory, mask, bias, cross, encoded_mask, keys[2]), None

        keys = split_key(key, 3)
        x = self._embed(tokens, keys[0])
        x, _ = self._scan(body, self.decoder, x, layer_keys(keys[1], self.config.decoder_layers))
        return dropout(self.decoder_norm(x), self.config.dropout, keys[2])

    def _scan(self, body: Any, layers: nnx.Module, carry: Any, inputs: Any) -> tuple[Any, Any]:
        config = self.config
        return scan(body, layers, carry, inputs, remat=config.remat, unroll=config.scan_unroll)

    def _embed(self, tokens: Int[Array, "B L"], key: Key[Array, ""] | None) -> Float[Array, "B L D"]:
        embedded = self.embedding(tokens, jnp.dtype(self.config.dtype))
        return residual(dropout(embedded, self.config.dropout, key))


def make_mlp(config: T5Config, rngs: nnx.Rngs) -> MLP:
    """With a gated GELU, or a plain ReLU."""
    gated = config.mlp == "gated_gelu"
    return MLP(config.model_dim, config.mlp_dim, gelu if gated else jax.nn.relu, gated=gated, rngs=rngs)


def make_attention(config: T5Config, rngs: nnx.Rngs) -> Attention:
    """T5 does not scale scores by 1/√(head width), so its queries start smaller by that factor."""
    return Attention(
        config.model_dim,
        config.heads,
        config.heads,
        config.head_dim,
        rngs=rngs,
        query_scale=config.head_dim**-0.5,
    )
