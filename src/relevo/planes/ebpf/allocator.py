"""An allocator for ranges of one array, which holds server lists and hash tables."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Collection


class Allocator:
    """Allocates ranges, the lowest that fits first. A freed range is reused only after ``reclaim``, because a CPU may still
    be reading it.
    """

    def __init__(self, size: int) -> None:
        self._free: list[tuple[int, int]] = [(0, size)]
        self._pending: list[tuple[int, int]] = []

    def allocate(self, count: int) -> int | None:
        """Return the first of ``count`` adjacent entries, or ``None`` when there is no such range."""
        for index, (first, room) in enumerate(self._free):
            if room >= count:
                self._free[index : index + 1] = [(first + count, room - count)] if room > count else []
                return first
        return None

    def reserve(self, first: int, count: int) -> None:
        """Mark a range as in use. ``ValueError`` if it is not free."""
        for index, (free, room) in enumerate(self._free):
            if free <= first and first + count <= free + room:
                parts = [(free, first - free), (first + count, free + room - first - count)]
                self._free[index : index + 1] = [part for part in parts if part[1]]
                return
        raise ValueError(f"range {first}+{count} is reserved twice")

    def free(self, first: int, count: int) -> None:
        """Free a range, from the next ``reclaim`` on."""
        if count:
            self._pending.append((first, count))

    def reclaim(self) -> None:
        """Make freed ranges available, merged with adjacent ones."""
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


class Numbers:
    """The free indices of an array, from ``first`` up to ``end``: the lowest that was never used, then the longest unused."""

    def __init__(self, first: int, end: int, used: Collection[int]) -> None:
        self._unused = iter([n for n in range(first, end) if n not in used] if used else range(first, end))
        self._left = end - first - sum(first <= n < end for n in used)
        self._freed: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return self._left + len(self._freed)

    def take(self) -> int:
        """Return an index, which is in use from now on; ``IndexError`` if none is free."""
        if not self._left:
            if not self._freed:
                raise IndexError("no index is free")
            return self._freed.popitem(last=False)[0]
        self._left -= 1
        return next(self._unused)

    def give(self, number: int) -> None:
        """Return an index that is in use no more."""
        self._freed[number] = None

    def take_again(self, number: int) -> None:
        """Take a certain index that was given back and is still free."""
        del self._freed[number]
