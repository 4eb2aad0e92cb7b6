"""Runs a build stage by stage: from single instructions to selected chains."""

import collections
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.llm.settings import EndpointConfig
from data_pipeline.build import instruction_sources, llm_stages
from data_pipeline.build.asking.ask_transform import Answerer, EndpointAnswerer
from data_pipeline.build.asking.oracle import Oracle
from data_pipeline.build.asking.questions import prompt_identity
from data_pipeline.build.build_config import BuildConfig
from data_pipeline.build.decisions import Decisions
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Flow, Incomplete, Stage, StageRunner, rows_of
from data_pipeline.build.llm_stages import LlmStage, Position
from data_pipeline.build.stages import assumed_tasks, joining, pairing, selection
from data_pipeline.build.stages.ingest import ingest
from data_pipeline.procedural import catalogue

NO_PAIRS = "the rules allow no pair of its tasks"


@dataclass(frozen=True)
class Payment:
    """The folder that records what was spent, and the limit in dollars (None: no limit)."""

    folder: str
    dollars: float | None


@dataclass(frozen=True)
class BuildResult:
    """The complete stages of a build.

    Attributes:
      seeds: tasks as the sources have them.
      tasks: with categories and instructions.
      pairs: candidates of two steps.
      candidates: the LLM stages of each length, by length and name.
      chains: the LLM stages of whole chains, by name.
      selected: the chains that are written.
      annotations: the LLM stages of selected chains, by name.
      every: all stages, in order.
    """

    seeds: Stage
    tasks: Stage
    pairs: Stage
    candidates: dict[int, dict[str, Stage]]
    chains: dict[str, Stage]
    selected: Stage
    annotations: dict[str, Stage]
    every: tuple[Stage, ...]

    @property
    def checked(self) -> dict[int, Stage]:
        """Return the stages of candidates whose last step can follow, by length."""
        return {length: stages["checks"] for length, stages in self.candidates.items()}

    @property
    def answered(self) -> dict[int, Stage]:
        """Return the stages of whole chains, by length."""
        return {length: list(stages.values())[-1] for length, stages in self.candidates.items()}

    @property
    def opinions(self) -> Stage | None:
        """Return the stage of whole chains with a second opinion, if it was asked for."""
        return self.chains.get("opinions")


