"""The language of a text, detected by lingua, whose models come with its package."""

import functools
from collections.abc import Callable
from types import ModuleType

from coi_jax.common.errors import UserError

# The languages of WikiLingua (Ladhak et al., 2020), by their ISO 639-1 codes: fewer to choose from, fewer errors.
WIKILINGUA = (
    "ar",
    "cs",
    "de",
    "en",
    "es",
    "fr",
    "hi",
    "id",
    "it",
    "ja",
    "ko",
    "nl",
    "pt",
    "ru",
    "th",
    "tr",
    "vi",
    "zh",
)


def detect(text: str, among: tuple[str, ...] = ()) -> str | None:
    """Return the ISO 639-1 code of the language that a text is most likely in; None for one without words, as "42".

    Args:
      text: of any language.
      among: the codes to choose from; none are all that the detector knows.

    Raises:
      UserError: the detector is not installed.
    """
    return _detector(among)(text)


@functools.cache
def known() -> frozenset[str]:
    """Return the codes of all languages that the detector knows."""
    language = _library().Language
    return frozenset(each.iso_code_639_1.name.lower() for each in language.all())


@functools.cache
def _detector(among: tuple[str, ...]) -> Callable[[str], str | None]:
    library = _library()
    builder = library.LanguageDetectorBuilder
    codes = [getattr(library.IsoCode639_1, code.upper()) for code in among]
    detector = (builder.from_iso_codes_639_1(*codes) if codes else builder.from_all_languages()).build()

    def detect(text: str) -> str | None:
        found = detector.detect_language_of(text)
        return None if found is None else str(found.iso_code_639_1.name).lower()

    return detect


def _library() -> ModuleType:
    try:
        import lingua  # lazily: 90 MB of models
    except ImportError:
        hint = "detects languages and is not installed; pip install 'coi-jax[languages]'"
        raise UserError("package", "lingua", hint) from None
    return lingua
