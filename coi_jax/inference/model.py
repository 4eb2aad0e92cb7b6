"""A trained run, loaded to generate answers."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Int

from coi_jax.common import hub
from coi_jax.common.errors import UserError
from coi_jax.common.storage import PathLike, as_path
from coi_jax.config.model import SPEED_FIELDS
from coi_jax.config.run import MeshConfig, RunConfig, load_config
from coi_jax.data.arms import find_arm
from coi_jax.data.demonstrations import check_file, note_unused
from coi_jax.inference.decoding import Strategy
from coi_jax.inference.generator import Answer, Generator, make_strategy
from coi_jax.inference.rows import Prompt
from coi_jax.models import Network, Params, build
from coi_jax.parallel import processes, sharding
from coi_jax.runs import checkpoint, checkpoint_steps
from coi_jax.runs.early_checks import check_needs_no_checkpoint
from coi_jax.runs.run_folder import RunFolder, keep_vocabulary, open_run
from coi_jax.tokenizers.protocol import Vocabulary
from coi_jax.weights import kept_base, publish
from coi_jax.weights.initial_weights import InitialWeights, initial_weights
from coi_jax.weights.sources import FIELD, folder_identity

# What may differ from the run's config without asking another network.
OVERRIDABLE_SECTIONS = ("evaluation.", "mesh.")
OVERRIDABLE_FIELDS = ("data.folder", "data.cache_folder", *SPEED_FIELDS)
MOST_ROWS = 16  # of the training's length that a prompt may have, where nobody says how many positions a model reads


@dataclass(frozen=True)
class Model:
    """A run's network with its vocabulary. Parameters are loaded when the first answer is asked for.

    Attributes:
      run: the run that trained the network.
      workdir: the folder that results go to; another than the run's for prompted baselines only.
      config: the run's config, with the overrides of an evaluation.
      step: the step of the newest checkpoint.
      checkpoint: step and hash of that checkpoint's parameters.
      longest_prompt: tokens of the longest prompt that is expected, so that prompts of several calls share programs.
    """

    run: RunFolder
    workdir: epath.Path
    config: RunConfig
    step: int
    checkpoint: str
    longest_prompt: int = 1

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """Return the run's vocabulary."""
        return self.run.load_vocabulary()

    @property
    def checkpoints(self) -> epath.Path:
        """Return the folder of the checkpoints that are evaluated."""
        return _checkpoints(self.run, self.config)

    @property
    def kept_vocabulary(self) -> epath.Path | None:
        """Return the run's copy of its vocabulary, None where it has none."""
        return self.run.kept_vocabulary

    @functools.cached_property
    def mesh(self) -> Mesh | None:
        """Return the config's mesh over the devices of all hosts; None for one device."""
        is_alone = jax.device_count() == 1 or _asks_for_one(self.config.mesh)
        return None if is_alone else sharding.make_mesh(self.config.mesh)

    @functools.cached_property
    def generator(self) -> Generator:
        """Return the generator that decodes as `config.evaluation` says."""
        config = self.config.evaluation
        return self.make_generator(lambda network, ends: make_strategy(network, ends[0], config, ends[1:]))

    def make_generator(self, strategy: Callable[[Network, tuple[int, ...]], Strategy]) -> Generator:
        """Load the parameters; return a generator that decodes with them in some way.

        Args:
          strategy: makes the way of decoding, from the network and the tokens that end an answer.
        """
        network = build(self.config.model, self.vocabulary.size, self.config.lora)
        params = self._parameters(network)
        parts = sharding.data_parallel(self.mesh) if self.mesh else 1
        made, batch = strategy(network, self.vocabulary.stop_ids), self.config.evaluation.batch
        return Generator(params, made, batch, self.config.seed, multiple=parts, longest=self.longest_prompt)

    def on_mesh(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the programs of a generator run."""
        return jax.set_mesh(self.mesh) if self.mesh else contextlib.nullcontext()

    def load_parameters(self) -> None:
        """Load the parameters now, and not for the first answer; raise DamagedCheckpoint where they are damaged."""
        _ = self.generator

    def _parameters(self, network: Network) -> Params:
        """Return those of the checkpoint, or the initial weights where nothing was trained."""
        initial = initial_weights(self.run, self.config, network)
        if not checkpoint_steps.steps(self.checkpoints):
            return self._published_parameters(network, initial)
        if network.lora is None:
            kept_base.drop()
            return checkpoint.restore_params(self.checkpoints, network, step=self.step, mesh=self.mesh)
        params = checkpoint.restore_params(self.checkpoints, network, step=self.step, mesh=self.mesh)
        base = initial.load_frozen_base(self.mesh)
        initial.keep_frozen_base(base)
        return network.join(params, base)

    def _published_parameters(self, network: Network, initial: InitialWeights) -> Params:
        """Return published weights as they are, which are kept for the next baseline that is prompted."""
        key = (self.checkpoint, network, self.mesh)
        params = kept_base.take(key)
        if params is None:
            params = network.cast_for_decoding(network.join(*initial.load(self.mesh)))
        kept_base.put(key, params)
        return params

    def prompt(self, id: str, inputs: Int[np.ndarray, " inputs"]) -> Prompt:
        """Return a prompt as in training: a decoder's begins with the begin-of-sequence id, if there is one.

        Raises:
          UserError: an answer may grow longer than the network's positions go.
        """
        self._check_length(len(inputs))
        begins = self.config.model.kind == "decoder" and self.vocabulary.bos_id is not None
        return Prompt(id, np.concatenate([[self.vocabulary.bos_id], inputs]).astype(np.int32) if begins else inputs)

    def _check_length(self, length: int) -> None:
        model, limit = self.config.model, self.config.evaluation.max_new_tokens
        longest = model.rope.longest_sequence if model.kind == "decoder" else None
        if longest is not None and length + 1 + limit > longest:
            hint = f"a prompt has {length + 1} tokens, and positions beyond {longest} are stretched dynamically"
            raise UserError(
                "config.evaluation.max_new_tokens", limit, f"{hint}, which is not computed here; give fewer"
            )

    def answers(self, prompts: Sequence[Prompt]) -> Iterator[Answer]:
        """See `Generator.run`; on the mesh, if there is one."""
        return itertools.chain.from_iterable(self.answer_groups(prompts))

    def answer_groups(self, prompts: Sequence[Prompt], skip: frozenset[str] = frozenset()) -> Iterator[list[Answer]]:
        """See `Generator.run_in_groups`; on the mesh, if there is one."""
        with self.on_mesh():
            yield from self.generator.run_in_groups(prompts, skip)

    def check_readable(self, prompt: Prompt) -> None:
        """Raise UserError where a prompt is so long that the network can say nothing of it, and that very slowly."""
        longest = max(self.config.data.length, self.run.published_positions or MOST_ROWS * self.config.data.length)
        if len(prompt.tokens) > longest:
            hint = f"the model reads at most {longest:,}; shorten the instruction, the input or the worked examples"
            raise UserError("prompt", f"{len(prompt.tokens):,} tokens", hint)

    def is_longer_than_trained(self, prompt: Prompt) -> bool:
        """Return whether a prompt has more tokens than the rows that the network was trained on."""
        return len(prompt.tokens) > self.config.data.length


def load_model(
    workdir: PathLike, overrides: Mapping[str, Any], source: PathLike | None = None, before: int | None = None
) -> Model:
    """Load the model of a run folder.

    Args:
      workdir: the folder that results go to.
      overrides: dotted fields of the sections that an evaluation may change.
      source: the run that trained the network, where that is not `workdir`: prompted baselines use the network of
        another run, and have a folder and an arm of their own.
      before: takes the newest checkpoint of fewer steps than this; None takes the newest.

    Raises:
      UserError: there is no run, it has no checkpoint yet, or an override would need another training.
    """
    run = RunFolder(source or workdir)
    run.load_config()
    for name, value in overrides.items():
        if not (name.startswith(OVERRIDABLE_SECTIONS) or name in OVERRIDABLE_FIELDS or (source and name == "arm")):
            load_config(run.config, {name: value})  # or an error: there is no such field, or its value is none
            may = ", ".join([*(f"{section}*" for section in OVERRIDABLE_SECTIONS), *OVERRIDABLE_FIELDS])
            raise UserError(f"config.{name}", value, f"is fixed by the training of {run.path}; only {may} may differ")
    config = load_config(run.config, overrides)
    if any(name.startswith("mesh.") for name in overrides) and not _asks_for_one(config.mesh):
        sharding.make_mesh(config.mesh)  # or an error; one that only the training had gives way to one device
    step = checkpoint.latest_step(_checkpoints(run, config), before)
    if step is None and config.evaluation.checkpoint == "best":
        hint = f"{run.path} has none: it reached no validation (config.train.validation); evaluate the newest"
        raise UserError("config.evaluation.checkpoint", "best", hint)
    if step is None:
        check_needs_no_checkpoint(run.path, config)
    if source and find_arm(config.arm).is_tuned:
        hint = "is tuned, and has a network of its own; leave --source out, or choose an arm that is prompted"
        raise UserError("config.arm", config.arm, hint)
    if source:
        check_file(config)  # before the run takes the settings over
        open_run(workdir, config)
    return Model(run, as_path(workdir), config, step or 0, processes.on_primary(lambda: _identity(run, config, step)))


def load_to_ask(folder: PathLike, overrides: Mapping[str, Any]) -> Model:
    """Load the model of a run folder to ask it single questions; nothing is written into the folder.

    Args:
      folder: the run folder.
      overrides: as `load_model`, and `arm`: that of a prompting baseline, which the run's network is prompted as.

    Raises:
      UserError: as `load_model`, or the network is asked for as another arm that is tuned.
    """
    model = load_model(folder, {name: value for name, value in overrides.items() if name != "arm"})
    arm = overrides.get("arm", model.config.arm)
    if arm != model.config.arm and find_arm(arm).is_tuned:
        raise UserError("config.arm", arm, "is tuned, and has a network of its own: name its run, or take cot or ltm")
    config = model.config.model_copy(update={"arm": arm})
    note_unused(config, overrides)
    return replace(model, config=config)


def _checkpoints(run: RunFolder, config: RunConfig) -> epath.Path:
    return run.best if config.evaluation.checkpoint == "best" else run.checkpoints


def init_untrained_run(workdir: PathLike, config_file: str, overrides: Mapping[str, Any]) -> None:
    """Create the run of a prompted baseline, which takes no step and uses the weights that its config names.

    Args:
      workdir: the run folder, new or of the same config.
      config_file: the config file.
      overrides: dotted fields to change.

    Raises:
      UserError: the arm is tuned, no weights are named, or the folder holds another run.
    """
    config = _at_commit(load_config(config_file, overrides), RunFolder(workdir))
    if find_arm(config.arm).is_tuned:
        raise UserError("config.arm", config.arm, "is tuned before it is evaluated; train it, or take base, cot or ltm")
    if not config.weights.folder:
        raise UserError(FIELD, "", "name the published folder that is evaluated")
    run = open_run(workdir, config)
    processes.on_primary(lambda: keep_vocabulary(run, config))
    processes.on_primary(lambda: publish.copy_small_files(config.weights.required_folder, run))


def _at_commit(config: RunConfig, run: RunFolder) -> RunConfig:
    """Return a config with weights of the Hub at a commit: the one that its run has already, or the present one."""
    folder = config.weights.folder
    if not folder or not hub.is_hub(folder):
        return config
    kept = (run.load_config().weights.folder or "") if run.config.exists() else ""
    commit = kept if hub.is_pin_of(kept, folder) else hub.pin(folder, FIELD)
    return config.model_copy(update={"weights": config.weights.model_copy(update={"folder": commit})})


def _asks_for_one(mesh: MeshConfig) -> bool:
    """Return whether a mesh is one device of one host, which needs no mesh."""
    return jax.process_count() == 1 and set(mesh.model_dump().values()) == {1}


def _identity(run: RunFolder, config: RunConfig, step: int | None) -> str:
    if step is None:
        return f"0-{folder_identity(config.weights.required_folder)[:16]}"
    return checkpoint.identity(_checkpoints(run, config), step)
