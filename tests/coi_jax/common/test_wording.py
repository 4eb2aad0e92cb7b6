import pytest

from coi_jax.common.wording import count_of, with_article


@pytest.mark.parametrize(("number", "said"), [(0, "0 pairs"), (1, "1 pair"), (2, "2 pairs"), (12_345, "12,345 pairs")])
def test_a_noun_agrees_with_its_number(number: int, said: str) -> None:
    assert count_of(number, "pair") == said


@pytest.mark.parametrize(("word", "said"), [("exaone4", "an exaone4"), ("llama", "a llama"), ("OLMo", "an OLMo")])
def test_an_article_agrees_with_its_word(word: str, said: str) -> None:
    assert with_article(word) == said
