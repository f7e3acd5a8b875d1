"""A virtual clock, and segments that deliver packets to hosts as bytes."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Protocol

LATENCY_S: Final = 0.001


@dataclass(slots=True)
class Segment:
    """A LAN. ``loss`` is the fraction of lost packets; ``cut`` are names of disconnected hosts, ``deaf`` those of
    hosts whose adverts it does not carry, and none to them.

    ``owners`` is what the neighbours believe: which host announced an address last.
    """

    name: str
    loss: float = 0.0
    cut: set[str] = field(default_factory=set)
    deaf: set[str] = field(default_factory=set)
    owners: dict[str, str] = field(default_factory=dict)


class Member(Protocol):
    """A host on the segments of a simulation."""

    name: str

    def deadline(self) -> float | None:
        """When ``expire`` must be called."""
        ...

    def expire(self) -> None:
        """Act on what is due."""
        ...

    def hear(self, segment: str, sender: str, address: str) -> None:
        """Hear that a host has announced an address."""
        ...

    def deliver(self, segment: str, source: str, destination: str, payload: bytes) -> None:
        """Take a packet in."""
        ...


class Simulation:
    """Hosts, segments and scheduled events on a virtual clock that starts at 0."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.hosts: dict[str, Member] = {}
        self.segments: dict[str, Segment] = {}
        self.random = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def segment(self, name: str) -> Segment:
        """Return the segment of a name; create it on first use."""
        return self.segments.setdefault(name, Segment(name))

    def at(self, time: float, what: Callable[[], None]) -> None:
        """Schedule a call; calls of the same time run in the order of scheduling."""
        heapq.heappush(self._events, (time, next(self._order), what))

    def carry(self, sender: Member, segment: str, destination: str, source: str, payload: bytes) -> None:
        """Deliver a packet to the other hosts of a segment."""
        lan = self.segment(segment)
        silent = lan.cut | lan.deaf
        if sender.name in silent:
            return
        for host in self.hosts.values():
            if host is sender or host.name in silent or (lan.loss and self.random.random() < lan.loss):
                continue
            self.at(self.now + LATENCY_S, lambda host=host: host.deliver(segment, source, destination, payload))  # type: ignore[misc]

    def announce(self, sender: Member, segment: str, address: str) -> None:
        """Tell the neighbours, and the other hosts of a segment, that an address is the sender's."""
        lan = self.segment(segment)
        if sender.name in lan.cut:
            return
        self.at(self.now + LATENCY_S, lambda: lan.owners.update({address: sender.name}))
        for host in self.hosts.values():
            if host is not sender and host.name not in lan.cut:
                self.at(self.now + LATENCY_S, lambda host=host: host.hear(segment, sender.name, address))  # type: ignore[misc]

    def run(self, until: float) -> Simulation:
        """Process every event up to then."""
        while (time := self.next_event()) <= until:
            self.now = max(time, self.now)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            for host in list(self.hosts.values()):
                host.expire()
        self.now = until
        return self

    def next_event(self) -> float:
        """Return the time of the next event; infinite if there is none."""
        due = [deadline for host in self.hosts.values() if (deadline := host.deadline()) is not None]
        return min([*due, *(event[0] for event in self._events[:1])], default=float("inf"))
