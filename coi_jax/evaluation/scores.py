"""The registry of scores: how each is computed from one answer, and where it is shown.

To add a score of whole chains, add an entry to `SCORES` with its function; a score of single steps, to `STEP_SCORES`.
`results.json` has every score; the terminal, table 4 and figure 6 show those whose entry says so.

Content is *right* when it equals the reference after casefolding, however letters and their marks are composed, with
runs of white space as one space and none at the ends. A score that an answer does not have, because a reference is
missing, is None.
"""

import functools
import string
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coi_jax.chains.chain import is_well_formed, parse, render, respell_labels
from coi_jax.common.arguments import checked_fields
from coi_jax.evaluation import languages
from coi_jax.evaluation.rouge import rouge_l, rouge_l_unicode

Outputs = tuple[str | None, ...]

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@checked_fields
@dataclass(frozen=True)
class ScoreKey:
    """The identity of a score: its kind, and the step that it is of (from 1); None for a score of the whole chain."""

    kind: str
    step: int | None = None

    def __str__(self) -> str:
        """Return its spelling in `results.json`: `rouge_l`, or `step2_rouge_l` for a step."""
        return self.kind if self.step is None else f"step{self.step}_{self.kind}"


@checked_fields
@dataclass(frozen=True)
class Answer:
    """A prediction beside its reference.

    Attributes:
      references: the reference output of each step, None where it has none.
      prediction: the text that the model wrote.
      published: the references as one text with its labels, as published; None: in the canonical spelling.
      details: what else the source says of the row, as `Chain.details`.
      languages: the code of the language that is due in each step; empty where any will do.
    """

    references: Outputs
    prediction: str
    published: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    languages: tuple[str, ...] = ()

    @functools.cached_property
    def outputs(self) -> tuple[str, ...]:
        """Return the outputs that the prediction has, labels taken off."""
        return parse(self.prediction)

    @functools.cached_property
    def steps(self) -> dict[int, tuple[str, str | None]]:
        """Return reference and content of each step that has a reference; the content of a missing step is None."""
        contents = (*self.outputs, *(None,) * len(self.references))
        pairs = zip(self.references, contents, strict=False)
        return {k: (reference, content) for k, (reference, content) in enumerate(pairs, 1) if reference is not None}

    @functools.cached_property
    def rouge(self) -> dict[int, float]:
        """Return ROUGE-L of the content of each step that has a reference; a missing step scores 0."""
        return {k: content_rouge_l(reference, content) for k, (reference, content) in self.steps.items()}

    @functools.cached_property
    def right(self) -> dict[int, bool]:
        """Return whether each step that has a reference is right."""
        return {k: is_right(reference, content) for k, (reference, content) in self.steps.items()}

    @functools.cached_property
    def canonical_text(self) -> str:
        """Return the references as one text with its labels in the canonical spelling, a missing one as empty."""
        return render([reference or "" for reference in self.references])

    @functools.cached_property
    def reference_text(self) -> str:
        """Return the references as one text with its labels, as published where that is known."""
        return self.published or self.canonical_text

    @functools.cached_property
    def comparable_text(self) -> str:
        """Return the prediction as it is compared with `reference_text`.

        Its labels are spelled as those of the reference, and steps without a reference have no content.
        """
        if self.published:
            return respell_labels(self.prediction, self.published)
        if None not in self.references or len(self.outputs) == 1:
            return self.prediction
        references = (*self.references, *("",) * len(self.outputs))
        pairs = zip(self.outputs, references, strict=False)
        return render([content if reference is not None else "" for content, reference in pairs])

    @functools.cached_property
    def text_rouge_l(self) -> float | None:
        """Return ROUGE-L of the whole text against the references as published, however its labels are spelled."""
        return rouge_l(self.reference_text, self.comparable_text) if self.steps else None


