"""Stage 1: read the sources as seeds, of which none is in both training and tests.

Tasks are split by group, so that tasks made from the same data stay together. Then instances are removed that another
task has too, and training instances whose input, or open output, is in a test task. Closed answers ("yes", "positive")
are shared by nature and stay.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms import combiners

from coi_jax.common import files
from data_pipeline.build import instruction_sources
from data_pipeline.build.build_config import SeedsConfig, SourceConfig
from data_pipeline.build.drafts import Seed
from data_pipeline.build.engine.stage_runner import OUT, REJECTED, Flow
from data_pipeline.build.instruction_sources import Piece, Refused

TRAIN, TEST = "train", "test"
DUPLICATE = "an instance that another task has too"
REPEATED = "a task whose id another task has too"
LEAKS = "an instance of training whose input or output stands in a test task"
WHOLE, TEXT = "whole", "text"  # kinds of fingerprints: of input and output, or of one text
Place = tuple[str, str]  # of an instance: its task and its id
PIECES = "pieces"


def ingest(pipeline: beam.Pipeline, config: SeedsConfig, seed: int) -> dict[str, Flow]:
    """Return the flows of the stage: seeds, and the rows that were refused.

    Args:
      pipeline: to add the stage to.
      config: the sources, and what is taken of them.
      seed: of the choice of instances.
    """
    work = [(source, path) for source in config.sources for path in instruction_sources.paths(source)]
    read = (
        pipeline
        | "sources" >> beam.Create(work)
        | "spread" >> beam.Reshuffle()
        | "read" >> beam.ParDo(_Read(config, seed)).with_outputs(OUT, PIECES, REJECTED)
    )
    merged = (
        read[PIECES]
        | "by task" >> beam.GroupByKey()
        | "merge" >> beam.ParDo(_Merge(config, seed)).with_outputs(OUT, REJECTED)
    )
    seeds = (read[OUT], merged[OUT]) | "all seeds" >> beam.Flatten()
    groups = seeds | beam.Map(lambda seed: seed.group) | beam.Distinct() | combiners.ToList()
    for_tests = groups | "for tests" >> beam.Map(groups_for_tests, config.test_share)
    divided = seeds | "divide" >> beam.Map(_with_split, beam.pvalue.AsSingleton(for_tests))
    kept = _without_leaks(divided)
    refused = (read[REJECTED], merged[REJECTED], kept[REJECTED]) | "all refused" >> beam.Flatten()
    return {OUT: kept[OUT] | "seed rows" >> beam.Map(Seed.row), REJECTED: refused | beam.Map(dataclasses.asdict)}


class _Read(beam.DoFn):
    def __init__(self, config: SeedsConfig, seed: int) -> None:
        self._config, self._seed = config, seed

    def process(self, work: tuple[SourceConfig, str]) -> Iterator[Any]:
        """Yield the seeds of a file, or its pieces by task, and what it has that cannot be used."""
        source, path = work
        match source.kind:
            case "super_ni":
                found: Iterator[Any] = instruction_sources.read_super_ni(path, self._config, self._seed)
            case "procedural":
                found = instruction_sources.read_procedural(path, self._config, self._seed)
            case "dataset":
                found = instruction_sources.require_pieces(instruction_sources.read_dataset(path, source.path), path)
            case _:
                found = instruction_sources.require_pieces(
                    instruction_sources.read_examples(path, source.columns), path
                )
        yield from map(_tagged, found)


class _Merge(beam.DoFn):
    def __init__(self, config: SeedsConfig, seed: int) -> None:
        self._config, self._seed = config, seed

    def process(self, group: tuple[str, Iterable[Piece]]) -> Iterator[Any]:
        """Yield the seed of a task's pieces."""
        yield from map(_tagged, instruction_sources.merge(group[1], self._config, self._seed))


def _tagged(found: Seed | Piece | Refused) -> Any:
    if isinstance(found, Piece):
        return beam.pvalue.TaggedOutput(PIECES, (found.seed.id, found))
    return beam.pvalue.TaggedOutput(REJECTED if isinstance(found, Refused) else OUT, found)


