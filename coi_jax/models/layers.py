"""Building blocks that both networks share: linear maps, embedding, norm, gated MLP, dropout, scanned stacks.

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
from coi_jax.models.quantization import Held, dense
from coi_jax.parallel.sharding import constrain, divides

Layer = TypeVar("Layer", bound=nnx.Module)
Carry = TypeVar("Carry")


# What a layer keeps for the backward pass, which computes the rest again; by the memory that they take, least first.
# Layers give names to what may be kept (`checkpoint_name`): "attention" is what a kernel gives (with XLA's attention,
# which must be computed again for its own gradient, keeping it gains little), "projections" are queries, keys, values
# and what joins the residual after attention. The names of others for the same: full and dots (T5X, where dots is
# "minimal"), attention ("save_context"), projections ("save_dot_except_mlp"), dots_attention ("minimal_with_context").
def _keep(*names: str) -> Callable[..., Any]:
    """Keeps what has one of some names; cuDNN's output, with "attention", is known by its primitive alone."""
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
    """An fp32 parameter drawn from a truncated normal, carrying its logical axes as metadata `axes`."""
    unit_std = jax.random.truncated_normal(key, -2.0, 2.0, shape) / 0.87962566  # std after cutting at 2
    return kind(unit_std * std, axes=axes)


class Linear(nnx.Module):
    """A linear map; kernel and bias keep their named axes, the product is a plain matrix product.

    The kernel may be held quantised, and an adapter may add to the product (`adapt`).
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
        """`inputs` and `outputs` map logical axis to size; initial std is `scale` / sqrt(number of inputs)."""
        shape = (*inputs.values(), *outputs.values())
        self.inputs = len(inputs)
        self.kernel = parameter(rngs.params(), shape, (*inputs, *outputs), scale * size(inputs) ** -0.5)
        self.has_bias, self.has_adapter = bias, False
        if bias:
            self.bias = nnx.Param(jnp.zeros(tuple(outputs.values())), axes=tuple(outputs))

    def __call__(self, x: Float[Array, "*rows D"], key: Key[Array, ""] | None = None) -> Float[Array, "*rows E"]:
        """Multiply in the dtype of `x`; `key` is of the adapter's dropout."""
        product = matmul(x, _matrix(self.kernel[...], x))
        if self.has_bias:
            product = product + self.bias[...].reshape((1,) * (x.ndim - 1) + (-1,)).astype(x.dtype)
        return product + self.adapter(x, key) if self.has_adapter else product

    def adapt(self, lora: LoraConfig, rngs: nnx.Rngs) -> None:
        """Puts an adapter beside the kernel, or beside each kernel of a stack."""
        self.has_adapter = True
        self.adapter = Adapter(self.kernel, self.inputs, lora, rngs=rngs)

    @property
    def stacked(self) -> bool:
        """Whether this is a stack of linear maps, one a layer."""
        return self.kernel.axes[0] == "layers"


class Adapter(nnx.Module):
    """What low-rank adaptation adds to a linear map: dropout(x) A B · scaling (Hu et al. 2021, section 4.1).

    A starts random, as wide as in the authors' code, and B at zero, so that nothing is added before the first step.
    """

    def __init__(self, kernel: nnx.Param[Any], inputs: int, lora: LoraConfig, *, rngs: nnx.Rngs) -> None:
        """`inputs` of the kernel's axes are inputs, after the axis of the stack, if there is one."""
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


def _matrix(kernel: Held, x: Float[Array, "*rows D"]) -> Float[Array, "D E"]:
    """A kernel as a matrix that `x` can be multiplied with."""
    return dense(kernel, x.dtype).reshape(x.shape[-1], -1)


def matmul(x: Float[Array, "*rows D"], kernel: Float[Array, "D E"]) -> Float[Array, "*rows E"]:
    """`x @ kernel`, with all rows in one dimension where they can be: a CPU then has the kernel's gradient sooner.

    Where the mesh divides both rows and positions it cannot divide their product without moving them.
    """
    if divides("length"):
        return x @ kernel
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def size(axes: dict[str, int]) -> int:
    """The product of the sizes of some axes."""
    product = 1
    for length in axes.values():
        product *= length
    return product


