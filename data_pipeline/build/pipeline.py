"""The way from single instructions to selected chains, stage by stage."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coi_jax.common import files
from coi_jax.llm.settings import EndpointConfig
from data_pipeline.build import instruction_sources
from data_pipeline.build.asking.ask_transform import Answerer, Ask, EndpointAnswerer
from data_pipeline.build.asking.oracle import Oracle
from data_pipeline.build.asking.questions import prompt_identity
from data_pipeline.build.build_config import BuildConfig
from data_pipeline.build.decisions import Decisions
from data_pipeline.build.engine.stage_runner import Stage, StageRunner, rows_of
from data_pipeline.build.stages import joining, judging, linking, pairing, selection, variants, wording
from data_pipeline.build.stages.ingest import ingest
from data_pipeline.build.stages.wording import AskOf
from data_pipeline.procedural import catalogue


@dataclass(frozen=True)
class Payment:
    """What a build may spend: from a folder that knows what was spent, up to some dollars (None: no limit)."""

    folder: str
    dollars: float | None


@dataclass(frozen=True)
class Built:
    """The stages of a build that is whole, by what they hold."""

    seeds: Stage
    tasks: Stage
    pairs: Stage  # candidates of two steps
    checked: dict[int, Stage]  # by length: candidates whose last step can follow
    answered: dict[int, Stage]  # by length: whole chains
    opined: Stage | None
    selected: Stage
    fused: Stage | None
    every: tuple[Stage, ...]  # in order


class Build:
    """Makes the stages of a config, in a workshop.

    Args:
      config: endpoints resolved.
      workshop: where stages are kept and run.
      payment: of the language models.
      decisions: of people, on chains that were made before.
      offline: answer from the store of replies alone.
    """

    def __init__(
        self,
        config: BuildConfig,
        workshop: StageRunner,
        payment: Payment,
        decisions: Decisions,
        *,
        offline: bool = False,
    ) -> None:
        self.config, self._workshop, self._decisions = config, workshop, decisions
        self._made: list[Stage] = []
        self._ask, self._who = self._asking(config.endpoint, payment, offline)
        if config.opinion.enabled:
            self._ask_other, self._other = self._asking(config.opinion.endpoint, payment, offline)

    def _asking(self, endpoint: EndpointConfig, payment: Payment, offline: bool) -> tuple[AskOf, Any]:
        """Who is asked, and what of it decides over the answers."""
        make: Callable[[], Answerer] = Oracle
        identity: Any = ["procedural", _catalogue_identity()]
        if self.config.llm == "endpoint":
            make = functools.partial(
                EndpointAnswerer, endpoint, self.config.store, payment.folder, payment.dollars, offline
            )
            identity = ["endpoint", endpoint.model, endpoint.temperature, endpoint.structured]
        key = [identity, endpoint.model_dump(), payment.folder, payment.dollars, offline]
        return functools.partial(Ask, key, make), identity

    def run(self) -> Built:
        """Makes all stages that are not there.

        Raises:
          Incomplete: a stage has questions without an answer.
          UserError: a source cannot be read.
        """
        config, checked, answered = self.config, {}, {}
        seeds = self._seeds()
        tasks = self._tasks(seeds)
        pairs = self._pairs(tasks)
        checked[2], answered[2] = self._links(2, pairs, tasks)
        for length in config.joins.lengths:
            candidates = self._joins(length, answered[length - 1], answered[2], tasks)
            checked[length], answered[length] = self._links(length, candidates, tasks)
        opined = self._opinions(list(answered.values())) if config.opinion.enabled else None
        selected = self._select([opined] if opined else list(answered.values()), tasks)
        fused = self._fuse(selected) if "fused" in config.variants else None
        return Built(seeds, tasks, pairs, checked, answered, opined, selected, fused, tuple(self._made))

    def ahead(self) -> tuple[Stage, Stage]:
        """The stages that ask nothing: seeds, and candidates of two steps with definitions for instructions."""
        seeds = self._seeds()
        named = self._stage("definitions", [], [seeds], lambda start: {"out": wording.named(start | rows_of(seeds))})
        return seeds, self._pairs(named)

    def _seeds(self) -> Stage:
        config, seed = self.config.seeds, self.config.seed
        return self._stage(
            "seeds",
            [config.model_dump(), seed, source_hashes(self.config)],
            [],
            lambda start: ingest(start, config, seed),
        )

    def _pairs(self, tasks: Stage) -> Stage:
        config, seed = self.config.pairs, self.config.seed
        return self._stage(
            "pairs",
            [config.model_dump(), seed],
            [tasks],
            lambda start: pairing.pair(start | rows_of(tasks), config, seed),
        )

    def _stage(self, name: str, settings: Any, inputs: Sequence[Stage], make: Any, questions: int = 0) -> Stage:
        stage = self._workshop.run(name, settings, inputs, make, questions)
        self._made.append(stage)
        return stage

    def _asked(self, name: str, prompt: str, inputs: Sequence[Stage], make: Any, settings: Any = None) -> Stage:
        """A stage in which the first model is asked about every row of the first input."""
        identity = [self._who, prompt_identity(prompt), settings]
        return self._stage(name, identity, inputs, make, questions=inputs[0].counts["out"])

    def _tasks(self, seeds: Stage) -> Stage:
        sorted_ = self._asked(
            "categories", "categorise", [seeds], lambda start: wording.categorise(start | rows_of(seeds), self._ask)
        )
        return self._asked(
            "instructions", "summarise", [sorted_], lambda start: wording.summarise(start | rows_of(sorted_), self._ask)
        )

    def _links(self, length: int, candidates: Stage, tasks: Stage) -> tuple[Stage, Stage]:
        checked = self._asked(
            f"checks-{length}",
            "check",
            [candidates],
            lambda start: linking.check(start | rows_of(candidates), self._ask),
        )
        longest = self.config.seeds.longest_words

        def answer(start: Any) -> dict[str, Any]:
            definitions = linking.definitions_of(start | rows_of(tasks))
            return linking.answer(start | rows_of(checked), self._ask, definitions, longest)

        return checked, self._asked(f"answers-{length}", "answer", [checked, tasks], answer, longest)

    def _joins(self, length: int, chains: Stage, pairs: Stage, tasks: Stage) -> Stage:
        config, seed = self.config.joins, self.config.seed

        def make(start: Any) -> dict[str, Any]:
            others = start | rows_of(pairs)
            mine = others if chains is pairs else start | rows_of(chains)
            return joining.join(mine, others, start | rows_of(tasks), config, seed)

        return self._stage(f"joins-{length}", [config.per_categories, config.most, seed], [chains, pairs, tasks], make)

    def _opinions(self, chains: Sequence[Stage]) -> Stage:
        least = self.config.opinion.least_score
        return self._stage(
            "opinions",
            [self._other, prompt_identity("judge"), least],
            chains,
            lambda start: judging.opine([start | rows_of(stage) for stage in chains], self._ask_other, least),
            questions=sum(stage.counts["out"] for stage in chains),
        )

    def _select(self, chains: Sequence[Stage], tasks: Stage) -> Stage:
        config, seed, decisions = self.config.selection, self.config.seed, self._decisions

        def make(start: Any) -> dict[str, Any]:
            rows = [start | rows_of(stage) for stage in chains]
            return selection.select(rows, start | rows_of(tasks), config, seed, decisions)

        return self._stage("selection", [config.model_dump(), seed, decisions.identity], [*chains, tasks], make)

    def _fuse(self, selected: Stage) -> Stage:
        return self._asked(
            "fused", "fuse", [selected], lambda start: variants.fuse(start | rows_of(selected), self._ask)
        )


def source_hashes(config: BuildConfig) -> list[list[str]]:
    """The files of a build's sources with hashes of their bytes; of operations, of what they are."""
    found = []
    for source in config.seeds.sources:
        for path in instruction_sources.paths(source):
            known = _catalogue_identity() if source.kind == "procedural" else files.sha256(path)
            found.append([Path(path).name, known])
    return found


def _catalogue_identity() -> str:
    return files.digest([[operation.name, *operation.phrasings] for operation in catalogue.OPERATIONS])
