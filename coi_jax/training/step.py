"""The optimizer step as a pure function, and its compilation for a mesh.

The loss is the sum over target tokens divided by their number in the whole global batch, whatever the number of
devices, hosts and microbatches, and however examples are packed. Where targets have weights (`train.loss_on`), it is
the weighted sum divided by the sum of the weights.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, Real

from coi_jax.models import LossSums, Network, Params
from coi_jax.models.flops import Work, count_work
from coi_jax.parallel import sharding
from coi_jax.parallel.sharding import AnyMesh
from coi_jax.runs.train_state import TrainState
from coi_jax.training.optimizer import Schedule

Batch = Mapping[str, Real[Array, "rows _"]]


class StepMetrics(NamedTuple):
    """The metrics of a step over the global batch; scalars on the device."""

    loss: Float[Array, ""]  # nats per target token, the mean by their weights
    accuracy: Float[Array, ""]  # share of target tokens predicted, by their weights
    gradient_norm: Float[Array, ""]  # before clipping
    parameter_norm: Float[Array, ""]  # before the update
    learning_rate: Float[Array, ""]
    target_tokens: Float[Array, ""]  # the sum of their weights
    is_finite: Bool[Array, ""]  # the loss, the gradient's norm and the parameters after the update
    work: Work


StepFunction = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]


def initial_state(
    params: Params, frozen: Params | None, optimizer: optax.GradientTransformation, shardings: TrainState
) -> TrainState:
    """Return the state before the first step.

    Args:
      params: the parameters that are trained, laid out as `shardings` say.
      frozen: the frozen base of adapters, or None.
      optimizer: its state is created here, on the devices that will hold it.
      shardings: those of `state_shardings`.
    """
    opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(params)
    return TrainState(params, opt_state, jax.device_put(np.zeros((), np.int32), shardings.step), frozen)


def state_shardings(network: Network, optimizer: optax.GradientTransformation, mesh: AnyMesh) -> TrainState:
    """Return the sharding of every leaf of the state.

    Args:
      network: the network that is trained.
      optimizer: its state is sharded as the parameters are.
      mesh: the mesh to lay the state out on.

    Raises:
      UserError: the mesh does not fit the network.
    """
    abstract = abstract_state(network, optimizer)
    params, frozen = network.split(sharding.shardings(network.logical_axes(), network.abstract(), mesh))
    pairs = sharding.zip_shapes(abstract.params, params)
    opt_state = sharding.like_parameters(abstract.opt_state, pairs, mesh)
    return TrainState(params, opt_state, sharding.replicated(mesh), frozen)


def abstract_state(network: Network, optimizer: optax.GradientTransformation) -> TrainState:
    """Return the shapes and dtypes of the state, without computing it."""
    params, frozen = network.split(network.abstract())
    return TrainState(params, jax.eval_shape(optimizer.init, params), jax.ShapeDtypeStruct((), jnp.int32), frozen)


def make_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    *,
    microbatches: int,
    seed: int,
    target_capacity: int | None = None,
    keep_finite: bool = False,
) -> StepFunction:
    """Return the step as a pure function of state and global batch.

    Args:
      network: its `loss` returns sums over target tokens.
      optimizer: the one of `make_optimizer`.
      schedule: the learning rate of the same run, for the metrics.
      microbatches: the number of parts that the rows are processed in; must divide them.
      seed: the seed of dropout.
      target_capacity: the most targets of one device in a microbatch; None: any number.
      keep_finite: whether a step that is not finite leaves parameters and optimizer as they were.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step) if network.has_dropout else None
        parts = state.params, state.frozen, batch, microbatches, key
        sums, gradient = accumulate(network, *parts, target_capacity=target_capacity)
        tokens = jnp.where(sums.tokens > 0, sums.tokens, 1.0)
        gradient = jax.tree.map(lambda leaf: leaf / tokens, gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        gradient_norm = optax.global_norm(gradient)
        is_finite = all_finite((sums.loss, gradient_norm, params))
        if keep_finite:
            before = state.params, state.opt_state
            params, opt_state = jax.tree.map(
                lambda new, old: jnp.where(is_finite, new, old), (params, opt_state), before
            )
        metrics = StepMetrics(
            loss=sums.loss / tokens,
            accuracy=sums.correct / tokens,
            gradient_norm=gradient_norm,
            parameter_norm=optax.global_norm(state.params),
            learning_rate=schedule(state.step),
            target_tokens=sums.tokens,
            is_finite=is_finite,
            work=count_work(batch, network.config),
        )
        return TrainState(params, opt_state, state.step + 1, state.frozen), metrics

    return step


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Return whether all numbers of a tree of arrays are finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def accumulate(
    network: Network,
    params: Params,
    frozen: Params | None,
    batch: Batch,
    microbatches: int,
    key: Key[Array, ""] | None,
    *,
    target_capacity: int | None = None,
) -> tuple[LossSums, Params]:
    """Return loss sums, and the gradient of their loss for `params` alone, summed over microbatches.

    Args:
      network: its `loss` returns sums over target tokens.
      params: the parameters that are trained.
      frozen: the frozen base of adapters, or None.
      batch: arrays [rows, length] of the global batch.
      microbatches: the number of parts that the rows are processed in.
      key: the key of dropout; None where there is none.
      target_capacity: the most targets of one device in a microbatch; None: any number.
    """

    def one(batch: Batch, key: Key[Array, ""] | None) -> tuple[LossSums, Params]:
        def loss(params: Params) -> tuple[Float[Array, ""], LossSums]:
            sums = network.loss(network.join(params, frozen), batch, target_capacity=target_capacity, key=key)
            return sums.loss, sums

        (_, sums), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return sums, gradient

    def add(total: tuple[LossSums, Params], part: tuple[Batch, Int[Array, ""]]) -> tuple[Any, None]:
        rows, index = part
        more = one(rows, None if key is None else jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, more), None

    if microbatches == 1:
        return one(batch, key)
    zeros = LossSums(*(jnp.zeros(()) for _ in LossSums._fields)), jax.tree.map(jnp.zeros_like, params)
    total, _ = jax.lax.scan(add, zeros, (split_microbatches(batch, microbatches), jnp.arange(microbatches)))
    return total


def split_microbatches(batch: Batch, parts: int) -> dict[str, Real[Array, "parts fewer _"]]:
    """Reshape [rows, length] to [parts, rows / parts, length]; part i holds every row whose index is i modulo `parts`.

    Neighboring rows lie on one device, so taking every n-th row moves none between devices.
    """

    def split(array: Real[Array, "rows length"]) -> Real[Array, "parts fewer length"]:
        rows, length = array.shape
        parted = array.reshape(rows // parts, parts, length).swapaxes(0, 1)
        return sharding.constrain(parted, (None, "batch", "length"))

    return {name: split(array) for name, array in batch.items()}


def compile_step(step: StepFunction, shardings: TrainState, mesh: Mesh) -> StepFunction:
    """Return the step compiled for a mesh; the state is donated. Call it inside `jax.set_mesh(mesh)`.

    Args:
      step: the one of `make_step`.
      shardings: the ones of `state_shardings`.
      mesh: the mesh of the shardings.
    """
    everywhere = sharding.replicated(mesh)
    return jax.jit(
        step,
        in_shardings=(shardings, sharding.batch_sharding(mesh)),
        out_shardings=(shardings, everywhere),
        donate_argnums=0,
    )
