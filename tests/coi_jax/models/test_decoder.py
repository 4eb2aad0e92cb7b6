"""The decoder against transformers' Llama: part by part, whole, its gradients and its answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from coi_jax.config.model import DecoderConfig, RopeConfig
from coi_jax.families.published_config import from_hf_config
from coi_jax.models import Network, Params
from coi_jax.models.attention import AttentionPattern, causal_self_attention
from coi_jax.models.decoder import Decoder, DecoderLayer
from coi_jax.models.rotary import Rotation, apply_rotary, rotary_cos_sin, rotary_frequencies, rotary_scale
from tests.helpers import reference_layers
from tests.helpers.reference_layers import assert_equal, random, torch_of
from tests.helpers.tiny_networks import DECODER, change, greedy, pack, tokens

LENGTH = 11
UNROLLED = change(DECODER, heads=5, kv_heads=1, tied_embedding=True, scan_unroll=DECODER.layers)
VARIANTS = {"scanned": DECODER, "one key head, tied, unrolled": UNROLLED}

Pair = tuple[LlamaForCausalLM, Network, Params]
Layers = tuple[modeling_llama.LlamaDecoderLayer, DecoderLayer, DecoderConfig]


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=list(VARIANTS))
def pair(request: pytest.FixtureRequest) -> Pair:
    config: DecoderConfig = request.param
    return reference_layers.pair(config)


@pytest.fixture(scope="module")
def first_layers(pair: Pair) -> Layers:
    theirs, network, params = pair
    module, config = network.module(params), network.config
    assert isinstance(module, Decoder)
    assert isinstance(config, DecoderConfig)
    return theirs.model.layers[1], reference_layers.layer(module.layers, 1), config


def their_angles(config: DecoderConfig, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    embedding = modeling_llama.LlamaRotaryEmbedding(reference_layers.llama(config).config)
    cosines, sines = embedding(torch.zeros(()), torch_of(positions))
    return cosines, sines


def positions() -> np.ndarray:
    return np.stack([np.arange(LENGTH), np.arange(LENGTH) + 900]).astype(np.int32)


def test_norm(first_layers: Layers) -> None:
    theirs, ours, config = first_layers
    x = 10 * random(2, LENGTH, config.model_dim)
    assert_equal(ours.attention_norm(x), theirs.input_layernorm(torch_of(x)))


def test_rotation(first_layers: Layers) -> None:
    _, _, config = first_layers
    query = random(2, config.heads, LENGTH, config.head_dim)
    ours = apply_rotary(
        query, rotary_cos_sin(jnp.asarray(positions()), rotary_frequencies(config.rope, config.head_dim))
    )
    theirs, _ = modeling_llama.apply_rotary_pos_emb(
        torch_of(query), torch_of(query), *their_angles(config, positions())
    )
    # Angles of position 900 are rounded to 6e-5 by fp32 in both.
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], atol=3e-4)


def test_dynamic_scaling_changes_nothing_up_to_the_original_length() -> None:
    config = LlamaConfig(
        hidden_size=32,
        num_attention_heads=4,
        max_position_embeddings=16,
        rope_scaling={"rope_type": "dynamic", "factor": 4.0},
    )
    rope = RopeConfig.model_validate(from_hf_config(config.to_dict())["rope"])
    assert (rope.scaling, rope.longest_sequence) == ("dynamic", 16)
    ours = rotary_cos_sin(jnp.arange(16)[None], rotary_frequencies(rope, 8), rotary_scale(rope))
    theirs = modeling_llama.LlamaRotaryEmbedding(config)(torch.zeros(()), torch.arange(16)[None])
    for found, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(found, expected[..., :4], atol=1e-6)


def near() -> np.ndarray:
    return np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (2, LENGTH))


def their_mask() -> torch.Tensor:
    allowed = np.tri(LENGTH, dtype=bool)[None, None]
    return torch.from_numpy(np.where(allowed, 0.0, -1e30).astype(np.float32))


def test_attention(first_layers: Layers) -> None:
    theirs, ours, config = first_layers
    x = random(2, LENGTH, config.model_dim)
    angles = rotary_cos_sin(jnp.asarray(near()), rotary_frequencies(config.rope, config.head_dim))
    query, kv = ours.attention.queries(x), ours.attention.keys_values(x)
    kv = kv._replace(keys=apply_rotary(kv.keys, angles))
    attended = causal_self_attention(
        apply_rotary(query, angles), kv, AttentionPattern(None), scale=config.head_dim**-0.5, cap=None
    )
    expected, _ = theirs.self_attn(torch_of(x), their_angles(config, near()), their_mask())
    assert_equal(ours.attention.project_output(attended), expected)


def test_mlp(first_layers: Layers) -> None:
    theirs, ours, config = first_layers
    x = random(2, LENGTH, config.model_dim)
    assert_equal(ours.mlp(x), theirs.mlp(torch_of(x)))


def test_layer(first_layers: Layers) -> None:
    theirs, ours, config = first_layers
    x = random(2, LENGTH, config.model_dim)
    angles = rotary_cos_sin(jnp.asarray(near()), rotary_frequencies(config.rope, config.head_dim))
    query, kv = ours.project_qkv(x, Rotation(angles))
    expected = theirs(torch_of(x), their_mask(), position_embeddings=their_angles(config, near()))
    attended = causal_self_attention(query, kv, AttentionPattern(None), scale=config.head_dim**-0.5, cap=None)
    assert_equal(ours.finish_layer(x, attended), expected)


def test_logits(pair: Pair) -> None:
    theirs, network, params = pair
    batch = pack([[tokens(1, LENGTH + 1)], [tokens(2, LENGTH + 1)]], LENGTH)
    assert_equal(jax.jit(network.logits)(params, batch), theirs(torch_of(batch["tokens"])).logits)


def test_loss_and_gradients(pair: Pair) -> None:
    theirs, network, params = pair
    batch = pack([[tokens(1, LENGTH + 1)], [tokens(2, LENGTH - 2)]], LENGTH)
    batch["weights"] = batch["weights"].at[:, :3].set(0)
    sums, gradients = jax.jit(jax.value_and_grad(lambda params: network.loss(params, batch).loss))(params)
    theirs.zero_grad()
    logits = theirs(torch_of(batch["tokens"])).logits.flatten(0, 1)
    losses = torch.nn.functional.cross_entropy(logits, torch_of(batch["targets"]).flatten(), reduction="none")
    expected = (losses * torch_of(batch["weights"]).flatten()).sum()
    expected.backward()
    np.testing.assert_allclose(sums, expected.item(), rtol=1e-5)
    reference_layers.assert_gradients(network, gradients, theirs)


def test_greedy_answers(pair: Pair) -> None:
    theirs, network, params = pair
    prompts = [tokens(3, 7), tokens(4, 2), tokens(5, 5)]
    ours = greedy(network, params, prompts, steps=8)
    for prompt, answer in zip(prompts, ours, strict=True):
        expected = theirs.generate(torch_of(prompt)[None], max_new_tokens=8, do_sample=False)
        assert answer.tolist() == expected[0, len(prompt) :].tolist()
