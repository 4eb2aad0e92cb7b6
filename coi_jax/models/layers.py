"""Building blocks of both networks: linear maps, embedding, norm, gated MLP, dropout, scanned stacks of layers.

Dimensions: B batch, L length, D inputs, E outputs, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_policies
from jaxtyping import Array, Float, Int, Key

from coi_jax.config.model import LoraConfig
from coi_jax.models import layer_stacks
from coi_jax.models.quantization import MaybeQuantized, dequantize
from coi_jax.parallel.sharding import constrain, divides

Layer = TypeVar("Layer", bound=nnx.Module)
Carry = TypeVar("Carry")


# Rematerialization policies: the activations of a layer that the backward pass finds saved, the others are recomputed;
# ordered by the memory that they take, least first. Layers name activations with `checkpoint_name`: "attention" is the
# output of an attention kernel (saving that of XLA's attention gains little: its own gradient recomputes it),
# "projections" are queries, keys, values and the output projection. The same policies elsewhere: T5X's "full" and
# "minimal" (dots), MaxText's "save_dot_except_mlp" (projections), "save_context" (attention) and
# "minimal_with_context" (dots_attention).
def _keep(*names: str) -> Callable[..., Any]:
    """Return a policy that saves activations of some names, and cuDNN's output, which its primitive identifies."""
    named = checkpoint_policies.save_only_these_names(*names)

    def keep(primitive: Any, *args: Any, **params: Any) -> Any:
        return primitive.name == "dot_product_attention_fwd_wrapper" or named(primitive, *args, **params)

    return keep


_DOTS = checkpoint_policies.dots_with_no_batch_dims_saveable
REMAT_POLICIES = {
    "full": checkpoint_policies.nothing_saveable,
    "attention": _keep("attention"),
    "projections": _keep("attention", "projections"),
    "dots": _DOTS,
    "dots_attention": checkpoint_policies.save_from_both_policies(_DOTS, _keep("attention")),
}


def parameter(
    key: Key[Array, ""],
    shape: tuple[int, ...],
    axes: tuple[str | None, ...],
    std: float,
    kind: type[nnx.Param[Any]] = nnx.Param,
) -> nnx.Param[Any]:
    """Draw an fp32 parameter from a truncated normal distribution, with its logical axes as metadata `axes`.

    Args:
      key: of the random numbers.
      shape: of the parameter.
      axes: logical name of each axis, or None.
      std: standard deviation after truncation.
      kind: class of the parameter.
    """
    unit_std = jax.random.truncated_normal(key, -2.0, 2.0, shape) / 0.87962566  # std after cutting at 2
    return kind(unit_std * std, axes=axes)


class Linear(nnx.Module):
    """A linear map; kernel and bias keep their named axes, the product is a plain matrix product.

    The kernel may be quantized, and an adapter may add to the product (`add_adapter`).
    """

    def __init__(
        self,
        inputs: dict[str, int],
        outputs: dict[str, int],
        *,
        rngs: nnx.Rngs,
        scale: float = 1.0,
        bias: bool = False,
    ) -> None:
        """Initialize kernel and bias.

        Args:
          inputs: size of each logical axis of the inputs.
          outputs: size of each logical axis of the outputs.
          rngs: keys of the initial values.
          scale: the initial standard deviation is `scale` / √(number of inputs).
          bias: whether there is a bias.
        """
        shape = (*inputs.values(), *outputs.values())
        self.inputs = len(inputs)
        self.kernel = parameter(rngs.params(), shape, (*inputs, *outputs), scale * size(inputs) ** -0.5)
        self.has_bias, self.has_adapter = bias, False
        if bias:
            self.bias = nnx.Param(jnp.zeros(tuple(outputs.values())), axes=tuple(outputs))

    def __call__(self, x: Float[Array, "*rows D"], key: Key[Array, ""] | None = None) -> Float[Array, "*rows E"]:
        """Multiply in the dtype of `x`; `key` is for the adapter's dropout."""
        product = matmul(x, _matrix(self.kernel[...], x))
        if self.has_bias:
            product = product + self.bias[...].reshape((1,) * (x.ndim - 1) + (-1,)).astype(x.dtype)
        return product + self.adapter(x, key) if self.has_adapter else product

    def add_adapter(self, lora: LoraConfig, rngs: nnx.Rngs) -> None:
        """Add an adapter to the kernel, or to each kernel of a stack."""
        self.has_adapter = True
        self.adapter = Adapter(self.kernel, self.inputs, lora, rngs=rngs)

    @property
    def stacked(self) -> bool:
        """Return whether this is a stack of linear maps, one a layer."""
        return bool(self.kernel.axes[0] == "layers")

    @property
    def sides(self) -> tuple[int, int]:
        """Return the sizes of inputs and outputs, of each map of a stack."""
        shape = self.kernel.shape[int(self.stacked) :]
        return math.prod(shape[: self.inputs]), math.prod(shape[self.inputs :])


