"""This project's side of the generation benchmarks: the generator that evaluation uses."""

import time
from typing import Any

import numpy as np

from benchmarks import sides
from benchmarks.generation_speed import NO_TOKEN
from coi_jax.config.model import model_section
from coi_jax.inference.decoding import SingleStrategy
from coi_jax.inference.generator import Generator
from coi_jax.inference.rows import Prompt
from coi_jax.models import build
from coi_jax.parallel.processes import start_jax
from coi_jax.weights.initial_weights import open_weights
from coi_jax.weights.mesh_loading import load_params


class Ours:
    """A network with given weights, and prompts."""

    def __init__(self, settings: dict[str, Any]) -> None:
        start_jax()
        config = model_section(settings["model"]).model_validate(settings["model"])
        network = build(config, config.vocabulary_size or 0)
        params = load_params(open_weights(settings["weights"], network), network, None)
        ends: list[int] = settings["ends"] or [NO_TOKEN]
        strategy = SingleStrategy(network, ends[0], settings["max_new_tokens"], other_eos_ids=tuple(ends[1:]))
        self._generator = Generator(params, strategy, batch=1, seed=0)
        prompts = settings["prompts"]
        self._prompts = [Prompt(str(index), np.array(ids, np.int32)) for index, ids in enumerate(prompts)]

    def generate(self, batch: int) -> dict[str, Any]:
        """Answer all prompts, `batch` together at most; the seconds it took, and the tokens of each."""
        self._generator.batch = batch
        began = time.perf_counter()
        answers = list(self._generator.run(self._prompts))
        seconds = time.perf_counter() - began
        tokens = [answer.tokens for answer in sorted(answers, key=lambda answer: answer.index)]
        return {"seconds": seconds, "tokens": tokens}


if __name__ == "__main__":
    sides.serve(Ours)