class Embedding(nnx.Module):
    """Token embeddings, usable as the output head too where the two are tied."""

    def __init__(self, vocabulary_size: int, model_dim: int, *, std: float, rngs: nnx.Rngs) -> None:
        self.table = parameter(rngs.params(), (vocabulary_size, model_dim), ("vocabulary", "embed"), std)

    def __call__(self, tokens: Int[Array, "*rows"], dtype: jnp.dtype) -> Float[Array, "*rows D"]:
        """Look the tokens up; every device holds whole embeddings then, as it does whole kernels."""
        return constrain(self.table[...].astype(dtype), ("vocabulary", "embed"))[tokens]

    def attend(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """Logits: the product of every position with every embedding."""
        return matmul(x, self.table[...].astype(x.dtype).T)


class RMSNorm(nnx.Module):
    """Root-mean-square norm with a scale and no bias, in fp32 (Zhang and Sennrich 2019, equation 4).

    The parameter is the scale less `offset`: checkpoints of Gemma hold what is to be added to 1.
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
        # Cheap to compute again, and three arrays as wide as the MLP need not be kept then.
        self.inner = jax.checkpoint(lambda up, gate: activation(up) if gate is None else activation(gate) * up)
        self.has_gate = gated
        if gated:
            self.gate = Linear({"embed": model_dim}, {"mlp": mlp_dim}, rngs=rngs)
        self.up = Linear({"embed": model_dim}, {"mlp": mlp_dim}, rngs=rngs)
        self.down = Linear({"mlp": mlp_dim}, {"embed": model_dim}, rngs=rngs)

    def __call__(
        self, x: Float[Array, "*rows D"], rate: float = 0.0, key: Key[Array, ""] | None = None
    ) -> Float[Array, "*rows D"]:
        """Apply the block, with dropout on its inner activations; the residual is the caller's."""
        keys = split_key(key, 4)
        gate = self.gate(x, keys[0]) if self.has_gate else None
        inner = self.inner(self.up(x, keys[1]), gate)
        return self.down(dropout(inner, rate, keys[2]), keys[3])


def softcap(x: Float[Array, "*shape"], cap: float) -> Float[Array, "*shape"]:
    """Bend x to cap · tanh(x / cap), which stays below the cap (Gemma team 2024, section 2); 0 caps nothing."""
    return cap * jnp.tanh(x / cap) if cap else x


def residual(x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
    """The stream between layers, laid out on the mesh."""
    return constrain(x, ("batch", "length", "embed"))


def dropout(x: Float[Array, "*shape"], rate: float, key: Key[Array, ""] | None) -> Float[Array, "*shape"]:
    """Zero elements with probability `rate` and scale the rest; the identity where `key` is None."""
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))


def split_key(key: Key[Array, ""] | None, count: int) -> list[Key[Array, ""] | None]:
    """`count` keys; Nones where `key` is None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def layer_keys(key: Key[Array, ""] | None, layers: int) -> Key[Array, "layers"] | None:
    """A key for each layer, as an array to scan; None where `key` is None."""
    return None if key is None else jax.random.split(key, layers)


def stack(make: Callable[[nnx.Rngs], Layer], layers: int, *, rngs: nnx.Rngs) -> Layer:
    """One module that holds the parameters of `layers` modules, stacked along a first axis 'layers'."""
    keys = jax.random.split(rngs.params(), layers)
    stacked = nnx.vmap(lambda key: make(nnx.Rngs(params=key)))(keys)
    for _, node in nnx.iter_graph(stacked):
        if isinstance(node, nnx.Param):
            node.set_metadata(axes=("layers", *node.axes))
    return stacked


def scan(
    body: Callable[[Any, Carry, Any], tuple[Carry, Any]],
    layers: nnx.Module,
    carry: Carry,
    inputs: Any = None,
    *,
    remat: str,
    unroll: int,
) -> tuple[Carry, Any]:
    """Run `body(layer, carry, input) -> (carry, output)` over the layers of a stack.

    Args:
        body: one layer's work.
        layers: the module of `stack`.
        carry: what flows from layer to layer.
        inputs: a tree whose leaves have one entry a layer on their first axis.
        remat: 'none', or the name of a policy of REMAT_POLICIES for what the backward pass may keep.
        unroll: layers in one iteration; with all of them in one there is no loop, which a CPU runs faster.
    """
    structure, params = nnx.split(layers)

    def step(carry: Carry, scanned: tuple[Any, Any]) -> tuple[Carry, Any]:
        return body(nnx.merge(structure, scanned[0]), carry, scanned[1])

    def rematerialized(step: Callable[..., Any]) -> Callable[..., Any]:
        if remat == "none":
            return step
        # Inside a loop of one layer an iteration nothing can be shared, so the barrier against it only costs.
        return jax.checkpoint(step, policy=REMAT_POLICIES[remat], prevent_cse=unroll > 1)

    return layer_stacks.scan(step, carry, (params, inputs), unroll=unroll, remat=rematerialized)
