"""T5 against transformers' T5 v1.1: part by part, whole, its gradients and its answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention, T5LayerFF, T5LayerSelfAttention

from coi_jax.config.model import T5Config
from coi_jax.models import Network, Params, t5
from coi_jax.models.attention import causal_mask, dot_product_attention, length_mask
from coi_jax.models.t5 import relative_bucket
from tests.helpers import reference_layers
from tests.helpers.reference_layers import assert_equal, random, torch_of
from tests.helpers.tiny_networks import T5, change, greedy, pack_pairs, tokens

LENGTH, SOURCE = 9, 13
UNROLLED = change(T5, heads=4, relative_buckets=32, relative_max_distance=40, scan_unroll=T5.decoder_layers)
VARIANTS = {"scanned": T5, "unrolled": UNROLLED}

Pair = tuple[T5ForConditionalGeneration, Network, Params]


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=list(VARIANTS))
def pair(request: pytest.FixtureRequest) -> Pair:
    config: T5Config = request.param
    return reference_layers.pair(config)


def module_of(network: Network, params: Params) -> t5.T5:
    module = network.module(params)
    assert isinstance(module, t5.T5)
    return module


def self_attention(stack: torch.nn.Module) -> T5Attention:
    """The self-attention of transformers' first layer."""
    layer = stack.get_submodule("block.0.layer.0")
    assert isinstance(layer, T5LayerSelfAttention)
    return layer.SelfAttention


def whole(length: int) -> jax.Array:
    return jnp.ones((2, 1, length), bool)


def their_mask(mask: np.ndarray | jax.Array) -> torch.Tensor:
    return torch.from_numpy(np.where(np.asarray(mask)[:, None], 0.0, -1e30).astype(np.float32))


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(8, 16), (32, 128), (10, 50)])
def test_relative_buckets(bidirectional: bool, buckets: int, max_distance: int) -> None:
    distances = np.arange(-300, 300, dtype=np.int32)
    ours = relative_bucket(jnp.asarray(distances), buckets, max_distance, bidirectional=bidirectional)
    theirs = T5Attention._relative_position_bucket(torch_of(distances), bidirectional, buckets, max_distance)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("length", [1, 2, LENGTH, 40])
def test_relative_bias(pair: Pair, length: int) -> None:
    theirs, network, params = pair
    for ours, stack in (("encoder_bias", theirs.encoder), ("decoder_bias", theirs.decoder)):
        expected = self_attention(stack).compute_bias(length, length)[0]
        assert_equal(getattr(module_of(network, params), ours).bias_matrix(length), expected)


def test_norm_and_mlp(pair: Pair) -> None:
    theirs, network, params = pair
    ours = reference_layers.layer(module_of(network, params).encoder, 1)
    their_layer = theirs.encoder.get_submodule("block.1.layer.1")
    assert isinstance(their_layer, T5LayerFF)
    x = 3 * random(2, LENGTH, network.config.model_dim)
    assert_equal(ours.mlp_norm(x), their_layer.layer_norm(torch_of(x)))
    assert_equal(ours.mlp(x), their_layer.DenseReluDense(torch_of(x)))


def test_attention(pair: Pair) -> None:
    theirs, network, params = pair
    module = module_of(network, params)
    ours = reference_layers.layer(module.encoder, 0).attention
    their_attention = self_attention(theirs.encoder)
    x = random(2, SOURCE, network.config.model_dim)
    mask = length_mask(jnp.asarray([SOURCE, 4]), SOURCE)[:, None]
    bias = module.encoder_bias.bias_matrix(SOURCE)
    attended = dot_product_attention(ours.queries(x), ours.keys_values(x), mask, scale=1.0, bias=bias)
    expected = their_attention(torch_of(x), position_bias=torch_of(bias)[None] + their_mask(mask))[0]
    assert_equal(ours.project_output(attended), expected)


def test_encoder_layer(pair: Pair) -> None:
    theirs, network, params = pair
    module = module_of(network, params)
    x, bias = random(2, SOURCE, network.config.model_dim), module.encoder_bias.bias_matrix(SOURCE)
    ours = reference_layers.layer(module.encoder, 1)(x, whole(SOURCE), bias)
    expected = theirs.encoder.block[1](torch_of(x), position_bias=torch_of(bias)[None])
    assert_equal(ours, expected[0])


def test_decoder_layer(pair: Pair) -> None:
    theirs, network, params = pair
    module = module_of(network, params)
    layer, bias = reference_layers.layer(module.decoder, 2), module.decoder_bias.bias_matrix(LENGTH)
    x, encoded = random(2, LENGTH, network.config.model_dim), random(2, SOURCE, network.config.model_dim)
    query, kv = layer.project_qkv(x)
    cross = layer.cross_attention.keys_values(encoded)
    ours = layer.finish_layer(x, query, kv, causal_mask(LENGTH), bias, cross, whole(SOURCE))
    expected = theirs.decoder.block[2](
        torch_of(x),
        position_bias=torch_of(bias)[None] + their_mask(causal_mask(LENGTH)),
        encoder_hidden_states=torch_of(encoded),
        encoder_decoder_position_bias=torch.zeros(1, 1, 1, SOURCE),
        cache_position=torch.arange(LENGTH),
    )
    assert_equal(ours, expected[0])


def batch_of_two() -> dict[str, jax.Array]:
    return pack_pairs([[(tokens(1, SOURCE), tokens(2, LENGTH))], [(tokens(3, 5), tokens(4, LENGTH))]], SOURCE)


def their_logits(theirs: T5ForConditionalGeneration, batch: dict[str, jax.Array]) -> torch.Tensor:
    logits: torch.Tensor = theirs(
        input_ids=torch_of(batch["encoder_tokens"]),
        attention_mask=torch_of(batch["encoder_segments"]),
        decoder_input_ids=torch_of(batch["tokens"]),
    ).logits
    return logits


def test_logits(pair: Pair) -> None:
    theirs, network, params = pair
    batch = batch_of_two()
    ours = jax.jit(network.logits)(params, batch)
    assert_equal(ours[:, :LENGTH], their_logits(theirs, batch)[:, :LENGTH])


def test_loss_and_gradients(pair: Pair) -> None:
    theirs, network, params = pair
    batch = batch_of_two()
    sums, gradients = jax.jit(jax.value_and_grad(lambda params: network.loss(params, batch).loss))(params)
    theirs.zero_grad()
    logits = their_logits(theirs, batch).flatten(0, 1)
    losses = torch.nn.functional.cross_entropy(logits, torch_of(batch["targets"]).flatten(), reduction="none")
    expected = (losses * torch_of(batch["weights"]).flatten()).sum()
    expected.backward()
    np.testing.assert_allclose(sums, expected.item(), rtol=1e-5)
    reference_layers.assert_gradients(network, gradients, theirs)


def test_greedy_answers(pair: Pair) -> None:
    theirs, network, params = pair
    prompts = [tokens(3, 7), tokens(4, 1), tokens(5, 12)]
    ours = greedy(network, params, prompts, steps=8)
    for prompt, answer in zip(prompts, ours, strict=True):
        expected = theirs.generate(torch_of(prompt)[None], max_new_tokens=8, do_sample=False, use_cache=False)
        assert answer.tolist() == expected[0, 1:].tolist()
