"""The contract of every network, and the façade that keeps NNX out of the rest of the project.

Parameters are a plain nested dict of fp32 arrays: what optax, Orbax and `jax.jit` see. `Network` itself is static and
hashable, so jitted functions close over it.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from coi_jax.errors import UserError
from coi_jax.model_config import DecoderConfig, T5Config
from coi_jax.models.caches import Cache
from coi_jax.models.decoder import Decoder
from coi_jax.models.losses import LossSums, loss_sums
from coi_jax.models.t5 import T5
from coi_jax.sharding import constrain

Params = dict[str, Any]
Batch = Mapping[str, Array]


@dataclass(frozen=True)
class Network:
    """A decoder or a T5, by the type of its config."""

    config: DecoderConfig | T5Config
    vocabulary_size: int

    def init(self, key: Key[Array, ""]) -> Params:
        """Fresh fp32 parameters, a pure function of `key`."""
        return nnx.to_pure_dict(nnx.state(_make(self, key)))

    def abstract(self) -> Params:
        """The parameters' shapes and dtypes (`jax.ShapeDtypeStruct` leaves), without computing any."""
        return nnx.to_pure_dict(_split(self)[1])

    def logical_axes(self) -> Params:
        """For every parameter a tuple with the logical name of each of its axes, None where it has none."""
        flat = {path: variable.axes for path, variable in nnx.to_flat_state(_split(self)[1])}
        return nnx.traversals.unflatten_mapping(flat)

    def logits(self, params: Params, batch: Batch) -> Float[Array, "rows length vocabulary"]:
        """Logits at every target position of a packed batch, in the compute dtype, without dropout."""
        module = self.module(params)
        return _sharded(module.unembed(module.hidden(batch)))

    def loss(self, params: Params, batch: Batch, *, key: Key[Array, ""] | None = None) -> LossSums:
        """Sums over the target tokens of a packed batch; dropout only with a `key`."""
        module = self.module(params)
        logits = _sharded(module.unembed(module.hidden(batch, key)))
        return loss_sums(logits, batch["targets"], batch["weights"])

    def prefill(
        self,
        params: Params,
        prompts: Int[Array, "batch length"],
        lengths: Int[Array, "batch"],
        *,
        max_new_tokens: int,
    ) -> tuple[Float[Array, "batch vocabulary"], Cache]:
        """Read right-padded prompts; the logits of each row's first new token, and the cache to go on with.

        Args:
            params: the parameters.
            prompts: token ids; what lies after a row's length is ignored.
            lengths: tokens of each prompt, at least 1.
            max_new_tokens: how many tokens will be generated at most; sets the size of the cache.
        """
        return self.module(params).prefill(prompts, lengths, max_new_tokens)

    def decode_step(
        self, params: Params, cache: Cache, tokens: Int[Array, "batch"]
    ) -> tuple[Float[Array, "batch vocabulary"], Cache]:
        """Append one token to each row; the logits of the next one, and the grown cache."""
        return self.module(params).decode_step(cache, tokens)

    def module(self, params: Params) -> Decoder | T5:
        """The NNX module around these parameters, for those who need a part of the network."""
        return nnx.merge(_split(self)[0], params)


def build(config: DecoderConfig | T5Config, vocabulary_size: int) -> Network:
    """The network of a model config for token ids below `vocabulary_size`.

    Raises:
      UserError: the config's embedding has fewer rows.
    """
    if config.vocabulary_size and config.vocabulary_size < vocabulary_size:
        mend = f"the vocabulary has {vocabulary_size} ids; use the checkpoint's own tokenizer, or a larger embedding"
        raise UserError("config.model.vocabulary_size", config.vocabulary_size, mend)
    return Network(config, config.vocabulary_size or vocabulary_size)


def _sharded(logits: Float[Array, "rows length vocabulary"]) -> Float[Array, "rows length vocabulary"]:
    return constrain(logits, ("batch", "length", "vocabulary"))


def _make(network: Network, key: Key[Array, ""]) -> Decoder | T5:
    config, rngs = network.config, nnx.Rngs(params=key)
    if isinstance(config, T5Config):
        return T5(config, network.vocabulary_size, rngs=rngs)
    return Decoder(config, network.vocabulary_size, rngs=rngs)


@functools.cache
def _split(network: Network) -> tuple[Any, nnx.State]:
    """The module's structure and its abstract state, made once for each network."""
    return nnx.split(nnx.eval_shape(lambda: _make(network, jax.random.key(0))))
