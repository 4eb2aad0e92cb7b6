"""SeqIO tasks and mixtures: the only definition of preprocessing, features, mixing rates and metrics.

Nothing is registered on import: `register(config, vocabulary)` registers the arms and test sets of a config.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from coi_jax.chains.chain import Chain
from coi_jax.config.run import RunConfig
from coi_jax.data import prompts
from coi_jax.data.arms import arm_names, find_arm
from coi_jax.data.demonstrations import find_demonstrations
from coi_jax.data.task_specs import TaskSpec, evaluation_task, training_tasks
from coi_jax.data.test_sets import TEST_SETS
from coi_jax.data.token_cache import count_rows
from coi_jax.evaluation import metrics
from coi_jax.tokenizers.protocol import Vocabulary
from data_pipeline.tasks.seqio_vocabularies import PromptVocabulary, SeqioVocabulary


def register(config: RunConfig, vocabulary: Vocabulary) -> list[str]:
    """Register a SeqIO mixture for every arm and a task for every test set that a config's dataset has rows for.

    Replaces earlier ones of the same names. Returns the names.

    Raises:
      UserError: the dataset folder is missing.
    """
    tuned = [arm for arm in arm_names() if find_arm(arm).is_tuned]
    names = [_register_arm(config.model_copy(update={"arm": arm}), vocabulary) for arm in tuned]
    names += [_register_task(config, evaluation_task(config, test), vocabulary) for test in TEST_SETS]
    return [name for name in names if name]


def _register_arm(config: RunConfig, vocabulary: Vocabulary) -> str:
    tasks = [_register_task(config, spec, vocabulary) for spec in training_tasks(config)]
    if not all(tasks):
        return ""
    seqio.MixtureRegistry.remove(config.arm)
    seqio.MixtureRegistry.add_provider(
        config.arm, make_mixture(config.arm, [seqio.get_mixture_or_task(t) for t in tasks])
    )
    return config.arm


def _register_task(config: RunConfig, spec: TaskSpec, vocabulary: Vocabulary) -> str:
    if not spec.size:
        return ""
    seqio.TaskRegistry.remove(spec.name)
    seqio.TaskRegistry.add_provider(spec.name, make_task(config, spec, vocabulary))
    return spec.name


def make_mixture(name: str, tasks: Sequence[seqio.Task]) -> seqio.Mixture:
    """Return the mixture of an arm's tasks, each at the rate of its number of examples: rows are equally frequent."""
    return seqio.Mixture(name, tasks, default_rate=number_of_examples)


def number_of_examples(task: seqio.Task) -> float:
    """Return the mixing rate of a task: its number of examples before preprocessing."""
    return float(sum(task.num_input_examples(split) for split in task.splits))


def make_task(config: RunConfig, spec: TaskSpec, vocabulary: Vocabulary) -> seqio.Task:
    """Return the SeqIO task of a spec, not registered.

    Features: `inputs` and `targets` (ids; targets end with the end id), `chain` (the row as JSON), and the texts before
    tokenization as `inputs_pretokenized`, `targets_pretokenized`.

    Args:
      config: says which worked examples a prompting baseline shows.
      spec: the rows, and their text.
      vocabulary: turns the text into ids.

    Raises:
      UserError: the dataset has no row for it, or its worked examples cannot be read.
    """
    features = {
        "inputs": seqio.Feature(PromptVocabulary(vocabulary, spec.template), add_eos=False, required=True),
        "targets": seqio.Feature(SeqioVocabulary(vocabulary), add_eos=True, required=True),
    }
    return seqio.Task(
        spec.name,
        source=_source(spec),
        output_features=features,
        preprocessors=[
            functools.partial(
                to_text,
                template=spec.template,
                prompting=spec.prompting,
                examples=find_demonstrations(config, spec),
                system=spec.system,
            ),
            seqio.preprocessors.tokenize,
            seqio.preprocessors.append_eos,
        ],
        postprocess_fn=to_answer,
        metric_fns=[_metric(spec)],
    )


def _metric(spec: TaskSpec) -> Callable[[Sequence[metrics.Target], Sequence[str]], dict[str, float]]:
    """Return the scorer of a test set as a SeqIO metric; tasks that are trained on are scored as chains."""
    scorer = metrics.find_scorer(spec.name) if spec.name in TEST_SETS else metrics.score_examples

    def scores(targets: Sequence[metrics.Target], predictions: Sequence[str]) -> dict[str, float]:
        return metrics.spell(metrics.means(scorer(targets, predictions)))

    return scores


def _source(spec: TaskSpec) -> seqio.FunctionDataSource:
    """Return the rows of a spec, each `{"chain": its JSON}`."""

    def rows() -> Iterator[dict[str, str]]:
        for chain in spec.read_rows():
            yield {"chain": json.dumps(chain.row(), ensure_ascii=False)}

    def dataset(split: str, shuffle_files: bool) -> tf.data.Dataset:
        signature = {"chain": tf.TensorSpec((), tf.string)}
        return tf.data.Dataset.from_generator(rows, output_signature=signature)

    return seqio.FunctionDataSource(dataset, splits=[spec.split], num_input_examples={spec.split: count_rows(spec)})


def to_text(
    dataset: tf.data.Dataset, template: str, prompting: str, examples: Sequence[Chain], system: str | None = None
) -> tf.data.Dataset:
    r"""Add the text of a prompt and of its answer.

    Args:
      dataset: examples `{"chain": JSON}`.
      template: a name in `prompts.TEMPLATES` or `prompts.CHATS`.
      prompting: "direct", or a name in `prompts.PROMPTINGS`, of whose calls this is the first.
      examples: the worked examples shown before the prompt, if any.
      system: the system prompt of conversations, if any.

    In: `{"chain": '{"id": "a", "source": "s", "input": "b a", "instruction": "Sort.",
    "steps": [{"instruction": "Sort.", "output": "a b", "category": null, "task": null}]}'}`

    Out, with template "plain": the same and `{"inputs": "Sort.\nb a\n", "targets": "a b"}`
    """

    def text(row: bytes) -> tuple[bytes, bytes]:
        chain = Chain.from_row(json.loads(row))
        return prompts.few_shot(chain, examples, template, prompting, system).encode(), chain.targets.encode()

    def add(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        inputs, targets = tf.numpy_function(text, [example["chain"]], (tf.string, tf.string))
        return {**example, "inputs": tf.ensure_shape(inputs, []), "targets": tf.ensure_shape(targets, [])}

    return dataset.map(add)


def to_answer(output: str, example: Mapping[str, Any], is_target: bool) -> metrics.Target:
    """Return what the metrics compare: the target of the example's chain, or the text of a prediction.

    Args:
      output: the decoded text.
      example: the example as preprocessed, with its chain.
      is_target: whether `output` is the target or a prediction.

    Example: the target of a chain with outputs "b" and "a" gives `("b", "a")`, with None for a missing reference; the
    prediction `"Task 1 output and task 2 input: b Task 2 output: c"` gives itself.
    """
    if not is_target:
        return output
    return metrics.target_of(Chain.from_row(json.loads(example["chain"])))
