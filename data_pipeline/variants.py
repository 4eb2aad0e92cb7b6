"""Variants of the same chains for ablations. Each is a split of the dataset, as `train_fused`.

fused: the explicit steps are erased from the prompt and kept in the target, in the manner of Orca 2's prompt erasure
  (Mitra et al. 2023, section 3).
irrelevant: the outputs of all steps but the last are those of another chain, as in the paper's ablation of incorrect
  outputs (its own replaces other steps: the last ones of three).
shuffled: the steps are in another order, with their outputs.
final: the answer alone, to the same instruction.
erased: an answer that a teacher worked with a strategy, to a prompt that tells nothing of the strategy: Orca 2's prompt
  erasure.
kept: the same answer, to a prompt that tells the strategy.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from coi_jax.chains.chain import Chain, Step, join
from coi_jax.common import files

COMPUTED = ("irrelevant", "shuffled", "final")  # without a language model
GENERAL_PROMPT = "You are a careful assistant. Work on the task below and give a complete answer."
NO_OTHER = "no other chain of its length has other tasks"


def irrelevant(chain: Chain, others: Sequence[Chain], seed: int) -> Chain | None:
    """Return the chain with the outputs of another in all steps but the last; None where there is no other.

    The other one has none of its tasks, and another input.

    Args:
      chain: to vary.
      others: chains of the same length.
      seed: of the choice.
    """
    start = int(files.digest([seed, chain.id])[:8], 16) % len(others)
    for other in (*others[start:], *others[:start]):
        if other.input != chain.input and not {*_tasks(other)} & {*_tasks(chain)}:
            replaced = [
                dataclasses.replace(step, output=alien.output)
                for step, alien in zip(chain.steps[:-1], other.steps, strict=False)
            ]
            return dataclasses.replace(chain, id=f"{chain.id}-irrelevant", steps=(*replaced, chain.steps[-1]))
    return None


def _tasks(chain: Chain) -> list[str | None]:
    return [step.task for step in chain.steps]


def shuffled(chain: Chain, seed: int) -> Chain:
    """Return the chain with its steps in another order."""
    random, order = Random(files.digest([seed, chain.id])), list(range(chain.length))
    while order == sorted(order):
        random.shuffle(order)
    steps = tuple(chain.steps[number] for number in order)
    return dataclasses.replace(
        chain, id=f"{chain.id}-shuffled", instruction=join([step.instruction for step in steps]), steps=steps
    )


def final(chain: Chain) -> Chain:
    """Return the chain as one step, whose output is the last one."""
    last = chain.steps[-1]
    step = Step(chain.instruction, last.output, last.category, last.task)
    return dataclasses.replace(chain, id=f"{chain.id}-final", steps=(step,))


def fused(chain: Chain, instruction: str) -> Chain:
    """Return the chain with one instruction in place of those of its steps, which stay behind it."""
    return dataclasses.replace(chain, id=f"{chain.id}-fused", instruction=instruction)


def worked(kind: str, chain: Chain, answer: Mapping[str, Any]) -> Chain:
    """Return the chain with the steps of a teacher's answer; its instruction begins with a prompt.

    The prompt is part of the instruction, so that every template shows it.

    Args:
      kind: "erased" begins with `GENERAL_PROMPT`, "kept" with the strategy that the teacher was told.
      chain: that was worked.
      answer: its `steps`, and `details` with the strategy's `prompt`.
    """
    shown = GENERAL_PROMPT if kind == "erased" else answer["details"]["prompt"]
    steps = tuple(Step(**step) for step in answer["steps"])
    instruction = f"{shown}\n\n{chain.instruction}"
    return dataclasses.replace(
        chain, id=f"{chain.id}-{kind}", instruction=instruction, steps=steps, details=dict(answer["details"])
    )


def compute(kind: str, chain: Chain, others: Sequence[Chain], seed: int) -> Chain | None:
    """Return a variant that needs no language model; None where there is none of the chain.

    Args:
      kind: one of `COMPUTED`.
      chain: to vary.
      others: chains of the same length.
      seed: of what is chosen.
    """
    if kind == "irrelevant":
        return irrelevant(chain, others, seed)
    return shuffled(chain, seed) if kind == "shuffled" else final(chain)