def groups_for_tests(groups: Iterable[str], share: float) -> frozenset[str]:
    """Return the groups whose tasks are for tests: a share of all, with the lowest hashes, at least one of several."""
    ranked = sorted(groups, key=files.digest)
    wanted = round(share * len(ranked))
    return frozenset(ranked[: max(wanted, 1) if share and len(ranked) > 1 else 0])


def _with_split(seed: Seed, for_tests: frozenset[str]) -> Seed:
    return dataclasses.replace(seed, split=TEST if seed.group in for_tests else TRAIN)


def _without_leaks(seeds: Flow) -> dict[str, Flow]:
    """Remove instances from their tasks that occur twice, or in training and in tests."""
    dropped = (
        seeds
        | "fingerprints" >> beam.FlatMap(_fingerprints)
        | "same fingerprints" >> beam.GroupByKey()
        | "to remove" >> beam.FlatMap(_instances_to_remove)
        | "of one task" >> beam.GroupByKey()
    )
    keyed = seeds | "by id" >> beam.Map(lambda seed: (seed.id, seed))
    remaining: dict[str, Flow] = (
        {"seeds": keyed, "dropped": dropped}
        | "with what to remove" >> beam.CoGroupByKey()
        | "remove" >> beam.ParDo(_RemoveInstances()).with_outputs(OUT, REJECTED)
    )
    return remaining


def _fingerprints(seed: Seed) -> Iterator[tuple[tuple[str, str], tuple[str, Place]]]:
    """Yield hashes of what an instance may share with another, with their kind, and the instance's place."""
    for instance in seed.instances:
        place = (seed.split, (seed.id, instance.id))
        given, gave = _plain(instance.input), _plain(instance.output)
        yield (WHOLE, files.digest([given, gave])), place
        if given:
            yield (TEXT, files.digest(given)), place
        if not seed.closed:
            yield (TEXT, files.digest(gave)), place


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _instances_to_remove(
    fingerprint: tuple[tuple[str, str], Iterable[tuple[str, Place]]],
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the instances to remove for a fingerprint that several share: (task, (instance, reason))."""
    (kind, _), found = fingerprint[0], sorted(set(fingerprint[1]))
    if kind == WHOLE:  # TEST sorts before TRAIN, so that the first is a test's where there is one
        yield from ((task, (instance, DUPLICATE)) for _, (task, instance) in found[1:])
    elif found[0][0] == TEST:
        yield from ((task, (instance, LEAKS)) for split, (task, instance) in found if split == TRAIN)


class _RemoveInstances(beam.DoFn):
    def process(self, joined: tuple[str, dict[str, Any]]) -> Iterator[Any]:
        """Yield a seed without some instances, if any is left; of several seeds with one id the first alone."""
        seeds = list(joined[1]["seeds"])
        if len(seeds) > 1:
            seeds.sort(key=lambda seed: files.digest(seed.row()))
        yield from self._without(seeds[0], joined[1]["dropped"])
        for other in seeds[1:]:
            yield beam.pvalue.TaggedOutput(REJECTED, Refused(REPEATED, other.row()))

    def _without(self, seed: Seed, dropped: Iterable[Iterable[tuple[str, str]]]) -> Iterator[Any]:
        reasons = {instance: reason for group in dropped for instance, reason in sorted(group)}
        kept = tuple(instance for instance in seed.instances if instance.id not in reasons)
        for instance in seed.instances:
            if instance.id in reasons:
                row = {"task": seed.id, "instance": dataclasses.asdict(instance)}
                yield beam.pvalue.TaggedOutput(REJECTED, Refused(reasons[instance.id], row))
        if kept:
            yield beam.pvalue.TaggedOutput(OUT, dataclasses.replace(seed, instances=kept))
        else:
            yield beam.pvalue.TaggedOutput(REJECTED, Refused("a task without an instance left", {"task": seed.id}))
