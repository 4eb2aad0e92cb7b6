"""Answer one instruction with a run, step by step, prompted as the arm of the run is in an evaluation."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from coi_jax.chains.chain import JOINER, Chain, Step, is_well_formed, parse
from coi_jax.common.errors import UserError
from coi_jax.data.demonstrations import find_demonstrations
from coi_jax.data.prompts import encode_prompt, few_shot, stages_of
from coi_jax.data.task_specs import TaskSpec, question_task
from coi_jax.inference.model import Model


def generate(model: Model, instruction: str, input: str) -> dict[str, Any]:
    """Return the answer to one instruction: its text, its steps, and whether they are as many as the instruction has.

    Args:
      model: the model that answers.
      instruction: one instruction, or several joined with " and then ".
      input: the text that the first instruction is applied to.

    Raises:
      UserError: the arm shows worked examples, and those that the config names cannot be read.
    """
    parts = instruction.split(JOINER)
    chain = Chain("", "question", input, instruction, tuple(Step(part, None) for part in parts))
    spec = question_task(model.config, chain.length)
    demonstrations = _find_demonstrations(model, spec)
    texts: list[str] = []
    for stage in stages_of(spec.prompting):
        text = few_shot(chain, demonstrations, spec.template, spec.prompting, spec.system, texts)
        ids = encode_prompt(text, spec.template, model.vocabulary)
        is_last = len(texts) == len(stages_of(spec.prompting)) - 1
        prompt = model.prompt("" if is_last else f"{stage.name}:", np.array(ids, np.int32))
        [answer] = model.answers([prompt])
        texts.append(model.vocabulary.decode(answer.tokens))
    *_, written = texts
    names = [stage.name for stage in stages_of(spec.prompting)]
    stages = dict(zip(names[:-1], texts[:-1], strict=True))
    return {
        "instruction": instruction,
        "input": input,
        "steps": [{"instruction": _at(parts, k), "output": output} for k, output in enumerate(parse(written))],
        "text": written,
        "complete": answer.complete,
        "well_formed": is_well_formed(written, len(parts)),
        "longer_than_trained": model.is_longer_than_trained(prompt),
        "checkpoint": model.checkpoint,
        **({"stages": stages} if stages else {}),
    }


def _find_demonstrations(model: Model, spec: TaskSpec) -> list[Chain]:
    """Return the worked examples of a question; where their dataset is not there, the error says what else may be."""
    try:
        return find_demonstrations(model.config, spec)
    except UserError as error:
        if error.field != "config.data.folder":
            raise
        hint = "or name a file of worked examples (--demonstrations, evaluation.demonstrations)"
        raise UserError(error.field, error.value, f"{error.hint}, {hint}") from None


def _at(parts: Sequence[str], index: int) -> str | None:
    """Return the instruction of a step; None where the answer has more steps than the instruction."""
    return parts[index] if index < len(parts) else None


def describe(found: dict[str, Any]) -> str:
    """Return the answer for people: each step's instruction above its output, then notes on what is wrong.

    What the model wrote in calls before stands first.
    """
    lines = [f"{name}: {text.strip()}" for name, text in found.get("stages", {}).items()]
    for k, step in enumerate(found["steps"], 1):
        lines += [f"{k}. {step['instruction'] or '(a step that was not asked for)'}", f"   {step['output']}"]
    if not found["well_formed"]:
        lines.append("note: the answer does not have the labels of exactly the steps asked for")
    if not found["complete"]:
        lines.append("note: the answer stopped at the limit; raise --config.evaluation.max_new_tokens")
    if found["longer_than_trained"]:
        lines.append("note: the prompt is longer than any that the model was trained on; it was shown whole")
    return "\n".join(lines)