def is_right(reference: str, content: str | None) -> bool:
    """Return whether a step's content equals its reference but for case, white space, and how letters are composed.

    Args:
      reference: of the step.
      content: what the model wrote; None for a missing step.
    """
    return content is not None and _normalize(content) == _normalize(reference)


def _normalize(text: str) -> str:
    """Return a text as the Unicode Standard compares texts without case (section 3.13), with single spaces."""
    folded = unicodedata.normalize("NFD", text).casefold()
    return " ".join(unicodedata.normalize("NFD", folded).split())


def content_rouge_l(reference: str, content: str | None) -> float:
    """Return ROUGE-L of a step's content.

    A right content scores 1 also where it has no word for ROUGE to compare ("-", "é").
    """
    if content is None:
        return 0.0
    return 1.0 if is_right(reference, content) else rouge_l(reference, content)


def text_rouge_l(answer: Answer) -> float | None:
    """Return ROUGE-L of the whole text, labels included, against the references as published: the paper's score.

    The labels of the answer are spelled as the reference has them, which a model cannot know.
    """
    return answer.text_rouge_l


def verbatim_rouge_l(answer: Answer) -> float | None:
    """Return ROUGE-L of the whole text exactly as it was written, against the references as published."""
    if not answer.published or answer.prediction == answer.comparable_text:
        return answer.text_rouge_l
    return rouge_l(answer.published, answer.prediction)


def canonical_rouge_l(answer: Answer) -> float | None:
    """Return ROUGE-L of the whole text as it was written, against the references in the canonical spelling."""
    if not answer.published:
        return answer.text_rouge_l
    return rouge_l(answer.canonical_text, answer.prediction)


def text_rouge_l_unicode(answer: Answer) -> float | None:
    """Return Unicode-aware ROUGE-L of the whole text, labels included."""
    return rouge_l_unicode(answer.reference_text, answer.comparable_text) if answer.steps else None


def super_ni_exact_match(answer: Answer) -> float | None:
    """Return 1 if the whole text, labels included, equals the reference as Super-NaturalInstructions compares texts."""
    if not answer.steps:
        return None
    return float(_normalize_super_ni(answer.comparable_text) == _normalize_super_ni(answer.reference_text))


def _normalize_super_ni(text: str) -> str:
    """Return a text in lower case, without ASCII punctuation, with single spaces (`eval/automatic/evaluation.py`)."""
    return " ".join(text.lower().translate(_WITHOUT_PUNCTUATION).split())


def mean_content_rouge_l(answer: Answer) -> float | None:
    """Return the mean over the steps of ROUGE-L of their content."""
    return sum(answer.rouge.values()) / len(answer.rouge) if answer.rouge else None


def all_steps_right(answer: Answer) -> float | None:
    """Return 1 if all steps are right, and there is no step more."""
    if not answer.right:
        return None
    return float(all(answer.right.values()) and len(answer.outputs) == len(answer.references))


def final_rouge_l(answer: Answer) -> float | None:
    """Return ROUGE-L of the last output, whatever its number, so that an answer without labels counts."""
    reference = answer.references[-1]
    return None if reference is None else content_rouge_l(reference, answer.outputs[-1])


def final_exact_match(answer: Answer) -> float | None:
    """Return 1 if the last output is right, whatever its number."""
    reference = answer.references[-1]
    return None if reference is None else float(is_right(reference, answer.outputs[-1]))


def has_all_labels(answer: Answer) -> float:
    """Return 1 if the prediction has all labels of its chain, in order."""
    return float(is_well_formed(answer.prediction, len(answer.references)))


@checked_fields
@dataclass(frozen=True)
class Score:
    """A score of whole chains.

    Attributes:
      key: its name in `results.json`.
      title: its heading in tables.
      function: computes it of one answer, in [0, 1].
      column: heading of its column in the terminal's table; None: it has none.
      in_table4: whether table 4 has a section for it.
      panel: heading of its panel of figure 6; None: it has none.
    """

    key: str
    title: str
    function: Callable[[Answer], float | None]
    column: str | None = None
    in_table4: bool = False
    panel: str | None = None


