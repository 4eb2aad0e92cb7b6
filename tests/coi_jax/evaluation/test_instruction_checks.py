from typing import Any

import pytest

from coi_jax.evaluation.instruction_checks import CHECKS, followed

# For each kind of instruction: arguments, a response that follows it, and one that does not.
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["fig", "C++"]}, "Figs and c++.", "Figs and C."),
    ("keywords:frequency", {"keyword": "fig", "frequency": 2, "relation": "at least"}, "fig, Fig", "fig"),
    ("keywords:frequency", {"keyword": "fig", "frequency": 2, "relation": "less than"}, "fig", "fig, Fig"),
    ("keywords:forbidden_words", {"forbidden_words": ["fig"]}, "figs are fine", "no Fig here"),
    (
        "keywords:letter_frequency",
        {"letter": "a", "let_frequency": 3, "let_relation": "at least"},
        "A banana",
        "an apple",
    ),
    ("language:response_language", {"language": "fr"}, "Les pommes sont mûres en automne.", "Apples ripen in autumn."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "Only one"),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"}, "“A.” B?\n\n", "A. B. C."),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "three short words", "two words"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo\n***", "one ***  *** two"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        'First.\n\n"then, more',
        "First.\n\nMore then.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [address]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP. S. Eat figs.", "Bye. PS: figs"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S Eat figs.", "Bye.\nP.S. figs"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- two", "* one"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and **two**", "*one* and * *"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1 a SECTION 2",
        "SECTION 1",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<Figs>>\nThey ripen.", "<<>> figs"),
    ("combination:two_responses", {}, "yes\n******\nno", "yes\n******\nyes"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Write. "}, "write. Figs …", "Figs … Write."),
    ("startend:end_checker", {"end_phrase": "The end."}, '"… the end."\n', "The end. Or not"),
    ("startend:quotation", {}, ' "figs" ', '"'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "EAT WELL-DONE figs",
        "EAT figs",
    ),
    ("change_case:english_capital", {}, "WE ARE SURE THAT THE FIGS OF OUR GARDEN WILL RIPEN IN AUTUMN.", "Figs ripen."),
    (
        "change_case:english_lowercase",
        {},
        "we are sure that the figs of our garden will ripen in autumn.",
        "Figs ripen.",
    ),
    (
        "change_case:english_capital",
        {},
        "WE ARE SURE THAT THE FIGS OF OUR GARDEN WILL RIPEN IN AUTUMN.",
        "LES FIGUES SONT MÛRES EN AUTOMNE.",
    ),
    ("punctuation:no_comma", {}, "figs and pears", "figs, pears"),
]


def test_every_kind_of_ifeval_has_a_case() -> None:
    assert {id for id, *_ in CASES} == set(CHECKS)
    assert len(CHECKS) == 25


@pytest.mark.parametrize(("id", "given", "follows", "does_not"), CASES)
def test_a_response_that_follows_is_told_from_one_that_does_not(
    id: str, given: dict[str, Any], follows: str, does_not: str
) -> None:
    assert followed(follows, [id], [given]) == [True]
    assert followed(does_not, [id], [given]) == [False]


@pytest.mark.parametrize("loose", [False, True])
def test_an_empty_response_follows_nothing(loose: bool) -> None:
    assert followed(" \n", ["punctuation:no_comma"], [{}], loose=loose) == [False]


@pytest.mark.parametrize(
    "text",
    ['Sure, here it is:\n{"a": 1}', '{"a": 1}\nI hope, this helps.', 'Sure:\n{"a": 1}\nBye', '*{"a": 1}*'],
)
def test_loosely_the_first_and_last_line_and_asterisks_do_not_count(text: str) -> None:
    ids = ["detectable_format:json_format", "punctuation:no_comma"]
    assert followed(text, ids, [{}, {}], loose=True) == [True, True]
    assert followed(text, ids, [{}, {}])[0] is False