class Build:
    """Makes the stages of a config.

    Args:
      config: with endpoints resolved.
      runner: keeps the stages and runs them.
      payment: of the language models.
      decisions: of people, on chains that were made before.
      offline: answer from the store of replies alone.
      declined: why the endpoint declined calls of a batch, by the calls' keys.
    """

    def __init__(
        self,
        config: BuildConfig,
        runner: StageRunner,
        payment: Payment,
        decisions: Decisions,
        *,
        offline: bool = False,
        declined: Mapping[str, str] | None = None,
    ) -> None:
        self.config, self._runner, self._payment, self._decisions = config, runner, payment, decisions
        self._offline, self._declined = offline, dict(declined or {})
        self._made: list[Stage] = []

    def run(self) -> BuildResult:
        """Make all stages that are not there.

        Raises:
          Incomplete: a stage has questions without an answer.
          UserError: a source cannot be read.
        """
        seeds = self._seeds()
        tasks = _not_empty(self._ask_in_turn(Position.TASKS, [seeds])[-1][1], self._made)
        pairs = self._pairs(tasks)
        candidates = {2: dict(self._ask_in_turn(Position.CANDIDATES, [pairs], tasks, length=2))}
        for length in self.config.joins.lengths:
            joined = self._joins(length, _last(candidates[length - 1]), _last(candidates[2]), tasks)
            candidates[length] = dict(self._ask_in_turn(Position.CANDIDATES, [joined], tasks, length=length))
        complete = [_last(stages) for stages in candidates.values()]
        chains = dict(self._ask_in_turn(Position.CHAINS, complete, tasks))
        selected = _not_empty(self._select([_last(chains)] if chains else complete, tasks), self._made)
        annotations = self._annotate(selected, tasks)
        return BuildResult(seeds, tasks, pairs, candidates, chains, selected, annotations, tuple(self._made))

    def run_without_asking(self) -> tuple[Stage, Stage]:
        """Make the stages that ask nothing: seeds, and candidates of two steps with definitions for instructions."""
        seeds = self._seeds()
        assumed = self._stage(
            "definitions", [], [seeds], lambda start: {OUT: assumed_tasks.assume(start | rows_of(seeds))}
        )
        return seeds, self._pairs(assumed)

    def _ask_in_turn(
        self, position: Position, inputs: Sequence[Stage], tasks: Stage | None = None, length: int | None = None
    ) -> list[tuple[str, Stage]]:
        """Return the LLM stages of a position: the first reads `inputs`, each later one the one before it."""
        found: list[tuple[str, Stage]] = []
        for entry in llm_stages.at(position, self.config):
            found.append((entry.name, self._ask(entry, inputs, tasks, length)))
            inputs = [found[-1][1]]
        return found

    def _annotate(self, selected: Stage, tasks: Stage) -> dict[str, Stage]:
        """Return the LLM stages of selected chains, by name. None needs another: one batch asks for all of them."""
        found: dict[str, Stage] = {}
        stops: list[tuple[EndpointConfig, Incomplete]] = []
        for entry in llm_stages.at(Position.SELECTED, self.config):
            try:
                found[entry.name] = self._ask(entry, [selected], tasks)
            except Incomplete as stop:
                stops.append((entry.endpoint(self.config), stop))
                if not self._offline:
                    break
        if stops:
            endpoint, first = stops[0]
            others = [stop.folder for other, stop in stops[1:] if other == endpoint]
            raise Incomplete(first.stage, first.folder, first.reasons, others)
        return found

    def _ask(self, entry: LlmStage, inputs: Sequence[Stage], tasks: Stage | None, length: int | None = None) -> Stage:
        endpoint, setting = entry.endpoint(self.config), entry.setting(self.config)
        identity, answerer = self._answerer(endpoint)

        def make(start: beam.Pipeline) -> dict[str, Flow]:
            flows = [start | rows_of(stage) for stage in inputs]
            rows = flows[0] if len(flows) == 1 else tuple(flows) | "all lengths" >> beam.Flatten()
            sides = [_definitions(start | rows_of(tasks))] if entry.needs_definitions and tasks else []
            return llm_stages.ask(entry, rows, answerer, setting, *sides)

        return self._stage(
            entry.name if length is None else f"{entry.name}-{length}",
            [identity, prompt_identity(entry.question_class.prompt), setting],
            [*inputs, tasks] if entry.needs_definitions and tasks else inputs,
            make,
            questions=sum(stage.counts[OUT] for stage in inputs),
            declined_share=endpoint.declined_share,
        )

    def _answerer(self, endpoint: EndpointConfig) -> tuple[Any, tuple[Any, Callable[[], Answerer]]]:
        """Return what an answerer's replies depend on, and its key with a function that makes it."""
        make: Callable[[], Answerer] = Oracle
        identity: Any = ["procedural", _catalogue_identity()]
        payment, offline = self._payment, self._offline
        if self.config.llm == "endpoint":
            make = functools.partial(
                EndpointAnswerer,
                endpoint,
                self.config.store,
                payment.folder,
                payment.dollars,
                offline,
                self._declined,
            )
            identity = endpoint.identity
        key = [identity, endpoint.model_dump(), payment.folder, payment.dollars, offline, self._declined]
        return identity, (key, make)

    def _stage(self, name: str, settings: Any, inputs: Sequence[Stage], make: Any, **asking: Any) -> Stage:
        stage = self._runner.run(name, settings, inputs, make, **asking)
        self._made.append(stage)
        return stage

    def _seeds(self) -> Stage:
        config, seed = self.config.seeds, self.config.seed
        settings = [config.model_dump(), seed, source_hashes(self.config)]
        stage = self._stage("seeds", settings, [], lambda start: ingest(start, config, seed))
        return _not_empty(stage, [stage])

    def _pairs(self, tasks: Stage) -> Stage:
        config, seed = self.config.pairs, self.config.seed
        return self._stage(
            "pairs",
            [config.model_dump(), seed],
            [tasks],
            lambda start: pairing.pair(start | rows_of(tasks), config, seed),
        )

    def _joins(self, length: int, chains: Stage, pairs: Stage, tasks: Stage) -> Stage:
        config, seed = self.config.joins, self.config.seed

        def make(start: beam.Pipeline) -> dict[str, Flow]:
            pair_rows = start | rows_of(pairs)
            chain_rows = pair_rows if chains is pairs else start | rows_of(chains)
            return joining.join(chain_rows, pair_rows, start | rows_of(tasks), config, seed)

        return self._stage(f"joins-{length}", [config.per_categories, config.most, seed], [chains, pairs, tasks], make)

    def _select(self, chains: Sequence[Stage], tasks: Stage) -> Stage:
        config, seed, decisions = self.config.selection, self.config.seed, self._decisions

        def make(start: beam.Pipeline) -> dict[str, Flow]:
            rows = [start | rows_of(stage) for stage in chains]
            return selection.select(rows, start | rows_of(tasks), config, seed, decisions)

        return self._stage("selection", [config.model_dump(), seed, decisions.identity], [*chains, tasks], make)


