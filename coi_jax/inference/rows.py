"""The rows of a batch in which answers are being written, and what each of them is for.

A row is free, or holds what its answer is for: the place of a prompt in an evaluation, a request to the server.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jaxtyping import Int

from coi_jax.inference import engine, sampling
from coi_jax.inference.decoding import Strategy
from coi_jax.inference.request_decoding import RequestOptions, RequestStrategy
from coi_jax.models.decoder import chunk_length
from coi_jax.models.network import Params

SHORTEST_PAD_LENGTH = 32  # tokens
SHORTEST_PROMPT = 4  # shorter prompts of an encoder are padded to this part of the longest one
NOT_FINITE = (
    "the model's logits are not finite numbers; training diverged, or they need more bits: use an earlier checkpoint, "
    "or config.model.dtype=float32"
)

Holder = TypeVar("Holder")


@dataclass(frozen=True)
class Prompt:
    """The ids that a network is shown; `id` is the key of its random draws, `options` those of a request."""

    id: str
    tokens: Int[np.ndarray, " length"]
    options: RequestOptions | None = None


@runtime_checkable
class Programs(Protocol):
    """What rows need of their generator."""

    params: Params
    strategy: Strategy
    seed: int
    multiple: int
    shapes: set[tuple[str, int, int]]
    steps: int
    reused: int


def pad_length(length: int) -> int:
    """Return the length that a prompt is padded to: the next power of two."""
    return max(SHORTEST_PAD_LENGTH, 1 << (length - 1).bit_length())


@dataclass
class Rows(Generic[Holder]):
    """The rows of a batch.

    Attributes:
      programs: the parameters and the way of decoding.
      count: of the rows.
      longest: tokens of the longest prompt that they have room for, padding included.
    """

    programs: Programs
    count: int
    longest: int
    _holders: dict[int, Holder] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        empty = engine.empty_rows(self.programs.strategy, self.count, self.longest, self.programs.multiple)
        # Committed to their devices, as parameters of a checkpoint are, or `insert` would be compiled a second time.
        self._state, self._kept = jax.tree.map(lambda leaf: jax.device_put(leaf, leaf.sharding), empty)
        self._last_read = np.zeros((self.programs.multiple, 0), np.int32)
        self.programs.shapes |= {(program, self.count, self.longest) for program in ("empty", "decode")}

    @property
    def busy(self) -> int:
        """Return the number of rows that hold something."""
        return len(self._holders)

    @property
    def room(self) -> int:
        """Return the number of prompts that may be put at once: those of free rows, as many as are read together."""
        return min(self.count - self.busy, self.programs.multiple)

    def held(self) -> list[tuple[int, Holder]]:
        """Return the rows that hold something, with what they hold."""
        return sorted(self._holders.items(), key=lambda item: item[0])

    def put(self, asked: Sequence[tuple[Holder, Prompt]]) -> None:
        """Read prompts into free rows, at most `room` of them.

        Args:
          asked: what each answer is for, and its prompt.
        """
        free = [row for row in range(self.count) if row not in self._holders][: len(asked)]
        self._holders |= {row: holder for row, (holder, _) in zip(free, asked, strict=True)}
        self._insert(free, [prompt for _, prompt in asked])

    def decode(self, max_active: int, max_steps: int | None = None) -> engine.Progress:
        """Write tokens until few rows go on; return what there is to see.

        Args:
          max_active: the number of rows that go on at which to stop.
          max_steps: the number of steps after which to stop in any case, if any.
        """
        bound = None if max_steps is None else np.int32(max_steps)
        programs = self.programs
        progress: engine.Progress
        self._state, progress = engine.decode(
            programs.strategy, programs.params, self._state, np.int32(max_active), bound
        )
        programs.steps += int(progress.steps)
        return progress

    def free(self, rows: Sequence[int]) -> None:
        """Free rows whose answers have ended."""
        for row in rows:
            del self._holders[row]

    def release(self, rows: Sequence[int]) -> None:
        """End the answers of rows, and free these."""
        self._state = engine.release(self._state, np.isin(np.arange(self.count), rows))
        self.free(rows)

    def cut(self, written: Int[np.ndarray, " T"]) -> list[int]:
        """Return the tokens of an answer before its end-of-sequence token."""
        ends = np.flatnonzero(written == self.programs.strategy.eos_id)
        tokens: list[int] = written[: ends[0] if len(ends) else None].tolist()
        return tokens

    def _insert(self, rows: list[int], prompts: list[Prompt]) -> None:
        programs, count, length = self.programs, self.programs.multiple, self._width(prompts)
        tokens, lengths = np.zeros((count, length), np.int32), np.ones(count, np.int32)
        places, draws = np.full(count, self.count, np.int32), np.zeros((count, 2), np.uint32)
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            tokens[place, : len(prompt.tokens)] = prompt.tokens
            lengths[place], places[place] = len(prompt.tokens), row
            seed = programs.seed if prompt.options is None else prompt.options.seed
            draws[place] = seed % 2**32, sampling.id_hash(prompt.id)
        read, options = np.int32(self._already_read(tokens, lengths[: len(rows)])), self._pack(prompts, count)
        asked = (read, tokens, lengths, places, draws)
        self._state, self._kept = engine.insert(
            programs.strategy, programs.params, self._state, self._kept, *asked, self.longest, options
        )
        self._last_read = tokens
        programs.reused += int(read) * len(rows)
        programs.shapes.add((f"insert {length}", self.count, self.longest))

    def _already_read(self, tokens: Int[np.ndarray, "P L"], lengths: Int[np.ndarray, " p"]) -> int:
        """Return how many tokens the first p prompts share with those that were read before, each with one of these.

        They are whole chunks, computed by the same operations, so that no answer depends on what was read before; the
        last token of each prompt is read in any case.
        """
        if self._kept is None:
            return 0
        chunk, count = chunk_length(self.longest), self._last_read.shape[1]
        is_other = tokens[: len(lengths), :count] != self._last_read[: len(lengths)]
        shared = min(int(np.argmax(row)) if row.any() else count for row in is_other)
        return min(shared, int(lengths.min()) - 1) // chunk * chunk

    def _pack(self, prompts: list[Prompt], count: int) -> object:
        """Return the options of prompts as arrays, None where the way of decoding has none."""
        if not isinstance(self.programs.strategy, RequestStrategy):
            return None
        asked = [prompt.options for prompt in prompts if prompt.options is not None]
        return self.programs.strategy.pack(asked, count)

    @property
    def widths(self) -> list[int]:
        """Return a length of prompts for each program that reads them: a decoder reads all in chunks of one length."""
        if self.programs.strategy.network.config.kind == "decoder":
            return [1]
        shortest = max(SHORTEST_PAD_LENGTH, self.longest // SHORTEST_PROMPT)
        return [shortest << power for power in range((self.longest // shortest).bit_length())]

    def _width(self, prompts: Sequence[Prompt]) -> int:
        """Return the length that prompts are padded to, one of few: an encoder reads all of it, a decoder in chunks."""
        if self.programs.strategy.network.config.kind == "decoder":
            return self.longest
        return max(pad_length(max(len(prompt.tokens) for prompt in prompts)), self.longest // SHORTEST_PROMPT)
