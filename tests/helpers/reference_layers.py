"""The reference: transformers on the CPU, with tiny random weights."""

import os
from typing import TypeVar, overload

os.environ["USE_TF"] = "0"  # or transformers imports TensorFlow

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, T5ForConditionalGeneration
from transformers import T5Config as ReferenceT5Config

from coi_jax.config.model import DecoderConfig, T5Config
from coi_jax.models import Network, Params, build
from coi_jax.weights.hf_names import to_params
from tests.helpers import tiny_networks

torch.set_num_threads(1)  # these products are too small to share, and other tests run beside
Layer = TypeVar("Layer", bound=nnx.Module)


@overload
def pair(config: DecoderConfig) -> tuple[LlamaForCausalLM, Network, Params]: ...
@overload
def pair(config: T5Config) -> tuple[T5ForConditionalGeneration, Network, Params]: ...
def pair(config: DecoderConfig | T5Config) -> tuple[PreTrainedModel, Network, Params]:
    """The reference with random weights, and the network with the same."""
    theirs: PreTrainedModel = llama(config) if isinstance(config, DecoderConfig) else t5(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.1 * noise if "norm" in name else 0.2 * noise)
    network = build(config, tiny_networks.VOCABULARY)
    return theirs, network, convert(network, dict(theirs.named_parameters()))


def llama(config: DecoderConfig) -> LlamaForCausalLM:
    reference = LlamaConfig(
        vocab_size=tiny_networks.VOCABULARY,
        hidden_size=config.model_dim,
        intermediate_size=config.mlp_dim,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        rms_norm_eps=config.norm_epsilon,
        rope_theta=config.rope.theta,
        tie_word_embeddings=config.tied_embedding,
        attn_implementation="eager",
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: LlamaForCausalLM = LlamaForCausalLM(reference).eval()
    return model


def t5(config: T5Config) -> T5ForConditionalGeneration:
    reference = ReferenceT5Config(
        vocab_size=tiny_networks.VOCABULARY,
        d_model=config.model_dim,
        d_kv=config.head_dim,
        d_ff=config.mlp_dim,
        num_layers=config.layers,
        num_decoder_layers=config.decoder_layers,
        num_heads=config.heads,
        relative_attention_num_buckets=config.relative_buckets,
        relative_attention_max_distance=config.relative_max_distance,
        layer_norm_epsilon=config.norm_epsilon,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        pad_token_id=0,
        decoder_start_token_id=0,
        eos_token_id=None,
    )
    model: T5ForConditionalGeneration = T5ForConditionalGeneration(reference).eval()
    return model


def convert(network: Network, weights: dict[str, torch.Tensor]) -> Params:
    """Parameters (or gradients) of the reference as a tree like the network's; every one of them is used."""
    tensors = {name: numpy(weight) for name, weight in weights.items()}
    params: Params = jax.tree.map(jnp.asarray, to_params(network.config, network.abstract(), tensors))
    return params


def layer(stacked: Layer, index: int) -> Layer:
    """One layer of a stack."""
    structure, params = nnx.split(stacked)
    single: Layer = nnx.merge(structure, jax.tree.map(lambda leaf: leaf[index], params))
    return single


def numpy(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().numpy()
    return array


def torch_of(array: jax.Array | np.ndarray) -> torch.Tensor:
    """Integers come out as int64, which torch indexes with."""
    array = np.array(array)
    return torch.from_numpy(array.astype(np.int64) if array.dtype == np.int32 else array)


def assert_equal(ours: jax.Array, theirs: torch.Tensor) -> None:
    """Equal to 1e-5, in units of 1 or of the value itself."""
    np.testing.assert_allclose(np.asarray(ours), numpy(theirs), rtol=1e-5, atol=1e-5)


def random(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def gradients_of(theirs: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The gradients of all parameters, every one of which has one."""
    gradients: dict[str, torch.Tensor] = {}
    for name, weight in theirs.named_parameters():
        assert weight.grad is not None, name
        gradients[name] = weight.grad
    return gradients


def assert_gradients(network: Network, gradients: Params, theirs: PreTrainedModel) -> None:
    """Every gradient equals the reference's to 1e-5 of the largest of its array."""
    expected = convert(network, gradients_of(theirs))

    def compare(ours: jax.Array, theirs: jax.Array) -> None:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * float(jnp.abs(theirs).max()))

    jax.tree.map(compare, gradients, expected)