# In the order in which they are written and shown.
SCORES: dict[str, Score] = {
    score.key: score
    for score in (
        Score(
            key="rouge_l",
            title="ROUGE-L of the whole text, labels counted, against references as published (the paper's score)",
            function=text_rouge_l,
            column="ROUGE-L\nwith labels",
            in_table4=True,
        ),
        Score(
            key="rouge_l_verbatim",
            title="ROUGE-L of the whole text as written, against references as published",
            function=verbatim_rouge_l,
        ),
        Score(
            key="rouge_l_canonical",
            title="ROUGE-L of the whole text as written, against references in the canonical spelling of labels",
            function=canonical_rouge_l,
        ),
        Score(
            key="rouge_l_unicode",
            title="Unicode-aware ROUGE-L of the whole text, labels counted",
            function=text_rouge_l_unicode,
        ),
        Score(
            key="super_ni_exact_match",
            title="Exact match of the whole text as Super-NaturalInstructions computes it, %",
            function=super_ni_exact_match,
        ),
        Score(
            key="content_rouge_l",
            title="ROUGE-L of the steps' content, labels taken off",
            function=mean_content_rouge_l,
            column="ROUGE-L\nof content",
            in_table4=True,
            panel="Closeness of the steps' answers\n(ROUGE-L of their content, 0–100)",
        ),
        Score(
            key="content_exact_match",
            title="Whole chains exactly right, %",
            function=all_steps_right,
            column="whole chain\nexact",
            in_table4=True,
            panel="Whole chains exactly right\n(every step, % of chains)",
        ),
        Score(key="final_rouge_l", title="ROUGE-L of the final answer", function=final_rouge_l),
        Score(
            key="final_exact_match",
            title="Final answer exactly right, %",
            function=final_exact_match,
            column="final answer\nexact",
        ),
        Score(
            key="well_formed",
            title="Well-formed chains, %",
            function=has_all_labels,
            column="well\nformed",
            in_table4=True,
        ),
    )
}


def step_rouge_l(answer: Answer, step: int) -> float | None:
    """Return ROUGE-L of the content of a step."""
    return answer.rouge.get(step)


def step_exact_match(answer: Answer, step: int) -> float | None:
    """Return 1 if a step is right."""
    return float(answer.right[step]) if step in answer.right else None


def step_right_after(previous: bool, answer: Answer, step: int) -> float | None:
    """Return 1 if a step is right, over the answers whose previous step is right, or wrong: error propagation.

    Args:
      previous: whether the step before has to be right.
      answer: the one that is scored.
      step: its number, from 1.
    """
    return step_exact_match(answer, step) if answer.right.get(step - 1) is previous else None


def step_in_language(answer: Answer, step: int) -> float | None:
    """Return 1 if what was written for a step is in the language that is due; a missing or empty step is not.

    Args:
      answer: the one that is scored.
      step: its number, from 1.
    """
    if step > len(answer.languages):
        return None
    content = answer.outputs[step - 1] if step <= len(answer.outputs) else ""
    return float(languages.detect(content, languages.WIKILINGUA) == answer.languages[step - 1])


# The scores of single steps, in [0, 1], in the order in which they are written.
EXACT_MATCH, RIGHT_AFTER_RIGHT, RIGHT_AFTER_WRONG = "exact_match", "right_after_right", "right_after_wrong"
STEP_SCORES: dict[str, Callable[[Answer, int], float | None]] = {
    EXACT_MATCH: step_exact_match,
    RIGHT_AFTER_RIGHT: functools.partial(step_right_after, True),
    RIGHT_AFTER_WRONG: functools.partial(step_right_after, False),
    "rouge_l": step_rouge_l,
    "in_language": step_in_language,
}
