"""What a batch asks of a network, counted in floating-point operations of its matrix products.

Forward and backward pass of a matrix of N elements take 6·N operations a token (Kaplan et al. 2020, section 2.1), and
attention 12 · heads · head width operations for every pair of query and key that a layer looks at (4 forward: scores
and mixture; twice that backward). Only real tokens and pairs within one example count: what a program spends on
padding, on masked pairs or on computing again is not work.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from coi_jax.model_config import DecoderConfig, T5Config
from coi_jax.models import Network
from coi_jax.sharding import path_name


class Work(NamedTuple):
    """The size of a batch, padding left out. Encoder parts are 0 in a decoder's batch."""

    examples: Float[Array, ""]
    tokens: Float[Array, ""]  # prompt and target positions of the decoder
    encoder_tokens: Float[Array, ""]
    pairs: Float[Array, ""]  # of decoder query and earlier-or-same key
    encoder_pairs: Float[Array, ""]
    cross_pairs: Float[Array, ""]  # of decoder query and encoder key


def count_work(batch: Mapping[str, Int[Array, "rows _"]]) -> Work:
    """Counts a packed batch on the device, inside a jitted function."""
    decoder = batch["segments"]
    encoder = batch.get("encoder_segments", decoder[:, :0])
    tokens = _sum(decoder > 0)
    return Work(
        examples=_sum(jnp.max(decoder, axis=1)),
        tokens=tokens,
        encoder_tokens=_sum(encoder > 0),
        pairs=(_pairs(decoder, decoder) + tokens) / 2,
        encoder_pairs=_pairs(encoder, encoder),
        cross_pairs=_pairs(decoder, encoder),
    )


def _pairs(queries: Int[Array, "rows L"], keys: Int[Array, "rows M"]) -> Float[Array, ""]:
    return _sum((queries[:, :, None] == keys[:, None, :]) & (queries > 0)[:, :, None])


def _sum(values: Array) -> Float[Array, ""]:
    return jnp.sum(values, dtype=jnp.float32)


class Costs(NamedTuple):
    """Elements of the matrices that one token meets, and attention's operations a pair in all layers."""

    token: int
    encoder_token: int
    pair: int
    encoder_pair: int


def costs(network: Network) -> Costs:
    """The costs of a network, from the shapes of its parameters."""
    config = network.config
    pair = 12 * config.heads * config.head_width
    sizes = [(path_name(path), int(np.prod(leaf.shape))) for path, leaf in _matrices(network)]
    if isinstance(config, DecoderConfig):
        return Costs(sum(size for _, size in sizes), 0, pair * config.layers, 0)
    encoder = sum(size for name, size in sizes if _meets_encoder(name))
    return Costs(sum(size for _, size in sizes) - encoder, encoder, pair * config.decoder_layers, pair * config.layers)


def _matrices(network: Network) -> list[tuple[Any, Any]]:
    """Every parameter that tokens are multiplied with: an embedding that is not also the head is only looked up."""
    leaves = jax.tree_util.tree_leaves_with_path(network.abstract())
    looked_up = isinstance(network.config, T5Config) or not network.config.tied_embedding
    return [item for item in leaves if not (looked_up and path_name(item[0]).startswith("embedding"))]


def _meets_encoder(name: str) -> bool:
    """The encoder itself, and the decoder's keys and values of what it wrote."""
    return name.startswith("encoder") or "cross_attention.key" in name or "cross_attention.value" in name


def model_flops(work: Work, costs: Costs) -> float:
    """Operations of a forward and a backward pass over a batch of numbers on the host."""
    matrices = 6 * (costs.token * float(work.tokens) + costs.encoder_token * float(work.encoder_tokens))
    decoder = costs.pair * (float(work.pairs) + float(work.cross_pairs))
    return matrices + decoder + costs.encoder_pair * float(work.encoder_pairs)
