"""ROUGE-L as Super-NaturalInstructions computes it, and a Unicode-aware one beside it.

Super-NaturalInstructions (Wang et al., 2022, section 5) scores with `rouge_score`, stemmed, the best over the
references. That package's tokenizer deletes every character outside a–z and 0–9, so that "été" becomes "t"; the Unicode
scorer is the same longest common subsequence over words of any script. Where a script puts no spaces between words, a
word is one character with the marks on it, as in most published scores of such texts.

Words are those of `rouge_score`; the longest common subsequence is rapidfuzz's, which takes a bit for each pair
of words where `rouge_score` takes an object, so that texts of a megabyte can be scored too.
"""

import functools
import unicodedata
from collections.abc import Callable, Sequence

import regex
from rapidfuzz.distance import LCSseq
from rouge_score import scoring

# Scripts that put no spaces between words.
_UNSPACED = "".join(
    rf"\p{{Script_Extensions={name}}}"
    for name in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan")
)
_CHARACTER = rf"[\p{{L}}\p{{N}}&&[{_UNSPACED}]]"
# A character of such a script with its marks, or a run of other letters, marks and digits.
_WORD = regex.compile(rf"{_CHARACTER}\p{{M}}*|[\p{{L}}\p{{M}}\p{{N}}--{_CHARACTER}]+", regex.V1)


class UnicodeTokenizer:
    """Words of any script: runs of letters, marks and digits, composed (NFKC) and casefolded, not stemmed."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text. Example: `"L’Été, déjà!"` → `["l", "été", "déjà"]`, `"你好"` → `["你", "好"]`."""
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        words: list[str] = _WORD.findall(folded)
        return words


@functools.cache
def _stemming_tokenize() -> Callable[[str], list[str]]:
    from rouge_score import tokenizers  # when the first text is scored: it loads all of NLTK and SciPy's statistics

    tokenize: Callable[[str], list[str]] = tokenizers.DefaultTokenizer(use_stemmer=True).tokenize
    return tokenize


def rouge_l(references: str | Sequence[str], prediction: str) -> float:
    """Return ROUGE-L F1 in [0, 1], stemmed, the best over the references."""
    return _best(_stemming_tokenize(), references, prediction)


def rouge_l_unicode(references: str | Sequence[str], prediction: str) -> float:
    """Return ROUGE-L F1 in [0, 1] over words of any script, the best over the references."""
    return _best(UnicodeTokenizer().tokenize, references, prediction)


def _best(tokenize: Callable[[str], list[str]], references: str | Sequence[str], prediction: str) -> float:
    several = [references] if isinstance(references, str) else references
    words = tokenize(prediction)
    return max(_f1(tokenize(one), words) for one in several)


def _f1(reference: Sequence[str], prediction: Sequence[str]) -> float:
    if not reference or not prediction:
        return 0.0
    common = LCSseq.similarity(reference, prediction)
    return float(scoring.fmeasure(common / len(prediction), common / len(reference)))
