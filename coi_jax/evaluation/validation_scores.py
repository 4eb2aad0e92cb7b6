"""The scores of answers to the validation split, which are generated during training."""

import hashlib
from collections.abc import Sequence

from coi_jax.chains.chain import Chain
from coi_jax.common.errors import UserError, nearest
from coi_jax.config.run import ValidationConfig
from coi_jax.data import token_cache
from coi_jax.data.task_specs import validation_tasks
from coi_jax.data.token_cache import Example
from coi_jax.evaluation import metrics
from coi_jax.evaluation.scores import SCORES
from coi_jax.inference.generator import Generator, make_strategy
from coi_jax.inference.model import Model
from coi_jax.inference.rows import Prompt
from coi_jax.models import Params
from coi_jax.parallel import sharding
from coi_jax.training.loop import TrainingJob


class ValidationScorer:
    """Generates answers to some chains of the validation split, as `config.evaluation` says, and scores them.

    Args:
      job: the training.
      settings: of its validation.

    Raises:
      UserError: the best checkpoint is chosen by a score that there is not, or the dataset has no chain of the split.
    """

    def __init__(self, job: TrainingJob, settings: ValidationConfig) -> None:
        if settings.best_by not in ("loss", *SCORES):
            hint = nearest(settings.best_by, ["loss", *SCORES])
            raise UserError("config.train.validation.best_by", settings.best_by, hint)
        model = Model(job.run, job.run.path, job.config, step=0, checkpoint="")  # lays out prompts, has no parameters
        tasks = validation_tasks(job.config, settings.split)
        caches = token_cache.open_or_write(job.config, tasks, job.run.kept_vocabulary)
        examples = choose([cache[index] for cache in caches for index in range(len(cache))], settings.generate_examples)
        ends = model.vocabulary.stop_ids
        self._every, self._evaluation, self._seed = settings.generate_every, job.config.evaluation, job.config.seed
        self._strategy = make_strategy(job.network, ends[0], job.config.evaluation, ends[1:])
        self._multiple = sharding.data_parallel(job.mesh)
        self._vocabulary = model.vocabulary
        self._chains: list[Chain] = [example.chain for example in examples]
        self._prompts: list[Prompt] = [model.prompt(example.chain.id, example.inputs) for example in examples]

    def is_due(self, step: int, total_steps: int) -> bool:
        """Return whether to generate after a step: every so many steps, and after the last."""
        return self._every is not None and (step % self._every == 0 or step == total_steps)

    def scores(self, params: Params) -> dict[str, float]:
        """Return the scores of whole chains of the answers of some parameters, x 100."""
        generator = Generator(params, self._strategy, self._evaluation.batch, self._seed, multiple=self._multiple)
        texts = [""] * len(self._prompts)
        for answer in generator.run(self._prompts):
            texts[answer.index] = self._vocabulary.decode(answer.tokens)
        scores = metrics.score_examples([metrics.target_of(chain) for chain in self._chains], texts)
        return {key.kind: value for key, value in metrics.means(scores).items() if key.step is None}


def make_scorer(job: TrainingJob) -> ValidationScorer | None:
    """Return what scores answers during a training; None where its config asks for none."""
    settings = job.config.train.validation
    return None if settings is None or settings.generate_every is None else ValidationScorer(job, settings)


def choose(examples: Sequence[Example], count: int) -> list[Example]:
    """Return some examples: those whose ids have the least hashes, which are the same in every run.

    Args:
      examples: of the validation split.
      count: how many; all where there are fewer.
    """
    return sorted(examples, key=lambda example: hashlib.sha256(example.chain.id.encode()).digest())[:count]