def _not_empty(stage: Stage, rejecting: Sequence[Stage]) -> Stage:
    """Return a stage that let rows through.

    Args:
      stage: that may have none.
      rejecting: the stages whose rejected rows tell why.

    Raises:
      UserError: it let none through; the most frequent reason is given.
    """
    if stage.counts[OUT]:
        return stage
    field = "seeds.sources" if stage.name == "seeds" else f"stage {stage.name}"
    wrong = "the sources" if stage.name == "seeds" else "the sources, the model"
    raise UserError(field, "no row is left", f"{_main_reason(rejecting)}; correct {wrong} or the settings")


def _main_reason(stages: Sequence[Stage]) -> str:
    """Return why most rows of some stages are rejected, in words."""
    reasons = collections.Counter(row["reason"] for stage in stages for row in stage.read(REJECTED)).most_common(1)
    return f"all rows are rejected, most of them ({reasons[0][1]:,}): {reasons[0][0]}" if reasons else "it has no rows"


def check_composed(built: BuildResult, kept: str) -> None:
    """Check that a build has a chain of several steps, which is what it is for.

    Args:
      built: the build.
      kept: where what was made is found, for the error.

    Raises:
      UserError: it has none; the most frequent reason is given.
    """
    if any(len(row["steps"]) > 1 for row in built.selected.read()):
        return
    candidates = [stage for stages in built.candidates.values() for stage in stages.values()]
    reason = _main_reason([*candidates, *built.chains.values(), built.selected])
    why = reason if built.pairs.counts[OUT] else NO_PAIRS
    hint = f"{why}; {kept}; correct the sources, the model or the settings"
    raise UserError("stage selection", "no chain of several steps is left", hint)


def _last(stages: dict[str, Stage]) -> Stage:
    return list(stages.values())[-1]


def _definitions(tasks: Flow) -> Any:
    """Return a side input: the definition of every task by its id."""
    return beam.pvalue.AsDict(tasks | "definitions" >> beam.Map(lambda row: (row["id"], row["definition"])))


def source_hashes(config: BuildConfig) -> list[list[str]]:
    """Return the name of each source file with a hash of its bytes; for operations a hash of the catalogue."""
    found = []
    for source in config.seeds.sources:
        for path in instruction_sources.paths(source):
            identity = _catalogue_identity() if source.kind == "procedural" else files.sha256(path, "seeds.sources")
            found.append([Path(path).name, identity])
    return found


def _catalogue_identity() -> str:
    return files.digest([[operation.name, *operation.phrasings] for operation in catalogue.OPERATIONS])
