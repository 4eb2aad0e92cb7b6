"""What a batch asks of a network, counted in floating-point operations of its matrix products.

Forward and backward pass of a matrix of N elements take 6·N operations a token (Kaplan et al. 2020, section 2.1): 2
forward, 2 for the gradient of its input and 2 for its own, which a frozen matrix has not. Attention takes 12 · heads ·
head width operations for every pair of query and key that a layer looks at (4 forward: scores and mixture; twice that
backward). Nothing goes backward below the first stack of layers that is trained. Only real tokens and pairs within one
example count: what a program spends on padding, on masked pairs or on computing again is not work.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from coi_jax.config.model import DecoderConfig, T5Config
from coi_jax.models import Network
from coi_jax.parallel.sharding import path_name


class Work(NamedTuple):
    """The size of a batch, padding left out. Encoder parts are 0 in a decoder's batch."""

    examples: Float[Array, ""]
    tokens: Float[Array, ""]  # prompt and target positions of the decoder
    encoder_tokens: Float[Array, ""]
    pairs: Float[Array, ""]  # of decoder query and earlier-or-same key that it sees, in the mean of all layers
    encoder_pairs: Float[Array, ""]
    cross_pairs: Float[Array, ""]  # of decoder query and encoder key


def count_work(batch: Mapping[str, Int[Array, "rows _"]], config: DecoderConfig | T5Config) -> Work:
    """Counts a packed batch on the device, inside a jitted function."""
    decoder = batch["segments"]
    encoder = batch.get("encoder_segments", decoder[:, :0])
    tokens = _sum(decoder > 0)
    if isinstance(config, DecoderConfig):
        pairs = _sum(jnp.where(decoder > 0, keys_seen(batch["positions"] + 1, config), 0))
    else:
        pairs = (_pairs(decoder, decoder) + tokens) / 2
    return Work(
        examples=_sum(jnp.max(decoder, axis=1)),
        tokens=tokens,
        encoder_tokens=_sum(encoder > 0),
        pairs=pairs,
        encoder_pairs=_pairs(encoder, encoder),
        cross_pairs=_pairs(decoder, encoder),
    )


def keys_seen(causal: Any, config: DecoderConfig) -> Any:
    """Keys that a query sees in the mean of all layers, of `causal` keys of its example up to itself.

    Args:
      causal: numbers, as an array of JAX or NumPy.
      config: that says which layers have a window.
    """
    if not config.local_layers:
        return causal
    local = config.local_layers / config.layers
    return (1 - local) * causal + local * causal.clip(max=config.window)


def example_pairs(lengths: Float[np.ndarray, " N"], config: DecoderConfig | T5Config) -> Float[np.ndarray, " N"]:
    """The pairs of examples of some decoder positions, as `count_work` counts them."""
    pairs = lengths * (lengths + 1) / 2
    if not isinstance(config, DecoderConfig) or not config.local_layers:
        return pairs
    hidden = np.maximum(lengths - config.window, 0)
    return pairs - config.local_layers / config.layers * hidden * (hidden + 1) / 2


def _pairs(queries: Int[Array, "rows L"], keys: Int[Array, "rows M"]) -> Float[Array, ""]:
    return _sum((queries[:, :, None] == keys[:, None, :]) & (queries > 0)[:, :, None])


def _sum(values: Array) -> Float[Array, ""]:
    return jnp.sum(values, dtype=jnp.float32)


class Costs(NamedTuple):
    """Operations of forward and backward pass: of one token in the matrices it meets, of one pair in all layers."""

    token: int
    encoder_token: int
    pair: int
    encoder_pair: int


ENCODER, DECODER, HEAD = range(3)  # the stacks, in the order that they are computed in


def costs(network: Network) -> Costs:
    """The costs of a network, from the shapes of its parameters."""
    config = network.config
    sizes = {path_name(path): int(np.prod(leaf.shape)) for path, leaf in _matrices(network)}
    trained = {name for name in sizes if network.lora is None or "adapter" in name}
    first = min(map(_stack, trained))

    def operations(name: str) -> int:
        passes = 3 if name in trained else 2 if _reaches(name, first) else 1
        return 2 * passes * sizes[name]

    encoder = sum(operations(name) for name in sizes if _meets_encoder(name))
    token = sum(operations(name) for name in sizes) - encoder
    scores = config.heads * config.head_dim
    pair, encoder_pair = (scores * (12 if first <= stack else 4) for stack in (DECODER, ENCODER))
    if isinstance(config, DecoderConfig):
        return Costs(token, encoder, pair * config.layers, 0)
    return Costs(token, encoder, pair * config.decoder_layers, encoder_pair * config.layers)


def _stack(name: str) -> int:
    if name.startswith("encoder"):
        return ENCODER
    return HEAD if name.startswith(("head", "embedding")) else DECODER


def _reaches(name: str, first: int) -> bool:
    """Whether the gradient of a matrix's input is needed: something before it, or in its stack, is trained."""
    return first <= (ENCODER if _meets_encoder(name) else _stack(name))


def _matrices(network: Network) -> list[tuple[Any, Any]]:
    """Every parameter that tokens are multiplied with: an embedding that is not also the head is only looked up."""
    leaves = jax.tree_util.tree_leaves_with_path(network.abstract(), is_leaf=lambda node: hasattr(node, "shape"))
    tied = network.config.tied_embedding
    return [item for item in leaves if tied or not path_name(item[0]).startswith("embedding")]


def _meets_encoder(name: str) -> bool:
    """The encoder itself, and the decoder's keys and values of what it wrote."""
    return name.startswith("encoder") or "cross_attention.key" in name or "cross_attention.value" in name


def model_flops(work: Work, costs: Costs) -> float:
    """Operations of a forward and a backward pass over a batch of numbers on the host."""
    matrices = costs.token * float(work.tokens) + costs.encoder_token * float(work.encoder_tokens)
    decoder = costs.pair * (float(work.pairs) + float(work.cross_pairs))
    return matrices + decoder + costs.encoder_pair * float(work.encoder_pairs)
