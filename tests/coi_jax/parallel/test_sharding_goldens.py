import pytest

from tests.helpers import sharding_goldens
from tests.helpers.sharding_goldens import CASES, FOLDER, describe, file_of


@pytest.mark.parametrize("case", CASES, ids=lambda case: file_of(*case).stem)
def test_arrays_lie_where_they_are_known_to_lie(case: tuple[str, str, bool]) -> None:
    """After a change that was meant: `python -m tests.helpers.sharding_goldens`."""
    assert describe(*case) == file_of(*case).read_text(encoding="utf-8")


def test_every_file_is_of_a_case() -> None:
    assert set(FOLDER.iterdir()) == {file_of(*case) for case in CASES}
    assert len({case[0] for case in CASES}) == 9
    assert {case[1] for case in CASES} == set(sharding_goldens.MESHES)
