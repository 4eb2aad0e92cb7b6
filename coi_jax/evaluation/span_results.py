"""`spans.json`: the scores of steps whose places in the answers a language model marked, beside `results.json`.

Its scores are named apart from those of labelled steps: `step1_span_rouge_l` beside `step1_rouge_l`.
"""

from typing import Any

from coi_jax.common import files
from coi_jax.common.errors import UserError
from coi_jax.common.seals import unseal
from coi_jax.common.storage import PathLike, as_path

SPANS = "spans.json"
SPAN_ROUGE_L = "span_rouge_l"  # 0 where the span does not occur in the answer, or is called wrong: as in the paper
SPAN_ROUGE_L_UNJUDGED = "span_rouge_l_unjudged"  # 0 where the span does not occur in the answer
SPAN_FOUND = "span_found"  # whether the answer has a span that occurs in it
MADE_BY = ("judge", "prompt_version", "examples", "asked", "labelled", "unusable")  # what a table says of them
COMMAND = "python -m coi_jax.spans"


def is_of_spans(score: str) -> bool:
    """Return whether a score, as it is spelled in JSON, is of spans that a language model marked."""
    return score.endswith((f"_{SPAN_ROUGE_L}", f"_{SPAN_ROUGE_L_UNJUDGED}", f"_{SPAN_FOUND}"))


def read_spans(folder: PathLike, answers: str) -> dict[str, Any] | None:
    """Return the content of a test set's `spans.json`; None where there is none.

    Args:
      folder: of the run and test set.
      answers: the hash of the answers that `results.json` there is of.

    Raises:
      UserError: the file was changed, or is of other answers than the results.
    """
    path = as_path(folder) / SPANS
    if not path.exists():
        return None
    spans = unseal(files.read_object(path, "spans"), "spans", path, f"run {COMMAND} again", strict=True)
    if spans["predictions"] != answers:
        raise UserError("spans", path, f"is of other answers than results.json; run {COMMAND} again")
    return spans
