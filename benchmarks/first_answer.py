"""Measures generation from its start: seconds until the first answer and until all, compilation included, and again.

  python -m benchmarks.first_answer --weights DIR --prompts 24 --tokens 64 --slots 8

The folder is of published weights, as `coi_jax.convert` writes it. Prompts are random ids, of lengths evenly spread
from --shortest to --longest; every answer has --tokens tokens. JAX_COMPILATION_CACHE_DIR, where it is set, decides
whether compilation is cold. Prints JSON with wall seconds, CPU seconds of the process, and compiled programs.
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import machine
from coi_jax.common import cli
from coi_jax.common.storage import Folder
from coi_jax.config.published_run import imported_config
from coi_jax.inference.decoding import SingleStrategy
from coi_jax.inference.generator import Generator
from coi_jax.inference.rows import Prompt
from coi_jax.models import build
from coi_jax.parallel.processes import start_jax
from coi_jax.weights.initial_weights import open_weights
from coi_jax.weights.mesh_loading import load_params

NO_TOKEN = -1  # in the place of an end, where no token is one


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = cli.parser(__doc__)
    parser.add_argument("--weights", required=True, help="folder of published weights")
    parser.add_argument("--prompts", type=cli.integer, default=24, help="number of prompts")
    parser.add_argument("--tokens", type=cli.integer, default=64, help="new tokens of each answer")
    parser.add_argument("--slots", type=cli.integer, default=8, help="prompts that are answered at the same time")
    parser.add_argument("--shortest", type=cli.integer, default=20, help="tokens of the shortest prompt")
    parser.add_argument("--longest", type=cli.integer, default=250, help="tokens of the longest prompt")
    parser.add_argument("--repeats", type=cli.integer, default=2, help="runs after the first, with compiled programs")
    arguments = parser.parse_args(argv)
    print(json.dumps({"benchmark": "first_answer"} | machine.describe() | measure(arguments), indent=2))
    return 0


def measure(arguments: Any) -> dict[str, Any]:
    """Return the seconds of the first run, and of those after it."""
    start_jax()
    config = imported_config(Folder(arguments.weights, "--weights"), "configs/release.py", {}).model
    network = build(config, config.vocabulary_size or 0)
    params = load_params(open_weights(arguments.weights, network), network, None)
    lengths = np.linspace(arguments.shortest, arguments.longest, arguments.prompts).astype(int)
    draws = np.random.default_rng(0)
    prompts = [Prompt(str(n), draws.integers(5, network.vocabulary_size, length)) for n, length in enumerate(lengths)]
    began = time.perf_counter(), time.process_time()
    generator = Generator(params, SingleStrategy(network, NO_TOKEN, arguments.tokens), arguments.slots, 0)
    first = _run(generator, prompts, began)
    later = [_run(generator, prompts, (time.perf_counter(), time.process_time())) for _ in range(arguments.repeats)]
    return {"settings": vars(arguments), "first": first, "later": later, "shapes": len(generator.shapes)}


def _run(generator: Generator, prompts: Sequence[Prompt], began: tuple[float, float]) -> dict[str, Any]:
    """Return wall and CPU seconds until the first answer and until all."""
    at_first = None
    tokens = 0
    for answer in generator.run(prompts):
        at_first = at_first or _since(began)
        tokens += len(answer.tokens)
    return {"first_answer": at_first, "all": _since(began), "tokens": tokens}


def _since(began: tuple[float, float]) -> dict[str, float]:
    wall, cpu = began
    return {"seconds": round(time.perf_counter() - wall, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}


if __name__ == "__main__":
    sys.exit(cli.run(main))
