"""Finds the rows of a file that rows of a rewritten copy of it stand for, by their places."""

from collections.abc import Collection, Sequence


def align(candidates: Sequence[Collection[int]]) -> list[int | None]:
    """Return the place in the original of each row of a copy; None for a row that could be at none.

    A copy keeps runs of neighboring rows together. So of the places that a row could have, the one is taken that
    follows the place of the row before it, or leads to that of the next row whose place is certain. No place is given
    twice while another is free.

    Example: `[{0, 1}, {0, 1}]` → `[0, 1]`; `[{5}, {2, 6}]` → `[5, 6]`.

    Args:
      candidates: by row of the copy, the places that it could have.
    """
    taken = {place for places in candidates if len(places) == 1 for place in places}
    found: list[int | None] = []
    shift = 0
    for row, (places, later_shift) in enumerate(zip(candidates, _shifts_after(candidates), strict=True)):
        place = _nearest(places, taken, {row + shift, row + later_shift if later_shift is not None else row + shift})
        found.append(place)
        if place is not None:
            taken.add(place)
            shift = place - row
    return found


def _shifts_after(candidates: Sequence[Collection[int]]) -> list[int | None]:
    """Return by row the place minus the row of the next row whose place is certain."""
    shifts: list[int | None] = []
    shift = None
    for row in range(len(candidates) - 1, -1, -1):
        shifts.append(shift)
        if len(candidates[row]) == 1:
            shift = next(iter(candidates[row])) - row
    return shifts[::-1]


def _nearest(places: Collection[int], taken: Collection[int], expected: Collection[int]) -> int | None:
    free = [place for place in places if place not in taken] or list(places)
    return min(sorted(free), key=lambda place: min(abs(place - each) for each in expected), default=None)
