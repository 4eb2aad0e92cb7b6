"""The forms of English words in messages: a count with its noun, and the article before a word."""


def count_of(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, as `1 pair` and `1,234 pairs`.

    Args:
      number: how many there are.
      noun: the word for one.
      plural: the word for several, where that is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def with_article(word: str) -> str:
    """Return a word with its indefinite article by its first letter, as `a llama` and `an exaone4`."""
    return f"an {word}" if word[:1].lower() in ("a", "e", "i", "o") else f"a {word}"
