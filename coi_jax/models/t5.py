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
from coi_jax.models.attention import Attention, causal_mask, dot_product_attention, length_mask, segment_mask
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
    parameter,
    scan_layers,
    split_key,
    stack_layers,
)

START_ID = 0  # the decoder's first input: T5's padding id

gelu = functools.partial(jax.nn.gelu, approximate=True)


def relative_bucket(
    distance: Int[Array, "*shape"], buckets: int, max_distance: int, *, bidirectional: bool
) -> Int[Array, "*shape"]:
    """Return the bucket of each distance key position - query position (Raffel et al. 2020, section 2.1).

    Half of the buckets hold one small distance each, the other half grow logarithmically up to `max_distance`,
    beyond which all distances share the last.

    Args:
      distance: key position - query position.
      buckets: number of buckets.
      max_distance: the distance from which on all share a bucket.
      bidirectional: whether each direction has half of the buckets; else keys after the query share bucket 0.
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

    def at_distances(self, distances: Int[Array, "N"]) -> Float[Array, "H N"]:
        """Return the bias at some distances key position - query position."""
        table = self.table[...]
        return table[relative_bucket(distances, len(table), self.max_distance, bidirectional=self.bidirectional)].T

    def bias_matrix(self, length: int) -> Float[Array, "H length length"]:
        """Return the bias between all positions of a row.

        It depends on the distance alone: 2 · length numbers are looked up, and each query's row is the one before it
        shifted by one. Repeating the numbers end to end and reshaping to rows that are one number shorter gives that
        matrix. The gradient is then a sum, where that of a lookup for every pair is a slow scatter.
        """
        distances = jnp.concatenate([jnp.arange(length), jnp.arange(-length, 0)])
        period = 2 * length
        repeated = jnp.tile(self.at_distances(distances), (1, length))[:, : length * (period - 1)]
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
        """Return the layer's output; `key` is for dropout."""
        keys = split_key(key, 6)
        normed = self.attention_norm(x)
        query, kv = self.attention.queries(normed, keys[3]), self.attention.keys_values(normed, keys[4])
        attended = dot_product_attention(query, kv, mask, scale=1.0, bias=bias)
        x = x + dropout(self.attention.project_output(attended, keys[5]), self.rate, keys[0])
        return constrain_residual(x + dropout(self.mlp(self.mlp_norm(x), self.rate, keys[1]), self.rate, keys[2]))


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

    def project_qkv(
        self, x: Float[Array, "B L D"], key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, "B H L C"], KeyValues]:
        """Return queries, keys and values of self-attention."""
        query_key, kv_key = split_key(key, 2)
        normed = self.attention_norm(x)
        return self.attention.queries(normed, query_key), self.attention.keys_values(normed, kv_key)

    def finish_layer(
        self,
        x: Float[Array, "B L D"],
        query: Float[Array, "B H L C"],
        kv: KeyValues,
        mask: Bool[Array, "#B #L M"],
        bias: Float[Array, "*B H L M"],
        encoded: KeyValues,
        encoded_mask: Bool[Array, "B #L S"],
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "B L D"]:
        """Attend to the decoder's own keys, then to the encoder's, then apply the MLP.

        Args:
          x: the residual stream.
          query: queries of self-attention.
          kv: keys and values of self-attention.
          mask: True where a query may attend to a key.
          bias: relative position bias of self-attention.
          encoded: keys and values of the encoder's output.
          encoded_mask: True where a query may attend to an encoder position.
          key: of dropout; None for no dropout.
        """
        keys = split_key(key, 7)
        attended = dot_product_attention(query, kv, mask, scale=1.0, bias=bias)
        x = x + dropout(self.attention.project_output(attended, keys[4]), self.rate, keys[0])
        query = self.cross_attention.queries(self.cross_norm(x), keys[5])
        attended = dot_product_attention(query, encoded, encoded_mask, scale=1.0)
        x = x + dropout(self.cross_attention.project_output(attended, keys[6]), self.rate, keys[1])
        return constrain_residual(x + dropout(self.mlp(self.mlp_norm(x), self.rate, keys[2]), self.rate, keys[3]))


