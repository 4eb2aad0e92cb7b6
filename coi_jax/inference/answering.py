"""Answer one instruction with a run, step by step, prompted as the arm of the run is in an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coi_jax.chains.chain import JOINER, Chain, Step, is_well_formed, join, parse
from coi_jax.common.arguments import Text, checked
from coi_jax.common.errors import UserError
from coi_jax.data.demonstrations import find_demonstrations
from coi_jax.data.prompts import encode_prompt, few_shot, stages_of
from coi_jax.data.task_specs import TaskSpec, question_task
from coi_jax.inference.model import Model


@dataclass(frozen=True)
class Question:
    """Instructions that a model is asked in one or more calls, prompted as the arm of its run is in an evaluation.

    Attributes:
      model: that is asked.
      chain: of the instructions, without outputs.
      spec: the task that says how it is prompted.
      demonstrations: the worked examples that it is shown, if any.
    """

    model: Model
    chain: Chain
    spec: TaskSpec
    demonstrations: Sequence[Chain]

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the names of the calls; the last one writes the answer."""
        return tuple(stage.name for stage in stages_of(self.spec.prompting))

    def encode(self, texts: Sequence[str]) -> list[int]:
        """Return the ids of the next call's prompt, from what the model wrote in the calls before."""
        spec = self.spec
        text = few_shot(self.chain, self.demonstrations, spec.template, spec.prompting, spec.system, texts)
        return encode_prompt(text, spec.template, self.model.vocabulary)

    def describe(self, texts: Sequence[str], *, complete: bool) -> dict[str, Any]:
        """Return the answer: its text, its steps, and whether they are as many as the instructions.

        Args:
          texts: what the model wrote in all calls.
          complete: False where the last one stopped at its limit.
        """
        *before, written = texts
        stages = dict(zip(self.stages[:-1], before, strict=True))
        asked = [step.instruction for step in self.chain.steps]
        return {
            "instruction": self.chain.instruction,
            "input": self.chain.input,
            "steps": [{"instruction": _at(asked, k), "output": output} for k, output in enumerate(parse(written))],
            "text": written,
            "complete": complete,
            "well_formed": is_well_formed(written, self.chain.length),
            "checkpoint": self.model.checkpoint,
            **({"stages": stages} if stages else {}),
        }


def ask(model: Model, instructions: Sequence[str], input: str) -> Question:
    """Return the question of some instructions, each applied to the output of the one before.

    Args:
      model: the model that answers.
      instructions: in order.
      input: the text that the first instruction is applied to.

    Raises:
      UserError: the arm shows worked examples, and those that the config names cannot be read.
    """
    chain = Chain("", "question", input, join(instructions), tuple(Step(part, None) for part in instructions))
    spec = question_task(model.config, chain.length)
    return Question(model, chain, spec, _find_demonstrations(model, spec))


@checked
def generate(model: Model, instruction: Text, input: Text) -> dict[str, Any]:
    """Return the answer to one instruction: its text, its steps, and whether they are as many as the instruction has.

    Args:
      model: the model that answers.
      instruction: one instruction, or several joined with " and then ".
      input: the text that the first instruction is applied to.

    Raises:
      UserError: the arm shows worked examples, and those that the config names cannot be read; or the prompt is longer
        than the model's positions, or than 16 of the rows that it was trained on.
    """
    question = ask(model, instruction.split(JOINER), input)
    texts: list[str] = []
    for name in question.stages:
        id = "" if name == question.stages[-1] else f"{name}:"
        prompt = model.prompt(id, np.array(question.encode(texts), np.int32))
        model.check_readable(prompt)
        [answer] = model.answers([prompt])
        texts.append(model.vocabulary.decode(answer.tokens))
    found = question.describe(texts, complete=answer.complete)
    return found | {"longer_than_trained": model.is_longer_than_trained(prompt)}


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