class Adapter(nnx.Module):
    """A low-rank adapter, which adds dropout(x) A B · scaling to a linear map (Hu et al. 2021, section 4.1).

    A starts random, with the authors' standard deviation, and B at zero: nothing is added before the first step.
    """

    def __init__(self, kernel: nnx.Param[Any], inputs: int, lora: LoraConfig, *, rngs: nnx.Rngs) -> None:
        """Initialize A and B.

        Args:
          kernel: of the linear map, which may be stacked over layers.
          inputs: how many of the kernel's axes are inputs; they come after the axis of the stack.
          lora: rank, scaling and dropout.
          rngs: keys of the initial values.
        """
        self.scaling, self.rate = lora.scaling, lora.dropout
        shape, axes, stacked = kernel.shape, kernel.axes, int(kernel.axes[0] == "layers")
        end = stacked + inputs
        std = (3 * math.prod(shape[stacked:end])) ** -0.5
        self.a = parameter(rngs.params(), (*shape[:end], lora.rank), (*axes[:end], "rank"), std, nnx.LoRAParam)
        zeros = jnp.zeros((*shape[:stacked], lora.rank, *shape[end:]))
        self.b = nnx.LoRAParam(zeros, axes=(*axes[:stacked], "rank", *axes[end:]))

    def __call__(self, x: Float[Array, "*rows D"], key: Key[Array, ""] | None = None) -> Float[Array, "*rows E"]:
        """Multiply in the dtype of `x`."""
        low = matmul(dropout(x, self.rate, key), _matrix(self.a[...], x))
        return matmul(low * self.scaling, _matrix(self.b[...], low))


def _matrix(kernel: MaybeQuantized, x: Float[Array, "*rows D"]) -> Float[Array, "D E"]:
    """Return a kernel as a matrix in the dtype of `x`."""
    return dequantize(kernel, x.dtype).reshape(x.shape[-1], -1)


def matmul(x: Float[Array, "*rows D"], kernel: Float[Array, "D E"]) -> Float[Array, "*rows E"]:
    """Return `x @ kernel`, with rows and positions in one dimension: a CPU computes the kernel's gradient faster then.

    They stay two dimensions where the mesh divides positions: one dimension could not be divided without moving data.
    """
    if divides("length"):
        return x @ kernel
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def size(axes: dict[str, int]) -> int:
    """Return the product of the sizes of some axes."""
    product = 1
    for length in axes.values():
        product *= length
    return product


class Embedding(nnx.Module):
    """Token embeddings, which are the output head too where the two are tied."""

    def __init__(self, vocabulary_size: int, model_dim: int, *, std: float, rngs: nnx.Rngs) -> None:
        self.table = parameter(rngs.params(), (vocabulary_size, model_dim), ("vocabulary", "embed"), std)

    def __call__(self, tokens: Int[Array, "*rows"], dtype: jnp.dtype) -> Float[Array, "*rows D"]:
        """Look the tokens up, in a table that is gathered along fsdp first, as kernels are."""
        return constrain(self.table[...].astype(dtype), ("vocabulary", "embed"))[tokens]

    def attend(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """Return logits: the product of every position with every embedding."""
        return matmul(x, self.table[...].astype(x.dtype).T)


class RMSNorm(nnx.Module):
    """Root-mean-square norm with a scale and no bias, in fp32 (Zhang and Sennrich 2019, equation 4).

    The parameter is the scale minus `offset`: checkpoints of Gemma hold scale - 1.
    """

    def __init__(self, model_dim: int, epsilon: float, offset: int = 0) -> None:
        self.epsilon, self.offset = epsilon, offset
        self.scale = nnx.Param(jnp.full((model_dim,), 1.0 - offset, jnp.float32), axes=(None,))

    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        """Divide by the root mean square of the last axis, then scale."""
        exact = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(exact), axis=-1, keepdims=True) + self.epsilon)
        scale = jnp.expand_dims(self.offset + self.scale[...], tuple(range(x.ndim - 1)))
        return (exact * inverse * scale).astype(x.dtype)


