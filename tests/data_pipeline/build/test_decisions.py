import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coi_jax.common.errors import UserError
from data_pipeline.build import decisions
from data_pipeline.build.decisions import Decisions, agreement, kappa
from tests.helpers.drafts import draft, opinion

ONE = draft("a", opinion=opinion(5))


def written(path: Path, *rows: dict[str, Any]) -> Decisions:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return decisions.read(path)


def test_the_last_decision_on_a_chain_counts(tmp_path: Path) -> None:
    found = written(tmp_path / "d", {"id": ONE.id, "decision": "reject"}, {"id": ONE.id, "decision": "accept"})
    assert found.of(ONE) == "accept"
    assert found.applied(ONE) == ONE
    assert decisions.read(tmp_path / "missing") == Decisions()


def test_an_edit_replaces_instructions_and_outputs_and_keeps_the_rest(tmp_path: Path) -> None:
    steps = [["Say it.", "it"], ["Turn it.", "ti"]]
    left = written(tmp_path / "d", {"id": ONE.id, "decision": "edit", "steps": steps}).applied(ONE)
    assert left
    assert [[step.instruction, step.output] for step in left.steps] == steps
    assert (left.id, left.tasks, left.input_of(2)) == (ONE.id, ONE.tasks, "it")


def test_what_is_rejected_is_gone(tmp_path: Path) -> None:
    assert written(tmp_path / "d", {"id": ONE.id, "decision": "reject"}).applied(ONE) is None


@pytest.mark.parametrize(
    "row",
    [
        {"id": "x"},
        {"decision": "accept"},
        {"id": "x", "decision": "maybe"},
        {"id": "x", "decision": "edit"},
        {"id": "x", "decision": "accept", "steps": [["a", "b"]]},
        {"id": "x", "decision": "edit", "steps": [["a"]]},
        {"id": "x", "decision": "edit", "steps": [[" ", "b"]]},
        {"id": "x", "decision": "edit", "steps": "ab"},
    ],
)
def test_a_line_that_is_no_decision_is_named(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"decisions.*:2"):
        written(tmp_path / "d", {"id": "y", "decision": "accept"}, row)


def test_an_edit_with_another_number_of_steps_is_named(tmp_path: Path) -> None:
    found = written(tmp_path / "d", {"id": ONE.id, "decision": "edit", "steps": [["a", "b"]]})
    with pytest.raises(UserError, match="its edit has 1 steps, the chain 2"):
        found.applied(ONE)


def test_agreement_counts_chains_that_both_judged() -> None:
    drafts = [draft(str(n), opinion=opinion(score)) for n, score in enumerate((5, 5, 2, 2, 4))]
    said = ("accept", "edit", "reject", "accept")
    rows = {one.id: {"id": one.id, "decision": word} for one, word in zip(drafts, said, strict=False)}
    found = agreement(drafts, Decisions(rows))
    assert found["compared"] == 4
    assert found["agreement"] == 0.5
    assert found["decisions"] == {"accept": 2, "edit": 1, "reject": 1}
    assert found["kappa"] == 0


def test_kappa_is_that_of_cohens_formula() -> None:
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert kappa(pairs) == {"agreement": 0.7, "kappa": pytest.approx(0.4)}


@given(st.lists(st.tuples(st.booleans(), st.booleans())))
def test_kappa_is_one_for_equal_verdicts_and_never_more(pairs: list[tuple[bool, bool]]) -> None:
    value = kappa(pairs)["kappa"]
    assert value is None or value <= 1 + 1e-12
    same = kappa([(one, one) for one, _ in pairs])
    assert same["kappa"] in (None, pytest.approx(1))
