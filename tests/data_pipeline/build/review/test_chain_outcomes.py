from pathlib import Path

import pytest

from coi_jax.common.errors import UserError
from data_pipeline import curate
from data_pipeline.build.review.chain_outcomes import DISCARDED, FILE, WRITTEN, Outcome, read, write_outcomes
from tests.helpers.drafts import draft, opinion


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder with three chains."""
    found = [Outcome(draft("a", opinion=opinion(5)), WRITTEN), Outcome(draft("b", 3), DISCARDED, "no")]
    write_outcomes(str(tmp_path), [*found, Outcome(draft("c"), WRITTEN)])
    return tmp_path


def test_outcomes_come_back_in_the_order_of_their_ids(work: Path) -> None:
    found = list(read(str(work)))
    assert {one.draft: (one.status, one.reason) for one in found} == {
        draft("a", opinion=opinion(5)): (WRITTEN, ""),
        draft("b", 3): (DISCARDED, "no"),
        draft("c"): (WRITTEN, ""),
    }
    assert [one.draft.id for one in found] == sorted(one.draft.id for one in found)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda lines: [], "is damaged, or of an earlier version"),
        (lambda lines: lines[1:], "is damaged, or of an earlier version"),
        (lambda lines: lines[:-1], "has 2 of 3 chains"),
        (lambda lines: [*lines, lines[-1]], "has 4 of 3 chains"),
        (
            lambda lines: [*lines[:2], lines[2].replace('"composable": true', '"composable": false'), lines[3]],
            ":3: was",
        ),
        (lambda lines: [*lines[:3], lines[3].replace('"steps": [', '"steps": false, "x": [')], ":4: was changed"),
    ],
)
def test_lost_and_changed_chains_are_named(work: Path, damage: object, reason: str) -> None:
    path = work / FILE
    assert callable(damage)
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    path.write_text("".join(f"{line}\n" for line in damage(lines)), encoding="utf-8")
    with pytest.raises(UserError, match=rf"work: {path}.*{reason}.*run the same command of data_pipeline\.build again"):
        curate.main(["--work", str(work), "--no_browser"])
