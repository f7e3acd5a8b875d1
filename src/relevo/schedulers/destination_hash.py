"""dh: connections to one destination address always reach the same server (transparent caches)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from relevo.schedulers.base import Candidate, Scheduler, eligible
from relevo.schedulers.source_hash import BITS, BUCKETS, hash32

T = TypeVar("T")


def fill(servers: Sequence[T]) -> list[T]:
    """Return the kernel's table: servers in list order, round and round, whatever their weight; empty without servers."""
    return [servers[i % len(servers)] for i in range(BUCKETS)] if servers else []


class DestinationHash(Scheduler):
    """The virtual address decides. A service of one address has one server, so this is for firewall-mark services.

    ``client`` is not used; a plane that knows the destination of a packet sets ``destination`` before it picks.
    """

    def __init__(self, flags: Sequence[str] = ()) -> None:
        super().__init__(flags)
        self.destination = 0
        self._buckets: list[Candidate] = []

    def changed(self, servers: Sequence[Candidate], removed: Candidate | None = None) -> None:
        """Fill the table anew."""
        self._buckets = fill([server for server in servers if server is not removed])

    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        """Look the destination's bucket up."""
        if not self._buckets:
            return None
        server = self._buckets[hash32(self.destination, BITS)]
        return server if eligible(server) else None
