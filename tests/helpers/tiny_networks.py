"""Tiny networks and batches that the tests of models share."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from coi_jax.common.schema import Section
from coi_jax.config.model import DecoderConfig, T5Config
from coi_jax.families.decoder_common import PLAIN_ROPE
from coi_jax.families.registry import PRESETS
from coi_jax.models import Network, Params, build
from tests.helpers.configs import RUN_FIELDS

VOCABULARY = 40
Config = TypeVar("Config", bound=Section)

DECODER = DecoderConfig(
    **PRESETS["llama"] | dict(vocabulary_size=None, norm_epsilon=1e-5, rope=PLAIN_ROPE | dict(theta=500.0)),
    layers=3,
    model_dim=20,
    heads=6,
    kv_heads=3,
    head_dim=8,
    mlp_dim=28,
    attention_scale_dim=8,
    **RUN_FIELDS,
)
T5 = T5Config(
    **PRESETS["t5_v11"] | dict(vocabulary_size=None, relative_buckets=8, relative_max_distance=16),
    layers=2,
    decoder_layers=3,
    model_dim=20,
    heads=3,
    head_dim=8,
    mlp_dim=28,
    **RUN_FIELDS,
)
CONFIGS: dict[str, DecoderConfig | T5Config] = {"decoder": DECODER, "t5": T5}


def network_and_params(config: DecoderConfig | T5Config, seed: int = 0) -> tuple[Network, Params]:
    network = build(config, VOCABULARY)
    return network, network.init(jax.random.key(seed))


def change(config: Config, **fields: Any) -> Config:
    return type(config).model_validate(config.model_dump() | fields)


def pack(rows: list[list[np.ndarray]], length: int) -> dict[str, jax.Array]:
    """A decoder batch of whole examples, packed one after the other in the rows given."""
    shape = (len(rows), length)
    batch = {name: np.zeros(shape, np.int32) for name in ("tokens", "targets", "weights", "segments", "positions")}
    for row, examples in enumerate(rows):
        start = 0
        for segment, example in enumerate(examples, start=1):
            place = (row, slice(start, start + len(example) - 1))
            batch["tokens"][place], batch["targets"][place] = example[:-1], example[1:]
            batch["weights"][place], batch["segments"][place] = 1, segment
            batch["positions"][place] = np.arange(len(example) - 1)
            start += len(example) - 1
    return {name: jnp.asarray(array) for name, array in batch.items()}


def pack_pairs(rows: list[list[tuple[np.ndarray, np.ndarray]]], length: int) -> dict[str, jax.Array]:
    """A T5 batch of (inputs, targets) examples, packed one after the other in the rows given."""
    shape = (len(rows), length)
    names = ("encoder_tokens", "encoder_segments", "tokens", "targets", "weights", "segments")
    batch = {name: np.zeros(shape, np.int32) for name in names}
    for row, examples in enumerate(rows):
        starts = [0, 0]
        for segment, (inputs, targets) in enumerate(examples, start=1):
            source = (row, slice(starts[0], starts[0] + len(inputs)))
            target = (row, slice(starts[1], starts[1] + len(targets)))
            batch["encoder_tokens"][source], batch["encoder_segments"][source] = inputs, segment
            batch["tokens"][target] = [0, *targets[:-1]]
            batch["targets"][target] = targets
            batch["weights"][target], batch["segments"][target] = 1, segment
            starts = [starts[0] + len(inputs), starts[1] + len(targets)]
    return {name: jnp.asarray(array) for name, array in batch.items()}


def tokens(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(2, VOCABULARY, length).astype(np.int32)


def pad(prompts: list[np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """Right-padded prompts, with junk for padding, and their lengths."""
    lengths = [len(prompt) for prompt in prompts]
    rows = [np.pad(prompt, (0, max(lengths) - len(prompt)), constant_values=9) for prompt in prompts]
    return jnp.asarray(np.stack(rows)), jnp.asarray(lengths)


def greedy(network: Network, params: Params, prompts: list[np.ndarray], steps: int) -> np.ndarray:
    """The most likely next tokens of each prompt, one at a time."""
    prefill = jax.jit(network.prefill, static_argnames="max_new_tokens")
    step = jax.jit(network.decode_step)
    logits, cache = prefill(params, *pad(prompts), max_new_tokens=steps)
    answers = []
    for _ in range(steps):
        answers.append(jnp.argmax(logits, axis=-1))
        logits, cache = step(params, cache, answers[-1])
    return np.stack(answers, axis=1)
