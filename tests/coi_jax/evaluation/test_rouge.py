import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from coi_jax.evaluation.rouge import UnicodeTokenizer, rouge_l, rouge_l_unicode

SUPER_NATURAL_INSTRUCTIONS = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
WORDS = ["the", "The", "cats", "cat", "were", "running", "runs", "home,", "é", "1", "-"]
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def test_is_the_scorer_of_super_natural_instructions() -> None:
    pair = ("The cats were running home", "a cat runs to the home")
    assert rouge_l(*pair) == SUPER_NATURAL_INSTRUCTIONS.score(*pair)["rougeL"].fmeasure > 0


@given(SENTENCES, SENTENCES)
def test_is_that_scorer_to_the_last_bit(reference: str, prediction: str) -> None:
    assert rouge_l(reference, prediction) == SUPER_NATURAL_INSTRUCTIONS.score(reference, prediction)["rougeL"].fmeasure


def test_long_texts_are_scored() -> None:
    # The scorer above would make a table of 10⁹ integers.
    begun = time.monotonic()
    assert rouge_l("a b " * 20_000, "b c " * 10_000) == pytest.approx(2 / (2 + 4))
    assert time.monotonic() - begun < 20


def test_best_reference_counts() -> None:
    assert rouge_l(["nothing alike", "the cat"], "the cat") == 1
    assert rouge_l_unicode(["nothing alike", "le chat"], "le chat") == 1


def test_stems_words() -> None:
    assert rouge_l("summaries", "summary") == 1


def test_unicode_sees_what_ascii_deletes() -> None:
    assert rouge_l("ôé", "àù") == rouge_l("ôé", "ôé") == 0
    assert rouge_l_unicode("ôé", "ôé") == 1
    assert rouge_l_unicode("ôé", "àù") == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("L’Été, déjà!", ["l", "été", "déjà"]),
        ("E\u0301te\u0301", ["été"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("Straße 12", ["strasse", "12"]),
        ("— …", []),
        ("今天很好 abc12", ["今", "天", "很", "好", "abc12"]),
        ("東京タワー3号", ["東", "京", "タ", "ワ", "ー", "3", "号"]),
        ("ดีครับ", ["ดี", "ค", "รั", "บ"]),
        ("안녕 하세요", ["안녕", "하세요"]),
    ],
)
def test_unicode_words(text: str, words: list[str]) -> None:
    assert UnicodeTokenizer().tokenize(text) == words


def test_scripts_without_spaces_get_a_share() -> None:
    assert rouge_l_unicode("今天天气很好", "今天天气很") == pytest.approx(10 / 11)
    assert 0.5 < rouge_l_unicode("สวัสดีครับ", "สวัสดีค่ะ") < 1
    assert rouge_l_unicode("今天天气很好", "今天天气很好") == 1
