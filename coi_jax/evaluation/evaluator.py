"""Generate and score the answers of a run to test sets, each answer once."""

import contextlib
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from coi_jax.chains.chain import Chain
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.folder_lock import folder_lock
from coi_jax.common.seals import read_sealed
from coi_jax.common.storage import AppendFile, PathLike, as_path
from coi_jax.data import token_cache
from coi_jax.data.demonstrations import note_unused
from coi_jax.data.task_specs import TaskSpec, check_sources, evaluation_task
from coi_jax.data.test_sets import check_installed
from coi_jax.data.token_cache import Example, TokenCache
from coi_jax.evaluation import metrics, predictions
from coi_jax.evaluation.generation import generate_missing
from coi_jax.evaluation.predictions import Prediction
from coi_jax.evaluation.results import make_results
from coi_jax.evaluation.stages import count_outputs, make_prompts, run_earlier_stages, texts_by_example
from coi_jax.inference.generator import Answer
from coi_jax.inference.model import Model, load_model
from coi_jax.inference.rows import Prompt
from coi_jax.parallel import processes
from coi_jax.runs import checkpoint
from coi_jax.runs.damage import DamagedCheckpoint

# Fields of an evaluation that change no prediction. In low precision `batch` does: sums are rounded in another order.
# Worked examples are part of the inputs, whose hash is named beside the evaluation.
IGNORED_FIELDS = {"tests", "batch", "bootstrap", "examples", "checkpoint", "shots", "demonstrations"}


