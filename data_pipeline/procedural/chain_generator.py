"""Chains of the wanted splits, lengths and counts, and the dataset folder that holds them."""

import collections
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from coi_jax.chains.chain import Chain, Step, join
from coi_jax.chains.dataset import DatasetWriter
from coi_jax.common.errors import UserError
from coi_jax.common.progress import track
from coi_jax.common.storage import PathLike
from data_pipeline import variants
from data_pipeline.procedural import splits
from data_pipeline.procedural.compose import Call, Combination, Composer, Limits, Run, Usage, run
from data_pipeline.procedural.operation import Operation

SOURCE = "procedural"
LICENCE = "Apache-2.0"

VALUE_TRIALS = 300
"""Values tried for one combination; a tenth of the inputs belong to a split other than train."""

FAILURES = 300
"""Combinations tried for one chain before giving up."""


@dataclass(frozen=True)
class Settings:
    """The settings of a generation.

    Attributes:
      seed: the same seed and settings give the same bytes.
      operations: to choose from.
      counts: for each split, the number of chains of each length.
      limits: sizes of values.
      one_in: one combination in this many is held out for the split `test`.
      phrasings: how many phrasings of each operation are used; the last one of all is for the split `rephrased`.
      degenerate_share: the largest share of chains with a step that gives back an earlier value.
      variants: of the chains of several steps, written as further splits.
    """

    seed: int
    operations: tuple[Operation, ...]
    counts: Mapping[str, Mapping[int, int]]
    limits: Limits
    one_in: int
    phrasings: int
    degenerate_share: float
    variants: tuple[str, ...] = ()

    def notes(self) -> dict[str, Any]:
        """Return the settings as notes of a manifest, but for the counts, which it has anyway."""
        variants = {"variants": list(self.variants)} if self.variants else {}
        return variants | {
            "seed": self.seed,
            "operations": [operation.name for operation in self.operations],
            "one_in": self.one_in,
            "phrasings": self.phrasings,
            "min_items": self.limits.min_items,
            "max_items": self.limits.max_items,
            "max_characters": self.limits.max_characters,
            "degenerate_share": self.degenerate_share,
        }


class Generator:
    """Makes the chains of one setting and keeps what the manifest says about them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.degenerate = self.made = 0
        self.combinations: dict[tuple[str, int], set[Combination]] = collections.defaultdict(set)
        self._composer = Composer(
            settings.operations, settings.one_in, settings.limits, degenerate=settings.degenerate_share > 0
        )

    def chains(self) -> Iterator[tuple[str, Chain]]:
        """Yield every chain with its split.

        Raises:
          UserError: the operations have no combinations of a wanted length, or there are too few different chains.
        """
        for split, counts in self.settings.counts.items():
            for length, count in counts.items():
                yield from ((split, chain) for chain in self._part(split, length, count))

    def _part(self, split: str, length: int, count: int) -> Iterator[Chain]:
        """Yield `count` different chains of one split and length."""
        random, usage = Random(f"{self.settings.seed} {split} {length}"), Usage()
        seen: set[tuple[str, Combination]] = set()
        for number in range(count):
            found = self._find(split, length, usage, seen, random)
            if found is None:
                raise self._impossible(split, length, number)
            name = f"{SOURCE}-{self.settings.seed}-{split}-{length}-{number:06d}"
            yield self._chain(name, split, found, random)

    def _impossible(self, split: str, length: int, number: int) -> UserError:
        if number:
            hint = "choose more operations, or raise --max_items or --max_characters"
            found = f"only {number} different chains of length {length} were found for split {split}"
            return UserError(f"{split}_count", self.settings.counts[split][length], f"{found}; ask for fewer, {hint}")
        field, kind = ("test_lengths", "held out for test") if split == splits.TEST else ("lengths", "left to teach")
        count = len(self.settings.operations)
        return UserError(
            field,
            length,
            f"no combination of the {count} operations is {kind}; choose more operations or a shorter length",
        )

    def _find(
        self, split: str, length: int, usage: Usage, seen: set[tuple[str, Combination]], random: Random
    ) -> Run | None:
        """Return a run of the least used combination that still has one; None where none has."""
        belongs = functools.partial(_belongs, split)
        for _ in range(FAILURES):
            combination = self._composer.draw(length, split == splits.TEST, usage, random)
            if combination is None:
                return None
            for _ in range(VALUE_TRIALS):
                found = run(combination, random, self.settings.limits, belongs)
                if found and self._is_allowed(found) and (found.input, combination) not in seen:
                    seen.add((found.input, combination))
                    usage.succeed(combination)
                    self._count(split, combination, found)
                    return found
            usage.fail(combination)
        return None

    def _is_allowed(self, found: Run) -> bool:
        return not found.degenerate or self.degenerate < self.settings.degenerate_share * (self.made + 1)

    def _count(self, split: str, combination: Combination, found: Run) -> None:
        self.combinations[split, len(combination)].add(combination)
        self.degenerate += found.degenerate
        self.made += 1

    def _chain(self, name: str, split: str, found: Run, random: Random) -> Chain:
        steps = tuple(self._step(call, split, random) for call in found.calls)
        return Chain(name, SOURCE, found.input, join([step.instruction for step in steps]), steps)

    def _step(self, call: Call, split: str, random: Random) -> Step:
        operation = call.operation
        phrasing = -1 if split == splits.REPHRASED else random.randrange(self.settings.phrasings)
        instruction = operation.instruction(phrasing, call.arguments)
        return Step(instruction, call.output, operation.category, operation.name)

    def notes(self) -> dict[str, Any]:
        """Return the manifest's notes; the combinations let anybody check that splits are disjoint."""
        combinations = self._combination_names()
        return self.settings.notes() | {"degenerate_chains": self.degenerate, "combinations": combinations}

    def _combination_names(self) -> dict[str, dict[str, list[str]]]:
        names: dict[str, dict[str, list[str]]] = collections.defaultdict(dict)
        for (split, length), found in sorted(self.combinations.items()):
            joined = (" > ".join(operation.name for operation in combination) for combination in found)
            names[split][str(length)] = sorted(joined)
        return dict(names)


def _belongs(split: str, text: str) -> bool:
    return splits.input_split(text) == split


def write(settings: Settings, folder: PathLike) -> Generator:
    """Write a dataset folder and return the generator that made it."""
    generator = Generator(settings)
    total = sum(count for counts in settings.counts.values() for count in counts.values())
    groups: dict[tuple[str, int], list[Chain]] = collections.defaultdict(list)
    with DatasetWriter(folder, SOURCE) as writer:
        for split, chain in track(generator.chains(), "generating chains", total):
            writer.add(split, chain)
            if settings.variants and chain.length > 1:
                groups[split, chain.length].append(chain)
        for (split, _), chains in groups.items():
            _write_variants(writer, settings, split, chains)
        writer.finish(LICENCE, generator.notes())
    return generator


def _write_variants(writer: DatasetWriter, settings: Settings, split: str, chains: Sequence[Chain]) -> None:
    """Write the variants of chains of one split and length.

    Args:
      writer: of the dataset.
      settings: say which variants.
      split: that the chains stand in.
      chains: of one length.
    """
    for kind in settings.variants:
        for chain in chains:
            made = variants.compute(kind, chain, chains, settings.seed)
            if made is None:
                writer.reject(chain.row(), variants.NO_OTHER, variant=kind)
            else:
                writer.add(f"{split}_{kind}", made)
