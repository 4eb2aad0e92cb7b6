"""Answers by the plainest of means: the whole text goes through the network again for every token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from coi_jax.models import Network, Params

EOS = 1
ROOM = 40  # positions of the rows that everything is computed in


class Oracle:
    """Log-likelihoods of the next token from the full forward pass."""

    def __init__(self, network: Network, params: Params) -> None:
        self._network = network
        self._logits = jax.jit(functools.partial(network.logits, params))

    def next(self, prompt: np.ndarray, written: list[int]) -> np.ndarray:
        if self._network.config.kind == "t5":
            row, last = self._t5_row(prompt, written), len(written)
        else:
            row, last = self._decoder_row(np.array([*prompt, *written])), len(prompt) + len(written) - 1
        return np.asarray(jax.nn.log_softmax(self._logits(row)[0, last].astype(jnp.float32)))

    def _decoder_row(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "tokens": _pad(tokens),
            "segments": _pad(np.ones_like(tokens)),
            "positions": _pad(np.arange(len(tokens))),
        }

    def _t5_row(self, prompt: np.ndarray, written: list[int]) -> dict[str, np.ndarray]:
        shifted = np.array([0, *written])
        return {
            "encoder_tokens": _pad(prompt),
            "encoder_segments": _pad(np.ones_like(prompt)),
            "tokens": _pad(shifted),
            "segments": _pad(np.ones_like(shifted)),
        }


def _pad(tokens: np.ndarray) -> np.ndarray:
    return np.pad(tokens, (0, ROOM - len(tokens)))[None].astype(np.int32)


def greedy(oracle: Oracle, prompt: np.ndarray, limit: int) -> list[int]:
    written: list[int] = []
    while len(written) < limit:
        token = int(np.argmax(oracle.next(prompt, written)))
        if token == EOS:
            break
        written.append(token)
    return written


def beam(oracle: Oracle, prompt: np.ndarray, limit: int, beams: int) -> list[int]:
    """Beam search as the module's docstring describes it, one text at a time."""
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for length in range(1, limit + 1):
        every = [
            (score + gain, [*written, token])
            for score, written in live
            for token, gain in enumerate(oracle.next(prompt, written))
        ]
        best = sorted(every, key=lambda candidate: -candidate[0])[: 2 * beams]
        finished += [(score / length, text) for score, text in best[:beams] if text[-1] == EOS]
        finished = sorted(finished, key=lambda candidate: -candidate[0])[:beams]
        live = [candidate for candidate in best if candidate[1][-1] != EOS][:beams]
        if len(finished) == beams and live[0][0] / length <= finished[-1][0]:
            return finished[0][1][:-1]
    candidates = finished + [(score / limit, text) for score, text in live]
    return [token for token in max(candidates)[1] if token != EOS]
