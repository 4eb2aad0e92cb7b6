"""The text of an answer that grows: no half characters, and nothing that a stop text may yet take back."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from coi_jax.tokenizers.protocol import Vocabulary

HALF_A_CHARACTER = "\ufffd"  # what decoders write for bytes that are not yet a character


@dataclass
class TextStream:
    """The text of one answer.

    Attributes:
      vocabulary: that turns tokens into text.
      stops: texts before which the answer ends.
      text: as far as it is certain; the whole once the answer has ended.
      used: tokens that the answer took; those that were written after a stop text do not count.
      stopped: whether a stop text ended it.
    """

    vocabulary: Vocabulary
    stops: tuple[str, ...] = ()
    text: str = ""
    used: int = field(default=0, init=False)
    stopped: bool = field(default=False, init=False)

    def grow(self, tokens: Sequence[int], *, is_last: bool) -> str:
        """Return what is new in the text.

        Args:
          tokens: all of the answer, as far as they are written.
          is_last: whether no more will come.
        """
        if self.stopped:
            return ""
        whole = self.vocabulary.decode(tokens)
        found = [place for place in map(whole.find, self.stops) if place >= 0]
        self.used = len(tokens)
        if found:
            self.stopped, self.used, certain = True, self._first_stop(tokens), whole[: min(found)]
        else:
            certain = whole if is_last else whole[: self._certain(whole)]
        if not certain.startswith(self.text):  # a decoder that writes earlier text anew
            certain = certain if is_last else self.text
        new = certain[len(self.text) :]
        self.text = certain
        return new

    def _first_stop(self, tokens: Sequence[int]) -> int:
        """Return the number of tokens after which a stop text is there."""
        beginnings = (self.vocabulary.decode(tokens[:size]) for size in range(1, len(tokens)))
        return next((size for size, text in enumerate(beginnings, 1) if any(map(text.count, self.stops))), len(tokens))

    def _certain(self, whole: str) -> int:
        """Return how many characters may be shown."""
        certain = len(whole.rstrip(HALF_A_CHARACTER))
        for stop in self.stops:
            for size in range(min(len(stop) - 1, certain), 0, -1):
                if whole.endswith(stop[:size]):
                    certain = min(certain, len(whole) - size)
                    break
        return certain