class MLP(nnx.Module):
    """activation(x W_gate) ⊙ (x W_up), then W_down: SwiGLU or gated GELU (Shazeer 2020, section 2).

    Without a gate, activation(x W_up), then W_down: the MLP of T5's first version.
    """

    def __init__(
        self, model_dim: int, mlp_dim: int, activation: Callable[[Array], Array], *, gated: bool = True, rngs: nnx.Rngs
    ) -> None:
        # Recomputing it is cheap, and saves three activations of mlp_dim channels.
        self.inner = jax.checkpoint(lambda up, gate: activation(up) if gate is None else activation(gate) * up)
        self.has_gate = gated
        if gated:
            self.gate = Linear({"embed": model_dim}, {"mlp": mlp_dim}, rngs=rngs)
        self.up = Linear({"embed": model_dim}, {"mlp": mlp_dim}, rngs=rngs)
        self.down = Linear({"mlp": mlp_dim}, {"embed": model_dim}, rngs=rngs)

    def __call__(
        self, x: Float[Array, "*rows D"], rate: float = 0.0, key: Key[Array, ""] | None = None
    ) -> Float[Array, "*rows D"]:
        """Apply the block, with dropout on its inner activations; the caller adds the residual."""
        keys = split_key(key, 4)
        gate = self.gate(x, keys[0]) if self.has_gate else None
        inner = self.inner(self.up(x, keys[1]), gate)
        return self.down(dropout(inner, rate, keys[2]), keys[3])


def softcap(x: Float[Array, "*shape"], cap: float | None) -> Float[Array, "*shape"]:
    """Return cap · tanh(x / cap) (Gemma team 2024, section 2), or x where `cap` is None."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def constrain_residual(x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
    """Constrain the residual stream between layers to its sharding on the mesh."""
    return constrain(x, ("batch", "length", "embed"))


def dropout(x: Float[Array, "*shape"], rate: float, key: Key[Array, ""] | None) -> Float[Array, "*shape"]:
    """Zero random elements and scale the rest, so that the expected value stays the same.

    Args:
      x: an array of any shape.
      rate: the probability that an element is zeroed.
      key: of the random choice; None: `x` is returned as it is.
    """
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))


def split_key(key: Key[Array, ""] | None, count: int) -> list[Key[Array, ""] | None]:
    """Split a key into `count` keys; Nones where `key` is None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def layer_keys(key: Key[Array, ""] | None, layers: int) -> Key[Array, "layers"] | None:
    """Return a key for each layer, as an array to scan over; None where `key` is None."""
    return None if key is None else jax.random.split(key, layers)


def stack_layers(make: Callable[[nnx.Rngs], Layer], layers: int, *, rngs: nnx.Rngs) -> Layer:
    """Return one module with the parameters of several modules, stacked along a first axis "layers".

    Args:
      make: returns one module, with random parameters.
      layers: how many modules are stacked.
      rngs: of the random parameters.
    """
    keys = jax.random.split(rngs.params(), layers)
    stacked = nnx.vmap(lambda key: make(nnx.Rngs(params=key)))(keys)
    for _, node in nnx.iter_graph(stacked):
        if isinstance(node, nnx.Param):
            node.set_metadata(axes=("layers", *node.axes))
    return stacked


def scan_layers(
    body: Callable[[Any, Carry, Any], tuple[Carry, Any]],
    layers: nnx.Module,
    carry: Carry,
    inputs: Any = None,
    *,
    remat: str,
    unroll: int | None,
) -> tuple[Carry, Any]:
    """Run `body(layer, carry, input) -> (carry, output)` over the layers of a stack.

    Args:
      body: computes one layer.
      layers: the module that `stack_layers` returned.
      carry: the value passed from layer to layer.
      inputs: a tree whose leaves have one entry for each layer on their first axis.
      remat: "none", or a policy of REMAT_POLICIES for the activations that are saved for the backward pass.
      unroll: layers in one iteration; None: as many as are fast on the platform.
    """
    structure, params = nnx.split(layers)
    unroll = unroll or layer_stacks.default_unroll(len(jax.tree.leaves(params)[0]))

    def step(carry: Carry, scanned: tuple[Any, Any]) -> tuple[Carry, Any]:
        return body(nnx.merge(structure, scanned[0]), carry, scanned[1])

    def rematerialized(step: Callable[..., Any]) -> Callable[..., Any]:
        if remat == "none":
            return step
        # In a loop of one layer an iteration there are no common subexpressions, so the barrier only costs.
        return jax.checkpoint(step, policy=REMAT_POLICIES[remat], prevent_cse=unroll > 1)

    return layer_stacks.scan(step, carry, (params, inputs), unroll=unroll, remat=rematerialized)
