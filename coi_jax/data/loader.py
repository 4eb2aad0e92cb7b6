"""The loader: the batch of step s is a pure function of (config, seed, s), whatever the hosts, devices or restarts.

The stream (`mixing`) says in which order examples come, a plan (`step_plans`, `curriculum`) which of them share a row
of step s, and the caches hold their ids. A host reads only the examples of its own rows.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import Int

from coi_jax.chains.chain import Chain
from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.progress import track
from coi_jax.config.run import AllStepsConfig, ExampleBatchConfig, RunConfig
from coi_jax.data.batches import Batch, Pair, fill
from coi_jax.data.curriculum import CurriculumPlan
from coi_jax.data.mixing import Stream
from coi_jax.data.mixture import LengthShare, describe, first_steps, mixing_rates, shares
from coi_jax.data.prompts import cut_prompt
from coi_jax.data.row_shape import Fitted, Lengths, RowShape
from coi_jax.data.step_plans import ExamplesPlan, Rows, TokensPlan
from coi_jax.data.step_weights import TargetWeights, Weights, step_starts
from coi_jax.data.subset import first_examples
from coi_jax.data.target_counts import most_targets, row_targets
from coi_jax.data.token_cache import TokenCache
from coi_jax.tokenizers.protocol import Vocabulary

HELD_PERCENT = 99  # of the examples, by a length that is recommended
THREADS = 2
STEPS_AHEAD = 8
READ_AT_ONCE = 256  # examples whose steps are looked for
BALANCED = "strata"  # how examples are shared out among steps that count them
CAPACITY_STEPS = 32  # so that runs of nearly the same data have the same program
ADDED_FIELDS = ("ratios", "max_examples", "curriculum")  # not in fingerprints of runs that do not set them


@dataclass(frozen=True)
class PlacedExample:
    """An example as a step trains on it.

    Attributes:
      task: of its token cache.
      chain: that it was made from.
      inputs: ids of the prompt, cut where the config says so, without a begin id.
      targets: ids of the answer, cut likewise.
    """

    task: str
    chain: Chain
    inputs: Int[np.ndarray, " inputs"]
    targets: Int[np.ndarray, " targets"]


class Loader:
    """Batches of a mixture of token caches.

    Args:
      config: its sections `data` and `train`, its seed, and its model's kind.
      caches: the arm's, from `cache.ensure`.
      vocabulary: that the caches were written with.
      row_multiple: what the rows of a step must divide by: data-parallel devices × microbatches.

    Attributes:
      rows_per_step: packed rows of a step, over all hosts.
      steps_per_epoch: steps in one pass over the mixture; not a whole number.
      mixture: what each chain length has of the examples, in the order of the caches.
      total_steps: of the run. The last step of a run counted in epochs may have empty rows.
      fingerprint: of all that the batches follow from, but for the length of the run and for empty rows that round
        their number up to a multiple.

    Raises:
      UserError: no example of a cache fits a row, or too few do, or the rows do not hold a step's examples or do not
        divide.
    """

    def __init__(
        self, config: RunConfig, caches: Sequence[TokenCache], vocabulary: Vocabulary, row_multiple: int = 1
    ) -> None:
        self._caches, self._vocabulary = list(caches), vocabulary
        begins = int(vocabulary.bos_id is not None and config.model.kind == "decoder")
        self._shape = RowShape(config.data.length, config.data.targets_length or 0, begins)
        self._places = self._fit(config)
        self._weights = self._weigh(config)
        self._microbatches = config.train.microbatches
        self._plan = self._make_plan(config, row_multiple)
        self.rows_per_step = self._plan.rows
        self.steps_per_epoch, self.total_steps = self._plan.steps_per_epoch, self._plan.total_steps
        self.fingerprint = self._make_fingerprint(config)
        self._of_step = functools.lru_cache(maxsize=2 * STEPS_AHEAD)(self._plan.of_step)

    def _fit(self, config: RunConfig) -> "_Places":
        """Return the examples that are kept, and how many ids of each; counts those that are not."""
        self._cut_prompts: dict[tuple[int, int], np.ndarray] = {}  # by cache and row
        self._starts: dict[tuple[int, int], list[int]] = {}  # of steps, where they differ in their weights
        fitted = [self._shape.fit(cache.lengths, config.data.overlong) for cache in self._caches]
        if config.data.overlong == "cut_inputs":
            fitted = [self._cut_inputs(config, task, part) for task, part in enumerate(fitted)]
        if not isinstance(config.train.loss_on, AllStepsConfig):
            fitted = [self._find_steps(config, task, part) for task, part in enumerate(fitted)]
        self._counts = {
            "examples": sum(map(len, self._caches)),
            "dropped": sum(int((~part.kept).sum()) for part in fitted),
            "cut": sum(int(part.cut.sum()) for part in fitted),
        }
        for cache, part in zip(self._caches, fitted, strict=True):
            if not part.kept.any():
                shortest = int(self._shape.needs(cache.lengths).min(0)[0])
                hint = f"no example of {cache.folder.name} fits a row; the shortest takes {shortest} positions"
                raise UserError("config.data.length", config.data.length, hint)
        if self._counts["dropped"] > config.data.max_dropped * self._counts["examples"]:
            hint = f"{self.overlong_note}; that is more than config.data.max_dropped = {config.data.max_dropped:g}"
            raise UserError("config.data.length", config.data.length, hint)
        kept = [np.flatnonzero(part.kept) for part in fitted]
        if config.data.max_examples is not None:
            chosen = first_examples([len(rows) for rows in kept], config.data.max_examples, config.seed)
            kept = [rows[places] for rows, places in zip(kept, chosen, strict=True)]
        return _Places(kept, np.concatenate([part.lengths[rows] for part, rows in zip(fitted, kept, strict=True)]))

    def _cut_inputs(self, config: RunConfig, task: int, fitted: Fitted) -> Fitted:
        """Return what is kept of a cache's examples, with inputs cut inside of their template; keep those prompts."""
        lengths, kept = fitted.lengths.copy(), fitted.kept.copy()
        data = config.data
        for row in track(np.flatnonzero(fitted.cut).tolist(), "cutting inputs"):
            chain, room = self._caches[task][row].chain, int(lengths[row, 0])
            ids = cut_prompt(chain, data.template, self._vocabulary, data.chat.system, room)
            kept[row] = ids is not None
            if ids is not None:
                lengths[row, 0] = len(ids)
                self._cut_prompts[task, row] = np.array(ids, np.int32)
        return Fitted(lengths, kept, fitted.cut & kept)

    def _find_steps(self, config: RunConfig, task: int, fitted: Fitted) -> Fitted:
        """Keep where the steps of a cache's examples begin; leave out an example whose targets with a loss are cut."""
        rows = np.flatnonzero(fitted.kept)
        for part in track(np.split(rows, range(READ_AT_ONCE, len(rows), READ_AT_ONCE)), "finding steps"):
            for row, example in zip(part.tolist(), self._caches[task].examples(part.tolist()), strict=True):
                self._starts[task, row] = step_starts(example.targets, example.chain, self._vocabulary)
        starts = [self._starts[task, row] for row in rows.tolist()]
        kept = fitted.kept.copy()
        kept[rows] = TargetWeights(config.train.loss_on, starts, fitted.lengths[rows, 1]).spans() > 0
        return Fitted(fitted.lengths, kept, fitted.cut & kept)

    def _weigh(self, config: RunConfig) -> TargetWeights | None:
        """Return the weights of the targets of each example; None where all of them weigh the same."""
        if isinstance(config.train.loss_on, AllStepsConfig):
            return None
        starts = [self._starts[task, row] for task, rows in enumerate(self._places.kept) for row in rows.tolist()]
        return TargetWeights(config.train.loss_on, starts, self._places.lengths[:, 1])

    @property
    def lengths_by_task(self) -> list[Lengths]:
        """Return the numbers of input and target ids of the examples of each cache that are trained on."""
        return np.split(self._places.lengths, np.cumsum([len(rows) for rows in self._places.kept])[:-1])

    @property
    def mixture_note(self) -> str:
        """Return from where the chains of each length come, and how often they are met."""
        return describe(self.mixture)

    @property
    def overlong_note(self) -> str | None:
        """Return how many examples are left out or cut, and what length would hold nearly all; None where none is."""
        counts = self._counts
        if not counts["dropped"] + counts["cut"]:
            return None
        needs = np.concatenate([self._shape.needs(cache.lengths) for cache in self._caches])
        lengths = np.percentile(needs, HELD_PERCENT, axis=0, method="higher").astype(int).tolist()
        names = ("config.data.length", "config.data.targets_length")
        enough = " and ".join(f"{name} = {length}" for name, length in zip(names, lengths, strict=False))
        return (
            f"of {counts['examples']} examples, {counts['dropped']} are longer than a row and left out, and "
            f"{counts['cut']} are cut; {enough} would hold {HELD_PERCENT}% of them whole"
        )

    def _make_plan(self, config: RunConfig, row_multiple: int) -> ExamplesPlan | TokensPlan | CurriculumPlan:
        sizes = [len(rows) for rows in self._places.kept]
        rates = mixing_rates(config, [cache.rate for cache in self._caches], sizes)
        mixing = config.data.mixing if config.data.ratios is None else "rates"
        needs = [self._shape.needs(lengths) for lengths in self.lengths_by_task]
        kind = ExamplesPlan if isinstance(config.data.batch, ExampleBatchConfig) else TokensPlan

        def stream_of(tasks: list[int], seed: int) -> Stream:
            return Stream([sizes[task] for task in tasks], [rates[task] for task in tasks], mixing, seed)

        def plan_of(config: RunConfig, tasks: list[int]) -> ExamplesPlan | TokensPlan:
            own_needs = np.concatenate([needs[task] for task in tasks])
            return kind(config, stream_of(tasks, config.seed), own_needs, self._shape.capacity, row_multiple)

        every, starts = [*range(len(sizes))], first_steps(config)
        epoch, names = stream_of(every, config.seed).block_size, [cache.task for cache in self._caches]
        self.mixture: list[LengthShare] = shares(names, sizes, rates, epoch, starts)
        return plan_of(config, every) if starts is None else CurriculumPlan(config, starts, sizes, plan_of)

    def target_capacity(self, data_parts: int, length_parts: int) -> int:
        """Return a bound on the targets that one device has in a microbatch of any step of the run.

        It is the largest number there is, rounded up to a 32nd of a device's positions.

        Args:
          data_parts: devices that share out the rows of a step.
          length_parts: devices that share out the positions of a row.
        """
        side = self._shape.capacity[-1]
        bounds = np.arange(length_parts + 1) * (side // length_parts)
        needs = self._shape.needs(self._places.lengths)[:, -1]
        targets = self._places.lengths[:, 1] if self._weights is None else self._weights.spans()

        def most(step: int) -> int:
            rows = [row_targets(row, needs, targets, bounds) for row in self._plan.of_step(step)]
            return most_targets(rows, self.rows_per_step, data_parts, self._microbatches)

        unit = max(1, self.rows_per_step * side // (data_parts * self._microbatches * length_parts) // CAPACITY_STEPS)
        largest = max(map(most, track(range(self.total_steps), "counting targets", self.total_steps)))
        return -(-largest // unit) * unit

    def _make_fingerprint(self, config: RunConfig) -> str:
        unset = {name for name in ADDED_FIELDS if getattr(config.data, name) is None}
        data = config.data.model_dump(exclude={"folder", "cache_folder", "max_dropped", *unset})
        caches = [[cache.hash, cache.rate] for cache in self._caches]
        version: list[Any] = [BALANCED] if isinstance(config.data.batch, ExampleBatchConfig) else []
        if self._weights is not None:
            version.append(config.train.loss_on.model_dump())
        return files.digest([config.seed, config.model.kind, data, caches, *version])

    def batch(self, step: int) -> Batch:
        """Return all rows of a step; the arrays of `coi_jax.data.batches.fill`."""
        return self.rows(step, slice(0, self.rows_per_step))

    def examples(self, step: int) -> list[list[PlacedExample]]:
        """Return the examples of each row of a step, in the order in which they stand there.

        Raises:
          IndexError: the run has no such step.
        """
        return [[self._placed(example) for example in row.tolist()] for row in self._rows_of(step)]

    def example_ids(self, step: int) -> list[str]:
        """Return the ids of a step's examples; see `examples`."""
        return [placed.chain.id for row in self.examples(step) for placed in row]

    def _placed(self, example: int) -> PlacedExample:
        task = int(self._places.task_of(np.array([example]))[0])
        [row] = self._places.rows_of(np.array([example]), task)
        cache = self._caches[task]
        [[(inputs, targets)]] = self._read([np.array([example])])
        return PlacedExample(cache.task, cache[row].chain, inputs, targets)

    def _rows_of(self, step: int) -> Rows:
        """Return the numbers of the examples of each row of a step."""
        if not 0 <= step < self.total_steps:
            raise IndexError(f"step {step} of {self.total_steps}")
        return self._of_step(step)

    def rows(self, step: int, part: slice) -> Batch:
        """Return some rows of a step, without reading the others.

        Raises:
          IndexError: the run has no such step.
        """
        rows = self._rows_of(step)
        padded: Rows = [*rows, *[np.zeros(0, np.int64)] * (self.rows_per_step - len(rows))]
        return fill(self._read(padded[part]), self._shape, self._vocabulary, self._weights_of(padded[part]))

    def _weights_of(self, rows: Rows) -> list[list[Weights]] | None:
        weights = self._weights
        return None if weights is None else [[weights.of(example) for example in row.tolist()] for row in rows]

    def _read(self, rows: Rows) -> list[list[Pair]]:
        """Return the ids of the examples of some rows; one read of each cache."""
        examples = np.concatenate([np.zeros(0, np.int64), *rows])
        pairs: dict[int, Pair] = {}
        for task, cache in enumerate(self._caches):
            mine = np.unique(examples[self._places.task_of(examples) == task])
            places = self._places.rows_of(mine, task)
            ids = cache.ids(places) if len(mine) else []
            for example, row, (inputs, targets) in zip(mine.tolist(), places, ids, strict=True):
                prompt = self._cut_prompts.get((task, row), inputs)
                pairs[example] = (prompt, targets[: self._places.lengths[example, 1]])
        return [[pairs[example] for example in row.tolist()] for row in rows]

    def iterate(self, start_step: int, sharding: jax.sharding.Sharding) -> Iterator[dict[str, jax.Array]]:
        """Batches from `start_step` to the end of the run, as global arrays, read ahead by threads.

        A host fills only the rows that lie on its own devices.
        """
        shape = (self.rows_per_step, self._shape.length)
        mine = span(sharding.addressable_devices_indices_map(shape).values(), self.rows_per_step)
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=STEPS_AHEAD)
        steps = grain.MapDataset.range(start_step, self.total_steps).map(lambda step: self.rows(int(step), mine))
        for batch in steps.to_iter_dataset(options):
            yield {name: self._globally(array, mine.start, sharding) for name, array in batch.items()}

    def _globally(self, array: np.ndarray, first: int, sharding: jax.sharding.Sharding) -> jax.Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            rows, columns = index or (slice(None), slice(None))
            start, stop, _ = rows.indices(self.rows_per_step)
            return array[start - first : stop - first, columns]

        return jax.make_array_from_callback((self.rows_per_step, array.shape[1]), sharding, part)

    def statistics(self) -> dict[str, Any]:
        """Return what became of the examples, and how full the rows are.

        `examples`, `dropped`, `cut`: counts. `rows_per_step`, `steps_per_epoch`, `total_steps`. `packing_efficiency`:
        share of positions that are not padding (of the encoder, in a T5; `packing_efficiency_targets` of its decoder):
        over the whole run where a step counts examples, over the first epoch where it counts tokens. `mixture`: what
        each chain length has of the examples.
        """
        names = ("packing_efficiency", "packing_efficiency_targets")
        useful = {name: round(share, 4) for name, share in zip(names, self._plan.useful, strict=False)}
        return {
            **self._counts,
            "rows_per_step": self.rows_per_step,
            "steps_per_epoch": round(self.steps_per_epoch, 2),
            "total_steps": self.total_steps,
            "mixture": [share._asdict() for share in self.mixture],
            **useful,
        }


def span(indices: Iterable[tuple[slice, ...] | None], rows: int) -> slice:
    """Return the rows from the first to the last that some devices hold; an index of None is the whole array."""
    parts = [index[0].indices(rows) if index else (0, rows, 1) for index in indices]
    return slice(min(start for start, _, _ in parts), max(stop for _, stop, _ in parts))


class _Places:
    """The places of the stream's examples: example number → cache and row in it."""

    def __init__(self, kept: list[np.ndarray], lengths: np.ndarray) -> None:
        self.kept, self.lengths = kept, lengths
        self._first = np.cumsum([0, *map(len, kept)])

    def task_of(self, examples: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._first, examples, side="right") - 1

    def rows_of(self, examples: np.ndarray, task: int) -> list[int]:
        rows: list[int] = self.kept[task][examples - self._first[task]].tolist()
        return rows
