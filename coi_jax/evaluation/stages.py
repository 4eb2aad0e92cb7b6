"""The calls of a prompting baseline before the last one, as that in which least-to-most prompting finds the steps.

Their outputs are kept as predictions are, in a folder beside them that is named as the stage: a line for each example,
appended as it is generated, and never mixed with those of other settings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from coi_jax.common import files
from coi_jax.common.storage import AppendFile
from coi_jax.data.demonstrations import find_demonstrations
from coi_jax.data.prompts import encode_prompt, few_shot, stages_of
from coi_jax.data.task_specs import TaskSpec
from coi_jax.data.token_cache import Example
from coi_jax.evaluation import predictions
from coi_jax.evaluation.generation import generate_missing
from coi_jax.evaluation.predictions import Prediction
from coi_jax.inference.generator import Answer
from coi_jax.inference.model import Model
from coi_jax.inference.rows import Prompt
from coi_jax.parallel import processes

# By the name of each stage that came before, in their order: its output for each example.
StageOutputs = dict[str, list[Prediction]]


def run_earlier_stages(
    model: Model, spec: TaskSpec, examples: Sequence[Example], folder: epath.Path, generated_from: dict[str, Any]
) -> StageOutputs:
    """Return the outputs of all calls but the last one: the existing ones, and the missing ones, which are generated.

    Args:
      model: the model that is asked.
      spec: the task, which says how the model is prompted.
      examples: of the task.
      folder: of the predictions.
      generated_from: everything that determines the outputs.
    """
    outputs: StageOutputs = {}
    for stage in stages_of(spec.prompting)[:-1]:
        prompts = make_prompts(model, spec, examples, outputs, f"{stage.name}:")
        title = f"{spec.name}, {stage.name}"
        outputs[stage.name] = _run_stage(model, title, prompts, examples, folder / stage.name, generated_from)
        if unusable := sum(not stage.is_usable(output.text) for output in outputs[stage.name]):
            processes.log_primary(f"{title}: {unusable} of {len(examples)} outputs {stage.fallback}")
    return outputs


def make_prompts(
    model: Model, spec: TaskSpec, examples: Sequence[Example], outputs: StageOutputs, prefix: str = ""
) -> list[Prompt]:
    """Return the prompts of the next call. Those of the first one are in the token cache.

    Args:
      model: the model that is asked.
      spec: the task, which says how the model is prompted.
      examples: of the task.
      outputs: of the calls before.
      prefix: of the prompts' ids, so that calls draw other random numbers.
    """
    if not outputs:
        return [model.prompt(f"{prefix}{example.chain.id}", example.inputs) for example in examples]
    demonstrations = find_demonstrations(model.config, spec)
    prompts = []
    for place, example in enumerate(examples):
        earlier = [of_stage[place].text for of_stage in outputs.values()]
        text = few_shot(example.chain, demonstrations, spec.template, spec.prompting, spec.system, earlier)
        ids = encode_prompt(text, spec.template, model.vocabulary)
        prompts.append(model.prompt(f"{prefix}{example.chain.id}", np.array(ids, np.int32)))
    return prompts


def texts_by_example(outputs: StageOutputs) -> dict[str, dict[str, str]]:
    """Return the outputs of each example, by its id and the name of the stage."""
    found: dict[str, dict[str, str]] = {}
    for name, of_stage in outputs.items():
        for output in of_stage:
            found.setdefault(output.id, {})[name] = output.text
    return found


def count_outputs(prompting: str, outputs: StageOutputs) -> dict[str, dict[str, int]]:
    """Return, for each stage, how many outputs could not be used, and how many reached the limit of new tokens.

    Args:
      prompting: the way of prompting that the stages are of.
      outputs: of its stages before the last.
    """
    return {
        stage.name: {
            "unusable": sum(not stage.is_usable(output.text) for output in outputs[stage.name]),
            "incomplete": sum(not output.complete for output in outputs[stage.name]),
        }
        for stage in stages_of(prompting)[:-1]
    }


def _run_stage(
    model: Model,
    title: str,
    prompts: Sequence[Prompt],
    examples: Sequence[Example],
    folder: epath.Path,
    generated_from: dict[str, Any],
) -> list[Prediction]:
    """Return the output to each prompt of one stage, whose folder keeps them."""
    rows = processes.on_primary(lambda: _open_outputs(folder, generated_from))
    existing = {id: Prediction(id, text, complete) for id, text, complete in rows}

    def write(file: AppendFile, answer: Answer) -> None:
        id = examples[answer.index].chain.id
        output = Prediction(id, model.vocabulary.decode(answer.tokens), answer.complete)
        existing[id] = output
        if processes.is_primary():
            files.append_jsonl(file, {"id": id, "prediction": output.text, "complete": output.complete})

    done = {prompt.id for prompt, example in zip(prompts, examples, strict=True) if example.chain.id in existing}
    generate_missing(model, title, prompts, done, folder / predictions.PREDICTIONS, write)
    return [existing[example.chain.id] for example in examples]


def _open_outputs(folder: epath.Path, generated_from: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    predictions.prepare(folder, dict(generated_from))
    return [(output.id, output.text, output.complete) for output in predictions.read(folder)]