def evaluate_newest(
    workdir: PathLike,
    overrides: Mapping[str, Any],
    source: PathLike | None = None,
    names: Sequence[str] | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Evaluate the newest checkpoint of a run that is not damaged, and name those that are.

    Args:
      workdir: the run folder.
      overrides: as `load_model`.
      source: as `load_model`.
      names: of the test sets; None takes the config's.
      limit: as `evaluate`.

    Raises:
      UserError: as `load_model` and `evaluate`, or the only checkpoint is damaged.
    """
    before = None
    while True:
        model = load_model(workdir, overrides, source, before)
        if before is None:
            note_unused(model.config, overrides)
        try:
            return evaluate(model, names or model.config.evaluation.tests, limit)
        except DamagedCheckpoint as damage:
            if not checkpoint.is_passed_over(damage):
                raise
            before = damage.step
            _set_aside_unless_trained(model.run.path, damage)


def _set_aside_unless_trained(run: PathLike, damage: DamagedCheckpoint) -> None:
    """Rename a damaged checkpoint, so that training makes it anew.

    It is only named where it cannot be renamed, as while another process trains, and on several hosts, which cannot all
    hold the lock of the folder.
    """
    if jax.process_count() == 1:
        with contextlib.suppress(UserError, OSError), folder_lock(run, "workdir"):
            checkpoint.set_aside(damage)
            return
    processes.log_primary(f"{damage.what}; the one before it is used")


def evaluate(model: Model, names: Sequence[str], limit: int | None = None) -> list[dict[str, Any]]:
    """Predict and score some test sets; return the content of their `results.json`.

    Args:
      model: the trained run.
      names: of the test sets.
      limit: takes only the first so many examples of each test set; None takes all.

    Raises:
      UserError: a test set is unknown, the dataset has no row of it, or its scores need a package that is not
        installed; nothing has been predicted then.
    """
    processes.on_primary(lambda: check_installed(names))
    specs = [evaluation_task(model.config, name) for name in names]
    source = processes.on_primary(lambda: check_sources(model.config.data.folder, names))
    caches = token_cache.open_or_write(model.config, specs, model.kept_vocabulary)
    longest = 1 + max(int(tokens.lengths[:, 0].max(initial=0)) for tokens in caches)  # the token that begins a text
    model = dataclasses.replace(model, longest_prompt=longest)
    return [_evaluate_one(model, spec, tokens, limit, source) for spec, tokens in zip(specs, caches, strict=True)]


def _evaluate_one(model: Model, spec: TaskSpec, tokens: TokenCache, limit: int | None, source: str) -> dict[str, Any]:
    chosen = _sample([tokens[index] for index in range(len(tokens))], model.config.evaluation.examples)
    examples = chosen[:limit]
    folder = model.workdir / "eval" / spec.name
    results = folder / (predictions.RESULTS if len(examples) == len(chosen) else f"results_first_{len(examples)}.json")
    with contextlib.ExitStack() as stack:
        processes.on_primary(lambda: stack.enter_context(folder_lock(folder, "workdir")))
        return _evaluate_locked(model, spec, tokens, examples, source, results)


def _sample(examples: Sequence[Example], count: int | None) -> Sequence[Example]:
    """Return some examples, in their order: those whose ids have the least hashes, which are the same in every run."""
    if count is None or count >= len(examples):
        return examples
    by_hash = sorted(examples, key=lambda example: hashlib.sha256(example.chain.id.encode()).digest())
    chosen = {example.chain.id for example in by_hash[:count]}
    return [example for example in examples if example.chain.id in chosen]


def _evaluate_locked(
    model: Model, spec: TaskSpec, tokens: TokenCache, examples: Sequence[Example], source: str, results: epath.Path
) -> dict[str, Any]:
    """Predict and score a test set whose folder no other process writes into; write the results."""
    name = spec.name
    _check_ids(name, examples)
    generated_from = _generated_from(model, tokens)
    folder = processes.on_primary(lambda: str(_predictions_folder(results, generated_from)))
    if not processes.on_primary(lambda: predictions.are_current(folder, generated_from)):
        model.load_parameters()  # where the checkpoint is damaged, predictions of another stay
    rows = processes.on_primary(lambda: _open_predictions(name, folder, generated_from))
    outputs = run_earlier_stages(model, spec, examples, as_path(folder), generated_from)
    texts = texts_by_example(outputs)
    existing = {id: Prediction(id, text, complete, texts.get(id, {})) for id, text, complete in rows}
    prompts = make_prompts(model, spec, examples, outputs)
    answers = _predict(model, name, examples, prompts, as_path(folder), existing, texts)
    counts = count_outputs(spec.prompting, outputs)
    chains = [example.chain for example in examples]
    provenance = {"source": source, "available_examples": len(tokens), **generated_from}
    scored: dict[str, Any] = processes.on_primary(
        lambda: _score(model, name, chains, answers, provenance, folder, counts)
    )
    processes.on_primary(lambda: files.write_json(results, scored, "workdir"))
    return scored


def _predictions_folder(results: epath.Path, generated_from: dict[str, Any]) -> epath.Path:
    """Return where predictions are: beside the results, but those of a trial with --limit never replace others."""
    folder = results.parent
    is_whole = results.name == predictions.RESULTS
    has_others = any((folder / name).exists() for name in (predictions.PREDICTIONS, predictions.RESULTS))
    if is_whole or not has_others or predictions.are_current(folder, generated_from):
        return folder
    return folder / results.stem.removeprefix("results_")


def _open_predictions(name: str, folder: PathLike, generated_from: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Prepare a folder for predictions; return id, text and completeness of those that it has already."""
    if not predictions.are_current(folder, generated_from):
        (as_path(folder) / predictions.RESULTS).unlink(
            missing_ok=True
        )  # before the predictions that it scores are removed
    if predictions.prepare(folder, generated_from):
        processes.log_primary(f"{name}: predictions of another checkpoint, test set or way of decoding are replaced")
    return [(prediction.id, prediction.text, prediction.complete) for prediction in predictions.read(folder)]


def _score(
    model: Model,
    name: str,
    chains: Sequence[Chain],
    answers: Sequence[Prediction],
    generated_from: dict[str, Any],
    folder: PathLike,
    stages: dict[str, dict[str, int]],
) -> dict[str, Any]:
    """Return the scores of the answers to a test set, with their provenance; bring those in `folder` up to date."""
    provenance = {
        "run": str(model.workdir),
        "dataset": _dataset_hash(model),
        **generated_from,
        "test_set": files.digest([chain.row() for chain in chains]),
    }
    settings = model.config.evaluation
    targets = [metrics.target_of(chain) for chain in chains]
    scores = metrics.find_scorer(name)(targets, [answer.text for answer in answers])
    _refresh(name, folder, chains, answers, scores)
    scored = make_results(
        name,
        model.config.arm,
        chains,
        answers,
        resamples=settings.bootstrap,
        seed=model.config.seed,
        provenance=provenance,
        scores=scores,
        stages=stages,
    )
    if all(output is None for chain in chains for output in chain.outputs):
        processes.log_primary(
            f"{name}: has no reference outputs, so ROUGE-L and exact match are left out; the answers are in "
            f"{folder}/{predictions.PREDICTIONS}"
        )
    if scored["incomplete"]:
        processes.log_primary(
            f"{name}: {scored['incomplete']} of {len(chains)} answers reached "
            f"max_new_tokens = {settings.max_new_tokens}"
        )
    return scored


def _refresh(
    name: str,
    folder: PathLike,
    chains: Sequence[Chain],
    answers: Sequence[Prediction],
    scores: metrics.ExampleScores,
) -> None:
    """Write lines of predictions.jsonl anew that lack what they are due to have, as those of earlier versions do."""
    pairs = enumerate(zip(chains, answers, strict=True))
    rows = [answer.row(chain, metrics.of_example(scores, place)) for place, (chain, answer) in pairs]
    if predictions.refresh(folder, rows):
        processes.log_primary(f"{name}: {predictions.PREDICTIONS} has the instructions and today's scores now")


def _generated_from(model: Model, tokens: TokenCache) -> dict[str, Any]:
    """Return everything that determines the predictions."""
    is_exact = model.config.model.dtype == "float32"
    ignored = IGNORED_FIELDS if is_exact else IGNORED_FIELDS - {"batch"}
    decoding = model.config.evaluation.model_dump(mode="json", exclude=ignored)
    return {"checkpoint": model.checkpoint, "inputs": tokens.hash, "evaluation": decoding, "seed": model.config.seed}


def _dataset_hash(model: Model) -> str | None:
    """Return the hash of the data that the run was trained on; None where the run has no record of it."""
    path = model.run.environment
    if path.exists():
        return files.read_value(path, ("data", "sha256"), str, "environment", read_sealed)
    processes.log_primary(f"warning: there is no {path}, so that results.json cannot name the data of training")
    return None


def _predict(
    model: Model,
    name: str,
    examples: Sequence[Example],
    prompts: Sequence[Prompt],
    folder: epath.Path,
    existing: dict[str, Prediction],
    stages: Mapping[str, Mapping[str, str]],
) -> list[Prediction]:
    """Return the answer to each example: the existing ones, and the missing ones, which are generated."""
    if longer := sum(map(model.is_longer_than_trained, prompts)):
        length = model.config.data.length
        processes.log_primary(
            f"{name}: {longer} of {len(prompts)} prompts are longer than the {length} positions of a "
            "training row; they are shown whole"
        )
    score = metrics.find_scorer(name)

    def write(file: AppendFile, answer: Answer) -> None:
        chain = examples[answer.index].chain
        text = model.vocabulary.decode(answer.tokens)
        prediction = Prediction(chain.id, text, answer.complete, stages.get(chain.id, {}))
        existing[chain.id] = prediction
        if processes.is_primary():
            scores = metrics.of_example(score([metrics.target_of(chain)], [text]), 0)
            predictions.append(file, prediction, chain, scores)

    generate_missing(model, name, prompts, existing, folder / predictions.PREDICTIONS, write)
    return [existing[prompt.id] for prompt in prompts]


def _check_ids(name: str, examples: Sequence[Example]) -> None:
    repeated = [id for id, count in Counter(example.chain.id for example in examples).items() if count > 1]
    if repeated:
        raise UserError(
            f"ids of {name}", repeated[0], "occurs more than once; give every chain of a dataset its own id"
        )
