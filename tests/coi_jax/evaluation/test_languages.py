import importlib.util
import sys

import pytest

from coi_jax.common.errors import UserError
from coi_jax.data import test_sets
from coi_jax.evaluation import languages

TEXTS = {
    "en": "Look up the rules of your town before you call anybody.",
    "fr": "Renseignez-vous sur les règles de votre ville avant d'appeler.",
    "es": "Consulta las normas de tu ciudad antes de llamar a nadie.",
}


@pytest.mark.parametrize("code", TEXTS)
@pytest.mark.parametrize("among", [(), languages.WIKILINGUA])
def test_languages_are_told_apart(code: str, among: tuple[str, ...]) -> None:
    assert languages.detect(TEXTS[code], among) == code


@pytest.mark.parametrize("text", ["", "42 + 7", "…"])
def test_a_text_without_words_is_of_no_language(text: str) -> None:
    assert languages.detect(text, languages.WIKILINGUA) is None


def test_the_detector_knows_the_languages_of_wikilingua() -> None:
    assert set(languages.WIKILINGUA) <= languages.known()
    assert len(languages.WIKILINGUA) == 18


def test_a_package_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lingua", None)
    languages._detector.cache_clear()
    with pytest.raises(UserError, match=r"lingua: .*pip install 'coi-jax\[languages\]'"):
        languages.detect("figs")


def test_a_test_set_that_needs_it_is_refused_before_anything_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    test_sets.check_installed(["wikilingua_en_fr"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    test_sets.check_installed(["coi2_test"])
    with pytest.raises(UserError, match=r"wikilingua_en_fr: is scored with lingua.*pip install"):
        test_sets.check_installed(["coi2_test", "wikilingua_en_fr"])
