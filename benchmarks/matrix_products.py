"""The matrix products of a training step alone: how many operations they are, and how fast XLA does them here.

How far a step is above the time of its products is what everything else in it costs.
"""

import math
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import sides
from coi_jax.config.model import DecoderConfig
from coi_jax.config.run import RunConfig, validate
from coi_jax.models import Network, build, flops

REPEATS = 3  # of each product, of which the fastest counts
Shape = tuple[int, int, int]  # of the product x @ w: rows of x, inputs, outputs

_PRODUCTS = (  # of x, w and the gradient of x @ w
    jax.jit(lambda x, w, gradient: x @ w),
    jax.jit(lambda x, w, gradient: gradient @ w.T),
    jax.jit(lambda x, w, gradient: x.T @ gradient),
)


class Products:
    """The matrix products of the steps of a comparison, beside which its contestants' times are set."""

    def __init__(self, settings: dict[str, Any]) -> None:
        config = validate(settings["config"])
        arrays = dict(np.load(settings["batches"]))
        batches = [{name: array[step] for name, array in arrays.items()} for step in range(len(arrays["tokens"]))]
        targets = max(int(batch["weights"].sum()) for batch in batches)
        network = build(config.model, config.model.vocabulary_size or 0, config.lora)
        self._shapes = shapes(network, arrays["tokens"][0].size, targets)
        self._operations = operations(config, batches)
        self._dtype = config.model.dtype
        self._rates: list[float] = []

    def measure(self) -> None:
        """Measure how fast they are now."""
        self._rates.append(rate(self._shapes, self._dtype))

    def report(self, taken: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
        """Return their operations and seconds, and how many times as long the timed steps of each contestant took.

        Args:
          taken: the steps of each contestant, of which the first is not timed.
        """
        typical = statistics.median(self._rates)
        alone = [work / typical for work in self._operations[1:]]
        seconds = {name: [step["seconds"] for step in steps[1:]] for name, steps in taken.items()}
        return {
            "products": {
                "gflop_per_second": sides.spread([each / 1e9 for each in self._rates], 1),
                "gflop": sides.spread([each / 1e9 for each in self._operations[1:]], 1),
                "seconds": sides.spread(alone),
            },
            "seconds_over_products": {
                name: sides.spread([time / least for time, least in zip(times, alone, strict=True)])
                for name, times in seconds.items()
            },
        }


def operations(config: RunConfig, batches: Sequence[Mapping[str, np.ndarray]]) -> list[float]:
    """Return the floating-point operations of the products of each batch, without padding and masked pairs."""
    network = build(config.model, config.model.vocabulary_size or 0, config.lora)
    count = jax.jit(lambda batch: flops.count_work(batch, config.model))
    return [flops.model_flops(count(batch), flops.costs(network)) for batch in batches]


def shapes(network: Network, positions: int, targets: int) -> Counter[Shape]:
    """Return how often a forward pass multiplies each shape of matrix.

    Args:
      network: a decoder; its adapters are left out.
      positions: of a batch.
      targets: positions that have logits.
    """
    found: Counter[Shape] = Counter()
    for name, linear in network.linear_maps.items():
        sizes, stack = linear.kernel.shape, int(linear.stacked)
        parts = (sizes[:stack], sizes[stack : stack + linear.inputs], sizes[stack + linear.inputs :])
        layers, inputs, outputs = map(math.prod, parts)
        found[targets if name == "head" else positions, inputs, outputs] += layers
    if isinstance(network.config, DecoderConfig) and network.config.tied_embedding:
        found[targets, network.config.model_dim, network.vocabulary_size] += 1
    return found


def rate(counts: Mapping[Shape, int], dtype: str) -> float:
    """Measure the operations per second of all products of these shapes, forward and backward.

    Args:
      counts: see `shapes`.
      dtype: of the matrices.
    """
    seconds = sum(count * _seconds(shape, dtype) for shape, count in counts.items())
    work = sum(count * 2 * math.prod(shape) * len(_PRODUCTS) for shape, count in counts.items())
    return work / seconds


def _seconds(shape: Shape, dtype: str) -> float:
    """Return the seconds of the products with one matrix: forward, and for the gradients of its input and its own."""
    rows, inputs, outputs = shape
    operands = [jnp.ones(size, dtype) for size in ((rows, inputs), (inputs, outputs), (rows, outputs))]
    total = 0.0
    for product in _PRODUCTS:
        product(*operands).block_until_ready()  # compiles
        total += min(_time(product, operands) for _ in range(REPEATS))
    return total


def _time(product: "jax.stages.Wrapped", operands: list[jax.Array]) -> float:
    began = time.perf_counter()
    product(*operands).block_until_ready()
    return time.perf_counter() - began
