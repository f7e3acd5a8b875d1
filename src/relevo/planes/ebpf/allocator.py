"""Room in one long array, in pieces: lists of servers and hash tables."""

from __future__ import annotations

from bisect import insort


class Allocator:
    """Gives pieces away, the lowest that matches first. A piece that is given back is used again only after ``settle``:
    a CPU may still be reading it.
    """

    def __init__(self, size: int) -> None:
        self._free: list[tuple[int, int]] = [(0, size)]
        self._pending: list[tuple[int, int]] = []

    def allocate(self, count: int) -> int | None:
        """Return where ``count`` entries are free now, ``None`` when they are nowhere."""
        for index, (first, room) in enumerate(self._free):
            if room >= count:
                self._free[index : index + 1] = [(first + count, room - count)] if room > count else []
                return first
        return None

    def reserve(self, first: int, count: int) -> None:
        """Take note that a piece was in use before this allocator was."""
        for index, (free, room) in enumerate(self._free):
            if free <= first and first + count <= free + room:
                parts = [(free, first - free), (first + count, free + room - first - count)]
                self._free[index : index + 1] = [part for part in parts if part[1]]
                return
        raise ValueError(f"extent {first}+{count} is claimed twice")

    def free(self, first: int, count: int) -> None:
        """Return a piece."""
        if count:
            self._pending.append((first, count))

    def reclaim(self) -> None:
        """Make what was given back free, joined with its neighbours."""
        for piece in self._pending:
            insort(self._free, piece)
        self._pending.clear()
        joined: list[tuple[int, int]] = []
        for first, room in self._free:
            if joined and joined[-1][0] + joined[-1][1] == first:
                joined[-1] = (joined[-1][0], joined[-1][1] + room)
            else:
                joined.append((first, room))
        self._free = joined
