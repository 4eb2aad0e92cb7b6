"""The table of docs/results/parity.md, from the report of the tests that compare families with transformers and peft.

python -m pytest --junitxml=parity.xml tests/coi_jax/models/test_families.py tests/coi_jax/test_convert.py \\
  tests/coi_jax/weights/test_peft.py
python -m tests.helpers.parity_table parity.xml
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict

COLUMNS = ("logits", "gradients", "greedy tokens", "export", "LoRA")


def table(report: str) -> str:
    """A Markdown table: the largest difference of each family and comparison; of tokens, how many were equal."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for case in ElementTree.parse(report).iter("testcase"):
        family = re.search(r"\[(.+)\]", case.attrib["name"])
        for item in case.iter("property"):
            assert family is not None
            found[family[1]][item.attrib["name"]] = spell(item.attrib["name"], float(item.attrib["value"]))
    rows = [[family, *(cells.get(column, "—") for column in COLUMNS)] for family, cells in found.items()]
    lines = [["family", *COLUMNS], ["---"] * (len(COLUMNS) + 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spell(column: str, value: float) -> str:
    """A count as it is, a difference with one digit; 0 is the same bits."""
    if column == "greedy tokens":
        return f"{value:.0f} of {value:.0f}"
    return f"{value:.0e}" if value else "same bits"


if __name__ == "__main__":
    print(table(sys.argv[1]))
