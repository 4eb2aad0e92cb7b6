"""Model FLOPs: the floating-point operations of matrix products that a batch needs, forward and backward.

A matrix of N elements takes 6·N operations per token (Kaplan et al. 2020, section 2.1): 2 forward, 2 for the gradient
of its input and 2 for its own gradient, which a frozen matrix does not have. Attention takes 12 · heads · head_dim
operations for every pair of query and key in a layer (4 forward: scores and weighted values; twice that backward).
There is no backward pass below the first stack of layers that is trained. Only real tokens and pairs within one example
count, and the output layer only for targets: padding, masked pairs and rematerialization do not.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real

from coi_jax.config.model import DecoderConfig, T5Config
from coi_jax.models import Network
from coi_jax.parallel.sharding import path_name


class Work(NamedTuple):
    """The size of a batch without padding. Encoder parts are 0 in a decoder's batch."""

    examples: Float[Array, ""]
    tokens: Float[Array, ""]  # prompt and target positions of the decoder
    targets: Float[Array, ""]  # positions with a loss
    encoder_tokens: Float[Array, ""]
    pairs: Float[Array, ""]  # of decoder query and key that it attends to, the mean over layers
    encoder_pairs: Float[Array, ""]
    cross_pairs: Float[Array, ""]  # of decoder query and encoder key


def count_work(batch: Mapping[str, Real[Array, "rows _"]], config: DecoderConfig | T5Config) -> Work:
    """Count a packed batch on the device, inside a jitted function."""
    decoder = batch["segments"]
    encoder = batch.get("encoder_segments", decoder[:, :0])
    tokens = _sum(decoder > 0)
    if isinstance(config, DecoderConfig):
        pairs = _sum(jnp.where(decoder > 0, mean_visible_keys(batch["positions"] + 1, config), 0))
    else:
        pairs = (_pairs(decoder, decoder) + tokens) / 2
    return Work(
        examples=_sum(jnp.max(decoder, axis=1)),
        tokens=tokens,
        targets=_sum(batch["weights"] != 0),
        encoder_tokens=_sum(encoder > 0),
        pairs=pairs,
        encoder_pairs=_pairs(encoder, encoder),
        cross_pairs=_pairs(decoder, encoder),
    )


def mean_visible_keys(causal: Any, config: DecoderConfig) -> Any:
    """Return the number of keys that a query attends to, the mean over layers.

    Args:
      causal: the number of keys of its example up to itself, an array of JAX or NumPy.
      config: the model section, which gives the layers with a window.
    """
    if not config.local_layers:
        return causal
    local = config.local_layers / config.layers
    return (1 - local) * causal + local * causal.clip(max=config.window)


def attention_pairs(lengths: Float[np.ndarray, " N"], config: DecoderConfig | T5Config) -> Float[np.ndarray, " N"]:
    """Return the pairs of query and key of examples with `lengths` decoder positions, as `count_work` counts them."""
    pairs: np.ndarray = lengths * (lengths + 1) / 2
    if not isinstance(config, DecoderConfig) or config.window is None:
        return pairs
    hidden = np.maximum(lengths - config.window, 0)
    visible: np.ndarray = pairs - config.local_layers / config.layers * hidden * (hidden + 1) / 2
    return visible


def _pairs(queries: Int[Array, "rows L"], keys: Int[Array, "rows M"]) -> Float[Array, ""]:
    return _sum((queries[:, :, None] == keys[:, None, :]) & (queries > 0)[:, :, None])


def _sum(values: Array) -> Float[Array, ""]:
    return jnp.sum(values, dtype=jnp.float32)


class Costs(NamedTuple):
    """Operations forward and backward: of one token in all matrices that it passes, of one pair in all layers."""

    token: int  # without the output layer
    target: int  # of the output layer
    encoder_token: int
    pair: int
    encoder_pair: int


ENCODER, DECODER, HEAD = range(3)  # the stacks, in the order of the forward pass


def costs(network: Network) -> Costs:
    """Return the costs of a network, from the shapes of its parameters."""
    config = network.config
    sizes = {path_name(path): int(np.prod(leaf.shape)) for path, leaf in _matrices(network)}
    trained = {name for name in sizes if network.lora is None or "adapter" in name}
    first = min(map(_stack, trained))

    def operations(name: str) -> int:
        passes = 3 if name in trained else 2 if _needs_input_gradient(name, first) else 1
        return 2 * passes * sizes[name]

    encoder = sum(operations(name) for name in sizes if _reads_encoder(name))
    target = sum(operations(name) for name in sizes if _is_output(name))
    token = sum(operations(name) for name in sizes) - encoder - target
    scores = config.heads * config.head_dim
    pair, encoder_pair = (scores * (12 if first <= stack else 4) for stack in (DECODER, ENCODER))
    if isinstance(config, DecoderConfig):
        return Costs(token, target, encoder, pair * config.layers, 0)
    return Costs(token, target, encoder, pair * config.decoder_layers, encoder_pair * config.layers)


def _stack(name: str) -> int:
    if name.startswith("encoder"):
        return ENCODER
    return HEAD if _is_output(name) else DECODER


def _is_output(name: str) -> bool:
    """Return whether a matrix is the output layer, which may be the embedding's table."""
    return name.startswith(("head", "embedding"))


def _needs_input_gradient(name: str, first: int) -> bool:
    """Return whether the gradient of a matrix's input is needed: something before it, or in its stack, is trained."""
    return first <= (ENCODER if _reads_encoder(name) else _stack(name))


def _matrices(network: Network) -> list[tuple[Any, Any]]:
    """Return the parameters that are multiplied with; an embedding that is not also the head is only looked up."""
    leaves = jax.tree_util.tree_leaves_with_path(network.abstract(), is_leaf=lambda node: hasattr(node, "shape"))
    tied = network.config.tied_embedding
    return [item for item in leaves if tied or not path_name(item[0]).startswith("embedding")]


def _reads_encoder(name: str) -> bool:
    """Return whether a matrix is of the encoder, or of the decoder's keys and values of the encoder's output."""
    return name.startswith("encoder") or "cross_attention.key" in name or "cross_attention.value" in name


def model_flops(work: Work, costs: Costs) -> float:
    """Return the operations of a forward and a backward pass over a batch, from numbers on the host."""
    decoder_matrices = costs.token * float(work.tokens) + costs.target * float(work.targets)
    matrices = decoder_matrices + costs.encoder_token * float(work.encoder_tokens)
    decoder = costs.pair * (float(work.pairs) + float(work.cross_pairs))
    return matrices + decoder + costs.encoder_pair * float(work.encoder_pairs)
