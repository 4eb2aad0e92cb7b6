"""The test sets of the field."""

import re

CHAIN_TEST = re.compile(r"(coi|proc)([1-9][0-9]*)_test")
WHOLE_SPLITS = ("bbh", "wikilingua_en_fr", "wikilingua_es_en")


def chain_length(name: str) -> int | None:
    """The chain length of a test set, by its name; None where its chains have several lengths or it is no chain's.

    Example: `"coi2_test"` → 2, `"bbh"` → None.
    """
    match = CHAIN_TEST.fullmatch(name)
    return int(match[2]) if match else None
