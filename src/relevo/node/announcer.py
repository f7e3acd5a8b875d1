"""The queue of gratuitous ARP and neighbour advertisements: bursts at the interval of the instance, first in, first out.

An announcement is never in the same list of effects as the operation that sets its address. It is due at once, and ``due``
returns it after the driver has executed the operation, so that a router that fails in between announces nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

MAX_QUEUED: Final = 100_000
"""Longest queue: a burst of five for each of 20 000 addresses. Further announcements are dropped; the next burst repeats them."""


@dataclass(frozen=True, slots=True, order=True)
class Queued:
    """One announcement. ``number`` orders those that are due at the same time."""

    at: float
    number: int
    router: str
    address: str


class Announcer:
    """The announcements of all routers of a node."""

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
        """Drop the announcements of routers that no longer have their addresses."""
        if self._queue:
            self._queue = [each for each in self._queue if has_addresses(each.router)]

    def deadline(self) -> float | None:
        """Return when the next announcement is due."""
        return self._queue[0].at if self._queue else None

    def due(self, now: float) -> list[Queued]:
        """Remove and return the announcements that are due."""
        found: list[Queued] = []
        while self._queue and self._queue[0].at <= now:
            found.append(heappop(self._queue))
        return found
