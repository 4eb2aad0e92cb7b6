"""The Python API: load a model, answer a chain step by step, score predictions. `import coi_jax` offers these names.

import coi_jax

model = coi_jax.load_run("runs/coi12")
answer = coi_jax.answer_chain(model, "Remove the first word. and then Reverse the order of the words.", "pear, fig")
print(answer.steps[-1].output)

chains = list(coi_jax.read_chains("data/lists", "test", length=2))
texts = [coi_jax.answer_chain(model, chain.instruction, chain.input).text for chain in chains]
print(coi_jax.score_predictions(chains, texts)["content_exact_match"]["value"])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coi_jax.chains.chain import Chain, join
from coi_jax.common.arguments import Seed, Text, checked
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike
from coi_jax.config.published_run import RECIPE
from coi_jax.evaluation.bootstrap import Resamples
from coi_jax.evaluation.metrics import score_examples, target_of
from coi_jax.evaluation.results import with_intervals
from coi_jax.inference.answering import generate
from coi_jax.inference.model import Model, load_to_ask
from coi_jax.inference.published import load_published
from coi_jax.parallel.processes import start_jax

ONE_AT_A_TIME = {"evaluation.batch": 1}


@dataclass(frozen=True)
class AnswerStep:
    """One step of an answer.

    Attributes:
      instruction: what the step was asked to do; None for a step that was not asked for.
      output: what the model wrote.
    """

    instruction: str | None
    output: str


@dataclass(frozen=True)
class Answer:
    """The answer of a model to a chain of instructions.

    Attributes:
      steps: the parts of the text, in order.
      text: the whole text, with its labels.
      complete: False where the text stopped at the limit of new tokens.
      well_formed: whether the text has the labels of exactly the steps that were asked for.
      checkpoint: step and hash of the parameters.
      stages: by name, what the model wrote in calls before, as the steps that least-to-most prompting finds.
    """

    steps: tuple[AnswerStep, ...]
    text: str
    complete: bool
    well_formed: bool
    checkpoint: str
    stages: Mapping[str, str] = field(default_factory=dict)


@checked
def load_run(folder: PathLike, overrides: Mapping[str, Any] | None = None) -> Model:
    """Load the newest checkpoint of a run, or of a folder that `coi_jax.convert` wrote.

    Args:
      folder: the run folder.
      overrides: dotted fields of the config that generation may change, as `{"evaluation.max_new_tokens": 64}`;
        `{"arm": "cot"}` prompts the network as that baseline.

    Raises:
      UserError: there is no run, it has no checkpoint, or a field would need another training.
    """
    start_jax()
    return load_to_ask(folder, {**(overrides or {}), **ONE_AT_A_TIME})


@checked
def load_weights(
    folder: str,
    workdir: PathLike,
    *,
    config: PathLike = RECIPE,
    overrides: Mapping[str, Any] | None = None,
) -> Model:
    """Load the published weights of a Hugging Face folder as they are, without training or copying them.

    Args:
      folder: safetensors with `config.json` and a tokenizer; may be a URL, as `gs://bucket/mistral`.
      workdir: a new run folder, or one that this function made of the same weights.
      config: the config file whose prompt template and limits apply; the model comes from `folder`.
      overrides: dotted fields of that config to change.

    Raises:
      UserError: the folder is not whole or of no known family, or `workdir` holds something else.
    """
    start_jax()
    return load_published(folder, workdir, config=config, overrides=overrides, evaluation=ONE_AT_A_TIME)


@checked
def answer_chain(model: Model, instructions: Text | Sequence[Text], input: Text = "") -> Answer:
    """Answer one chain of instructions, step by step.

    Args:
      model: of `load_run` or `load_weights`.
      instructions: the steps in order, or one text in which " and then " joins them.
      input: what the first instruction is applied to.

    Raises:
      UserError: there is no instruction, or the arm shows worked examples that cannot be read.
    """
    instruction = instructions if isinstance(instructions, str) else join(instructions)
    if not instruction.strip():
        raise UserError("instructions", instruction, "is empty; say what to do")
    found = generate(model, instruction, input)
    steps = tuple(AnswerStep(step["instruction"], step["output"]) for step in found["steps"])
    return Answer(
        steps, found["text"], found["complete"], found["well_formed"], found["checkpoint"], found.get("stages", {})
    )


@checked
def score_predictions(
    chains: Sequence[Chain], texts: Sequence[Text], *, resamples: Resamples = 1000, seed: Seed = 0
) -> dict[str, dict[str, float]]:
    """Score texts against the chains that they answer, as `coi_jax.evaluate` does.

    Args:
      chains: the references.
      texts: one for each chain, in the same order.
      resamples: number of bootstrap resamples behind the intervals.
      seed: of the resampling.

    Returns:
      By score (`rouge_l`, `content_exact_match`, …): its `value`, and the `low` and `high` end of its 95% interval,
      all x 100.

    Raises:
      UserError: there are not as many texts as chains, or none.
    """
    if len(chains) != len(texts) or not chains:
        raise UserError("texts", f"{len(texts)} texts for {len(chains)} chains", "give one text for each chain")
    return with_intervals(score_examples([target_of(chain) for chain in chains], texts), resamples, seed)
