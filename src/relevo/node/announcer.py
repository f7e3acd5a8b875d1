"""When which address is announced: bursts, paced by the instance's interval, in the order in which they were asked for.

Announcements never leave in the same breath as the operations that set an address: they are due at once, and ``due`` gives
them out after the driver has carried the operations out, so that a router that fails meanwhile announces nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

MAX_QUEUED: Final = 100_000
"""Announcements that wait: a burst of five for each of twenty thousand addresses. What is beyond is left to the next burst."""


@dataclass(frozen=True, slots=True, order=True)
class Queued:
    """One announcement. ``number`` keeps those that are due together in order."""

    at: float
    number: int
    router: str
    address: str


class Announcer:
    """The queue of all routers of a node."""

    def __init__(self) -> None:
        self._queue: list[Queued] = []
        self._number = 0

    def add(self, router: str, addresses: Iterable[str], count: int, interval_s: float, at: float) -> None:
        """Queue ``count`` announcements of each address from ``at`` on, ``interval_s`` apart."""
        listed = list(addresses)
        for turn in range(count * len(listed)):
            if len(self._queue) >= MAX_QUEUED:
                return
            self._number += 1
            heappush(self._queue, Queued(at + turn * interval_s, self._number, router, listed[turn % len(listed)]))

    def drop(self, has_addresses: Callable[[str], bool]) -> None:
        """Forget what is queued for routers that hold their addresses no longer."""
        if self._queue:
            self._queue = [each for each in self._queue if has_addresses(each.router)]

    def deadline(self) -> float | None:
        """When the next announcement is due."""
        return self._queue[0].at if self._queue else None

    def due(self, now: float) -> list[Queued]:
        """Take the announcements that are due."""
        found: list[Queued] = []
        while self._queue and self._queue[0].at <= now:
            found.append(heappop(self._queue))
        return found
