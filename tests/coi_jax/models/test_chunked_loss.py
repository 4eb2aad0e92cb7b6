"""The loss in chunks against the loss of all logits at once."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from coi_jax.models import LossSums, build
from coi_jax.models.chunked_loss import chunked_loss_sums
from coi_jax.models.losses import loss_sums
from coi_jax.parallel import sharding
from tests.helpers import tiny_models
from tests.helpers.tiny_networks import CONFIGS, VOCABULARY, change, pack, pack_pairs, tokens

WIDTH = 8
Arguments = tuple[dict[str, jax.Array], jax.Array]


def unembed(head: dict[str, jax.Array], hidden: jax.Array) -> jax.Array:
    return 5 * jnp.tanh(hidden @ head["kernel"].astype(hidden.dtype) + head["bias"].astype(hidden.dtype))


def example(length: int = 15, vocabulary: int = VOCABULARY, rows: int = 4) -> tuple[Arguments, jax.Array, jax.Array]:
    random = np.random.default_rng(0)
    head = {"kernel": random.normal(size=(WIDTH, vocabulary)), "bias": random.normal(size=(1, 1, vocabulary))}
    hidden = random.normal(size=(rows, length, WIDTH))
    targets, weights = random.integers(0, vocabulary, (rows, length)), random.integers(0, 2, (rows, length))
    found = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (head, hidden))
    return found, jnp.asarray(targets, jnp.int32), jnp.asarray(weights, jnp.int32)


def loss(arguments: Arguments, targets: jax.Array, weights: jax.Array, *, chunk: int) -> tuple[jax.Array, LossSums]:
    """The mean, which scales the gradient, and the sums; all at once where `chunk` is 0."""
    head, hidden = arguments
    if chunk:
        sums = chunked_loss_sums(unembed, head, hidden, targets, weights, chunk)
    else:
        sums = loss_sums(unembed(head, hidden), targets, weights)
    return sums.loss / sums.tokens, sums


def with_gradients(chunk: int) -> jax.stages.Wrapped:
    return jax.jit(jax.value_and_grad(functools.partial(loss, chunk=chunk), has_aux=True))


def assert_same(ours: Any, expected: Any, tolerance: float = 1e-6) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, expected)


@pytest.mark.parametrize("chunk", [7, 59, 1000])
def test_chunks_change_no_result(chunk: int) -> None:
    arguments, *rest = example()
    expected = with_gradients(0)(arguments, *rest)
    assert_same(with_gradients(chunk)(arguments, *rest), expected)
    assert_same(loss(arguments, *rest, chunk=chunk), expected[0])


def place(mesh: jax.sharding.Mesh, arguments: Arguments, rest: list[jax.Array]) -> tuple[Any, ...]:
    """A head divided as parameters are, rows as batches are."""
    head, hidden = arguments
    kernel = NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    head = {name: jax.device_put(leaf, kernel if leaf.ndim == 2 else None) for name, leaf in head.items()}
    rows = sharding.batch_sharding(mesh)
    return (head, jax.device_put(hidden, rows)), *(jax.device_put(part, rows) for part in rest)


@pytest.mark.parametrize("axes", [{"fsdp": 2, "tensor": 2, "sequence": 2}, {"replica": 2, "fsdp": 2}], ids=str)
def test_chunks_of_a_mesh_change_no_result(axes: dict[str, int]) -> None:
    arguments, *rest = example(14)
    expected = with_gradients(0)(arguments, *rest)
    mesh = tiny_models.mesh(**axes)
    with jax.set_mesh(mesh):
        assert_same(with_gradients(5)(*place(mesh, arguments, rest)), expected)


def collectives(text: str) -> list[tuple[str, int]]:
    """Kind and number of elements of every collective in a compiled program's text."""
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    found = re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text)
    return [
        (
            kind,
            sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in re.findall(r"\[([\d,]*)\]", shapes)),
        )
        for shapes, kind in found
    ]


def test_no_logits_leave_their_device_and_the_head_moves_once() -> None:
    vocabulary, chunk = 512, 8
    arguments, *rest = example(16, vocabulary)
    mesh = tiny_models.mesh(fsdp=2, tensor=2, sequence=2)
    with jax.set_mesh(mesh):
        placed = place(mesh, arguments, rest)
        text = with_gradients(chunk).lower(*placed).compile().as_text()
    assert text is not None
    found = collectives(text)
    kernel = WIDTH * vocabulary // 2
    large = [item for item in found if item[1] >= chunk * vocabulary // 2]
    assert sorted(kind for kind, _ in large) == ["all-gather", "all-reduce"]  # the kernel there, its gradient back
    assert all(size <= kernel + 2 * vocabulary for _, size in large)


def test_memory_falls_with_the_chunk() -> None:
    arguments, *rest = example(64, 4096)
    temporary = {}
    for chunk in (0, 64, 16):
        compiled = with_gradients(chunk).lower(arguments, *rest).compile()
        analysis = compiled.memory_analysis()
        assert analysis is not None
        temporary[chunk] = analysis.temp_size_in_bytes
    logits = 4 * 256 * 4096
    assert temporary[0] > logits
    assert temporary[64] < temporary[0] / 2
    assert temporary[16] < logits / 2


def flops_of(function: Callable[[Any], jax.Array], argument: Any) -> float:
    """Floating-point operations of a gradient."""
    analysis = jax.jit(jax.grad(function)).lower(argument).compile().cost_analysis()
    assert analysis is not None
    return float(analysis["flops"])


def test_a_frozen_head_costs_no_gradient() -> None:
    """As with adapters: only the hidden states' gradient is asked for."""
    (head, hidden), *rest = example(64, 4096)

    def of_hidden(hidden: jax.Array) -> jax.Array:
        return loss((head, hidden), *rest, chunk=32)[0]

    def of_both(arguments: Arguments) -> jax.Array:
        return loss(arguments, *rest, chunk=32)[0]

    assert_same(jax.grad(of_hidden)(hidden), jax.grad(of_both)((head, hidden))[1])
    flops = [flops_of(of_hidden, hidden), flops_of(of_both, (head, hidden))]
    assert flops[0] < 0.8 * flops[1]


def test_bfloat16_sums_gradients_in_fp32() -> None:
    """Many chunks must lose no more than one: a running sum of bfloat16 would."""
    (head, hidden), *rest = example(256)
    arguments = (head, hidden.astype(jnp.bfloat16))
    many, one = (with_gradients(chunk)(arguments, *rest)[1][0]["kernel"] for chunk in (4, 1024))
    assert many.dtype == jnp.float32
    np.testing.assert_allclose(many, one, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize(("kind", "tied"), [("decoder", True), ("t5", False)])
def test_networks_take_their_loss_in_chunks(kind: str, tied: bool) -> None:
    config = change(CONFIGS[kind], tied_embedding=tied, layers=1, **({"decoder_layers": 1} if kind == "t5" else {}))
    batch = pack([[tokens(1, 8), tokens(2, 6)]], 15)
    if kind == "t5":
        batch = pack_pairs([[(tokens(1, 4), tokens(2, 5)), (tokens(3, 6), tokens(4, 7))]], 15)
    params = build(config, VOCABULARY).init(jax.random.key(0))

    def loss_and_gradients(chunk: int | None) -> Any:
        network = build(change(config, loss_chunk=chunk), VOCABULARY)
        return jax.jit(jax.value_and_grad(lambda params: network.loss(params, batch).loss))(params)

    assert_same(loss_and_gradients(4), loss_and_gradients(None), 1e-5)
