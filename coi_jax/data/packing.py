"""Packing: several examples share a row, so that few positions are padding.

Best fit decreasing (Johnson 1973): the longest example first, each into the fullest row that still has room. A row may
have two sides (a T5's encoder and decoder), and an example needs room on both.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

# Rows looked at before a new one is opened, where a row has two sides; with one side the first row that is found fits.
MAX_TRIES = 32


class _OpenRows:
    """Rows with room left, by the room on their first side. A bit set of the rooms there are finds the tightest fit."""

    def __init__(self, capacity: Sequence[int]) -> None:
        self._by_room: list[list[tuple[int, int]]] = [[] for _ in range(capacity[0] + 1)]
        self._rooms = 0

    def put(self, row: int, room: int, other_room: int) -> None:
        self._by_room[room].append((row, other_room))
        self._rooms |= 1 << room

    def take(self, need: int, other_need: int) -> tuple[int, int, int] | None:
        """Return the (row, room, other room) that an example fits best, taken out; None where no row was found."""
        room, rooms, tries = need, self._rooms >> need, 0
        while rooms:
            skip = (rooms & -rooms).bit_length() - 1
            room, rooms = room + skip, rooms >> skip
            for place in range(len(self._by_room[room]) - 1, -1, -1):
                if self._by_room[room][place][1] >= other_need:
                    return self._remove(room, place)
                tries += 1
                if tries == MAX_TRIES:
                    return None
            room, rooms = room + 1, rooms >> 1
        return None

    def _remove(self, room: int, place: int) -> tuple[int, int, int]:
        row, other_room = self._by_room[room].pop(place)
        if not self._by_room[room]:
            self._rooms ^= 1 << room
        return row, room, other_room


def pack(needs: Int[np.ndarray, "examples sides"], capacity: Sequence[int]) -> list[list[int]]:
    """Put every example into a row.

    Args:
      needs: positions that an example takes on each of a row's one or two sides.
      capacity: positions that a row has on each side.

    Returns:
      The rows, each the indices of its examples. How many there are depends on the needs alone, not on their order.

    Raises:
      ValueError: an example is longer than a row.
    """
    if (needs > np.array(capacity)).any():
        raise ValueError(f"an example needs more than the {tuple(capacity)} positions of a row")
    smallest = needs.min(0, initial=max(capacity)).tolist()
    open_rows, rows = _OpenRows(capacity), list[list[int]]()
    for index in _longest_first(needs, capacity).tolist():
        need, other_need = int(needs[index, 0]), int(needs[index, -1])
        found = open_rows.take(need, other_need)
        row, room, other_room = found or (len(rows), capacity[0], capacity[-1])
        if found is None:
            rows.append([])
        rows[row].append(index)
        room, other_room = room - need, other_room - other_need
        if room >= smallest[0] and other_room >= smallest[-1]:
            open_rows.put(row, room, other_room)
    return rows


def _longest_first(needs: Int[np.ndarray, "examples sides"], capacity: Sequence[int]) -> Int[np.ndarray, " examples"]:
    """Indices by the larger share of a row's two sides; examples of the same needs stay in their order."""
    share = (needs / np.array(capacity)).max(1)
    order: Int[np.ndarray, " examples"] = np.lexsort((-needs[:, -1], -needs[:, 0], -share))
    return order
