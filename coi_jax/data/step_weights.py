"""The weight that the loss of each target token has, by the step of the chain that the token belongs to."""

import bisect
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Int, Int32

from coi_jax.chains.chain import Chain, label_starts
from coi_jax.common.errors import UserError
from coi_jax.config.run import AllStepsConfig, LastStepConfig, LossOnConfig
from coi_jax.tokenizers.protocol import Vocabulary

REPLACEMENT = "\ufffd"  # how a vocabulary spells the first bytes of a character

Weights = Float32[np.ndarray, "_"]  # of the targets of an example


def check_loss_on(loss_on: LossOnConfig, lengths: Iterable[int]) -> None:
    """Raise UserError where chains of one of some lengths would have no loss at all."""
    for length in lengths:
        if not any(step_weights(loss_on, length)):
            hint = f"leaves chains of {length} steps without a loss; give one of their steps a weight above 0"
            raise UserError("config.train.loss_on", loss_on.model_dump(), hint)


def step_weights(loss_on: LossOnConfig, length: int) -> list[float]:
    """Return the weight of each step of a chain of `length` steps."""
    if isinstance(loss_on, AllStepsConfig):
        return [1.0] * length
    if isinstance(loss_on, LastStepConfig):
        return [0.0] * (length - 1) + [1.0]
    return [loss_on.weights[min(step, len(loss_on.weights) - 1)] for step in range(length)]


def step_starts(targets: Int32[np.ndarray, "_"], chain: Chain, vocabulary: Vocabulary) -> list[int]:
    """Return the place of the first token of each step in an answer's ids.

    A step is its label and its output, up to the label of the next step. The end of the answer belongs to the last
    step, and a token with text of two steps to the later one.

    Args:
      targets: ids of the whole answer.
      chain: the chain that they are the answer of.
      vocabulary: that they are of.

    Raises:
      UserError: the vocabulary does not keep the labels.
    """
    if chain.length == 1:
        return [0]
    ids = targets.tolist()
    labels = label_starts(vocabulary.decode(ids))
    if len(labels) != chain.length:
        hint = f"vocabulary {vocabulary.name} does not keep the labels of chain {chain.id}; use the loss of all steps"
        raise UserError("config.train.loss_on", "steps cannot be told apart", hint)
    return [0, *(_tokens_before(position, ids, vocabulary) for position in labels[1:])]


def _tokens_before(position: int, ids: list[int], vocabulary: Vocabulary) -> int:
    """Return how many of the first tokens have no text from a position on."""

    def length(tokens: int) -> int:
        return len(vocabulary.decode(ids[:tokens]).rstrip(REPLACEMENT))

    return bisect.bisect_right(range(len(ids) + 1), position, key=length) - 1


class TargetWeights:
    """The weights of the target tokens of numbered examples.

    Args:
      loss_on: the config's choice of steps.
      starts: of each example, the place of the first token of each of its steps.
      counts: of each example, the number of its targets.
    """

    def __init__(
        self, loss_on: LossOnConfig, starts: Sequence[Sequence[int]], counts: Int[np.ndarray, " examples"]
    ) -> None:
        self._loss_on, self._starts, self._counts = loss_on, starts, counts

    def of(self, example: int) -> Weights:
        """Return the weights of an example's targets."""
        starts, count = self._starts[example], int(self._counts[example])
        tokens = np.diff(np.minimum([*starts, count], count))
        return np.repeat(np.array(step_weights(self._loss_on, len(starts)), np.float32), tokens)

    def spans(self) -> Int[np.ndarray, " examples"]:
        """Return how many targets each example has from the first with a weight on; 0 where none has any."""
        return np.array([_span(self.of(example)) for example in range(len(self._starts))], np.int64)


def _span(weights: Weights) -> int:
    return len(weights) - int(np.argmax(weights > 0)) if weights.any() else 0
