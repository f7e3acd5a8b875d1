"""What a scheduler sees of a server, and what it must offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol


class Candidate(Protocol):
    """A server as far as scheduling cares."""

    weight: int
    active: int
    inactive: int
    overloaded: bool

    @property
    def place(self) -> tuple[int, int]:
        """Its address folded to 32 bits, and its port: what consistent hashing knows it by."""
        ...


def eligible(server: Candidate) -> bool:
    """Whether walk-type schedulers consider the server: weight 0 and overload are skipped (IPVS)."""
    return server.weight > 0 and not server.overloaded


class Scheduler(ABC):
    """Picks among ``servers``, which stand newest first. ``flags`` are those of ipvsadm's ``-b``."""

    def __init__(self, flags: Sequence[str] = ()) -> None:
        self.flags = frozenset(flags)

    def changed(self, servers: Sequence[Candidate], removed: Candidate | None = None) -> None:
        """Take note that a server was added, edited or (``removed``) is about to leave ``servers``."""
        return

    @abstractmethod
    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        """Pick for a client (address folded to 32 bits, and port); ``None`` when nobody can take it."""
