"""The interface of a scheduler, and what it reads of a server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol


class Candidate(Protocol):
    """What a scheduler reads of a server."""

    weight: int
    active: int
    inactive: int
    overloaded: bool

    @property
    def place(self) -> tuple[int, int]:
        """Its address folded to 32 bits, and its port: its identity in consistent hashing."""
        ...


def fold(address: int) -> int:
    """Fold an address to 32 bits as IPVS does before hashing: XOR of its words. An IPv4 address stays as it is."""
    return (address ^ address >> 32 ^ address >> 64 ^ address >> 96) & 0xFFFFFFFF


def eligible(server: Candidate) -> bool:
    """Whether a server can take connections: those of weight 0 and overloaded ones cannot (IPVS)."""
    return server.weight > 0 and not server.overloaded


class Scheduler(ABC):
    """Picks among ``servers``, newest first. ``flags`` are those of ipvsadm's ``-b``."""

    def __init__(self, flags: Sequence[str] = ()) -> None:
        self.flags = frozenset(flags)

    def changed(self, servers: Sequence[Candidate], removed: Candidate | None = None) -> None:
        """Update the state: a server was added or edited, or (``removed``) is about to be removed from ``servers``."""
        return

    @abstractmethod
    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        """Pick for a client (address folded to 32 bits, and port); ``None`` when no server can take it."""