class T5(nnx.Module):
    """The whole network. Methods are pure functions of the parameters that it holds and of their arguments."""

    def __init__(self, config: T5Config, vocabulary_size: int, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.embedding = Embedding(vocabulary_size, config.model_dim, std=1.0, rngs=rngs)
        self.encoder_bias = RelativeBias(config, bidirectional=True, rngs=rngs)
        self.encoder = stack_layers(lambda keys: EncoderLayer(config, rngs=keys), config.layers, rngs=rngs)
        self.encoder_norm = RMSNorm(config.model_dim, config.norm_epsilon)
        self.decoder_bias = RelativeBias(config, bidirectional=False, rngs=rngs)
        self.decoder = stack_layers(lambda keys: DecoderLayer(config, rngs=keys), config.decoder_layers, rngs=rngs)
        self.decoder_norm = RMSNorm(config.model_dim, config.norm_epsilon)
        if not config.tied_embedding:
            self.head = Linear({"embed": config.model_dim}, {"vocabulary": vocabulary_size}, rngs=rngs)

    def hidden(self, batch: Mapping[str, Array], key: Key[Array, ""] | None = None) -> Float[Array, "B L D"]:
        """Return the decoder's normed last hidden states of a packed batch.

        The batch has `encoder_tokens` and `encoder_segments` [B, S], `tokens` and `segments` [B, L].
        """
        encoder_key, decoder_key = split_key(key, 2)
        sources, segments = batch["encoder_segments"], batch["segments"]
        encoded = self.encode(batch["encoder_tokens"], segment_mask(sources, sources), encoder_key)
        return self._decode(batch["tokens"], segments, encoded, segment_mask(segments, sources), decoder_key)

    def unembed(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L V"]:
        """Return the logits of hidden states."""
        if self.config.tied_embedding:
            return self.embedding.attend(hidden * self.config.model_dim**-0.5)
        return self.head(hidden)

    def encode(
        self, tokens: Int[Array, "B S"], mask: Bool[Array, "B #S S"], key: Key[Array, ""] | None = None
    ) -> Float[Array, "B S D"]:
        """Return the encoder's output.

        Args:
          tokens: token ids.
          mask: True where a position may attend to another.
          key: of dropout; None for no dropout.
        """
        bias = self.encoder_bias.bias_matrix(tokens.shape[1])

        def body(layer: EncoderLayer, x: Array, key: Array | None) -> tuple[Array, None]:
            return layer(x, mask, bias, key), None

        keys = split_key(key, 3)
        x = self._embed(tokens, keys[0])
        x, _ = self._scan(body, self.encoder, x, layer_keys(keys[1], self.config.layers))
        return dropout(self.encoder_norm(x), self.config.dropout, keys[2])

    def prefill(
        self, prompts: Int[Array, "B S"], lengths: Int[Array, "B"], cache: Cache
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Encode the prompts and decode the start token; compute every layer's keys and values of the prompts once.

        Args:
          prompts: token ids, right-padded.
          lengths: tokens of each prompt.
          cache: of `empty_cache`, for prompts of this length or longer ones.
        """
        assert cache.cross_attention is not None  # `empty_cache` made this cache
        encoded = self.encode(prompts, length_mask(lengths, prompts.shape[1])[:, None])
        start, slots = jnp.zeros_like(lengths), cache.cross_attention.slots

        def body(layer: DecoderLayer, cross: KeyValues, index: LayerIndex) -> tuple[KeyValues, None]:
            return kv_cache.write(cross, layer.cross_attention.keys_values(encoded), index, start), None

        cross, _ = self._scan(body, self.decoder, cache.cross_attention, np.arange(self.config.decoder_layers))
        cache = cache._replace(cross_attention=cross, cross_valid=length_mask(lengths, slots))
        return self.decode_step(cache, jnp.full_like(lengths, START_ID))

    def decode_step(self, cache: Cache, tokens: Int[Array, "B"]) -> tuple[Float[Array, "B V"], Cache]:
        """Return the logits after one more token of each row, and the cache with it."""
        assert cache.cross_valid is not None  # prefill made this cache
        cross_mask, position = cache.cross_valid[:, None], cache.length[:, None]
        slots = cache.self_attention.slots
        mask = kv_cache.decode_mask(position, jnp.arange(slots))
        distances = jnp.arange(slots)[None] - position
        bias = self.decoder_bias.at_distances(distances.reshape(-1)).reshape(-1, *distances.shape).swapaxes(0, 1)

        def body(
            layer: DecoderLayer, carry: tuple[Array, KeyValues], inputs: tuple[LayerIndex, KeyValues]
        ) -> tuple[tuple[Array, KeyValues], None]:
            (x, kv), (index, cross) = carry, inputs
            query, new = layer.project_qkv(x)
            kv = kv_cache.write(kv, new, index, cache.length)
            past = kv_cache.read(kv, index)
            x = layer.finish_layer(x, query, past, mask, bias[:, :, None], cross, cross_mask)
            return (x, kv), None

        carry = (self._embed(tokens[:, None], None), cache.self_attention)
        inputs = (np.arange(self.config.decoder_layers), cache.cross_attention)
        (x, kv), _ = self._scan(body, self.decoder, carry, inputs)
        return self.unembed(self.decoder_norm(x))[:, 0], cache._replace(self_attention=kv, length=cache.length + 1)

    def empty_cache(self, rows: int, prompt_length: int, max_new_tokens: int) -> Cache:
        """Return a cache of rows without tokens.

        Args:
          rows: of the batch.
          prompt_length: tokens of the longest prompt, padding included.
          max_new_tokens: the most tokens that are decoded after the start token.
        """
        config = self.config
        sizes = (config.decoder_layers, rows, config.heads)
        own, cross = (
            kv_cache.empty((*sizes, slots, config.head_dim), config.dtype)
            for slots in (max_new_tokens + 1, prompt_length)
        )
        return Cache(own, cross, jnp.zeros((rows, prompt_length), bool), jnp.zeros((rows,), jnp.int32))

    def _decode(
        self,
        tokens: Int[Array, "B L"],
        segments: Int[Array, "B L"],
        encoded: Float[Array, "B S D"],
        encoded_mask: Bool[Array, "B L S"],
        key: Key[Array, ""] | None,
    ) -> Float[Array, "B L D"]:
        """Return the normed last hidden states of the decoder."""
        mask = causal_mask(tokens.shape[1]) & segment_mask(segments, segments)
        bias = self.decoder_bias.bias_matrix(tokens.shape[1])

        def body(layer: DecoderLayer, x: Array, key: Array | None) -> tuple[Array, None]:
            keys = split_key(key, 3)
            query, kv = layer.project_qkv(x, keys[0])
            cross = layer.cross_attention.keys_values(encoded, keys[1])
            return layer.finish_layer(x, query, kv, mask, bias, cross, encoded_mask, keys[2]), None

        keys = split_key(key, 3)
        x = self._embed(tokens, keys[0])
        x, _ = self._scan(body, self.decoder, x, layer_keys(keys[1], self.config.decoder_layers))
        return dropout(self.decoder_norm(x), self.config.dropout, keys[2])

    def _scan(self, body: Any, layers: nnx.Module, carry: Any, inputs: Any) -> tuple[Any, Any]:
        config = self.config
        return scan_layers(body, layers, carry, inputs, remat=config.remat, unroll=config.scan_unroll)

    def _embed(self, tokens: Int[Array, "B L"], key: Key[Array, ""] | None) -> Float[Array, "B L D"]:
        embedded = self.embedding(tokens, jnp.dtype(self.config.dtype))
        return constrain_residual(dropout(embedded, self.config.dropout, key))


def make_mlp(config: T5Config, rngs: nnx.Rngs) -> MLP:
    """Return an MLP with a gated GELU, or with a plain ReLU."""
    gated = config.mlp == "gated_gelu"
    return MLP(config.model_dim, config.mlp_dim, gelu if gated else jax.nn.relu, gated=gated, rngs=rngs)


def make_attention(config: T5Config, rngs: nnx.Rngs) -> Attention:
    """Return the projections; T5 does not scale scores by 1/√head_dim, so its queries start smaller by that factor."""
    return Attention(
        config.model_dim,
        config.heads,
        config.heads,
        config.head_dim,
        rngs=rngs,
        query_scale=config.head_dim**-0.5,
    )
