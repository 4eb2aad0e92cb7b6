"""This project's side of the generation benchmarks: the generator that evaluation uses."""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import sides, weights
from coi_jax.decoding import SingleStrategy
from coi_jax.generation import Generator, Prompt
from coi_jax.model_config import model_section
from coi_jax.models import build


class Ours:
    """A network with given weights, and prompts."""

    def __init__(self, settings: dict[str, Any]) -> None:
        config = model_section(settings["model"]).model_validate(settings["model"])
        network = build(config, config.vocabulary_size)
        shardings = jax.tree.map(lambda _: jax.devices()[0], network.abstract())
        self._params = weights.load(network, Path(settings["weights"]), shardings)
        self._strategy = SingleStrategy(network, settings["eos_id"], settings["max_new_tokens"])
        prompts = settings["prompts"]
        self._prompts = [Prompt(str(index), np.array(ids, np.int32)) for index, ids in enumerate(prompts)]
        self._generators: dict[int, Generator] = {}  # compiled programs are kept between runs

    def generate(self, batch: int) -> dict[str, Any]:
        """Answers all prompts, `batch` together at most; the seconds it took, and the tokens of each."""
        if batch not in self._generators:
            self._generators[batch] = Generator(self._params, self._strategy, batch, seed=0)
        began = time.perf_counter()
        answers = list(self._generators[batch].run(self._prompts))
        seconds = time.perf_counter() - began
        tokens = [answer.tokens for answer in sorted(answers, key=lambda answer: answer.index)]
        return {"seconds": seconds, "tokens": tokens}


if __name__ == "__main__":
    sides.serve(Ours)
