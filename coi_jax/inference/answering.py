"""Answer one instruction with a run, step by step."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from coi_jax.chains.chain import JOINER, is_well_formed, parse
from coi_jax.common.errors import UserError
from coi_jax.data import prompts
from coi_jax.data.arms import find_arm
from coi_jax.inference.model import Model


def generate(model: Model, instruction: str, input: str) -> dict[str, Any]:
    """Return the answer to one instruction: its text, its steps, and whether they are as many as the instruction has.

    Args:
      model: the model that answers.
      instruction: one instruction, or several joined with " and then ".
      input: the text that the first instruction is applied to.

    Raises:
      UserError: the run is prompted with worked examples, which only an evaluation has.
    """
    if find_arm(model.config.arm).prompting != "direct":
        hint = "is prompted with examples of a dataset; name the run whose network it prompts (its --source)"
        raise UserError("config.arm", model.config.arm, hint)
    data = model.config.data
    text = prompts.prompt(instruction, input, data.template, data.chat.system)
    ids = prompts.encode_prompt(text, data.template, model.vocabulary)
    prompt = model.prompt("", np.array(ids, np.int32))
    [answer] = model.answers([prompt])
    written = model.vocabulary.decode(answer.tokens)
    parts = instruction.split(JOINER)
    return {
        "instruction": instruction,
        "input": input,
        "steps": [{"instruction": _at(parts, k), "output": output} for k, output in enumerate(parse(written))],
        "text": written,
        "complete": answer.complete,
        "well_formed": is_well_formed(written, len(parts)),
        "longer_than_trained": model.is_longer_than_trained(prompt),
        "checkpoint": model.checkpoint,
    }


def _at(parts: Sequence[str], index: int) -> str | None:
    """Return the instruction of a step; None where the answer has more steps than the instruction."""
    return parts[index] if index < len(parts) else None


def describe(found: dict[str, Any]) -> str:
    """Return the answer for people: each step's instruction above its output, then notes on what is wrong."""
    lines = []
    for k, step in enumerate(found["steps"], 1):
        lines += [f"{k}. {step['instruction'] or '(a step that was not asked for)'}", f"   {step['output']}"]
    if not found["well_formed"]:
        lines.append("note: the answer does not have the labels of exactly the steps asked for")
    if not found["complete"]:
        lines.append("note: the answer stopped at the limit; raise --config.evaluation.max_new_tokens")
    if found["longer_than_trained"]:
        lines.append("note: the prompt is longer than any that the model was trained on; it was shown whole")
    return "\n".join(lines)
