"""sh: a client always reaches the same server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from relevo.schedulers.base import Candidate, Scheduler, eligible

BITS: Final = 8
BUCKETS: Final = 1 << BITS
"""Size of the kernel's table (CONFIG_IP_VS_SH_TAB_BITS is 8 everywhere)."""


def hash32(value: int, bits: int) -> int:
    """Return the upper ``bits`` of the kernel's multiplicative hash (golden ratio)."""
    return ((value * 0x61C88647) & 0xFFFFFFFF) >> (32 - bits)


def fill(weights: Sequence[int]) -> list[int]:
    """Return the kernel's table: for each bucket the index of a server; empty without servers."""
    buckets: list[int] = []
    while weights and len(buckets) < BUCKETS:
        for index, weight in enumerate(weights):
            buckets += [index] * max(1, min(weight, BUCKETS))
    return buckets[:BUCKETS]


class SourceHash(Scheduler):
    """Each server fills ``weight`` consecutive buckets, repeatedly in list order; weight 0 still fills one.

    A server that cannot take connections refuses its clients, unless ``sh-fallback`` tries others. ``sh-port`` adds the
    client's port to the hash.
    """

    def __init__(self, flags: Sequence[str] = ()) -> None:
        super().__init__(flags)
        self._buckets: list[Candidate] = []

    def changed(self, servers: Sequence[Candidate], removed: Candidate | None = None) -> None:
        """Fill the table again."""
        staying = [server for server in servers if server is not removed]
        self._buckets = [staying[index] for index in fill([server.weight for server in staying])]

    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        """Look up the client's bucket."""
        if not self._buckets:
            return None
        offset = port if "sh-port" in self.flags else 0
        first = hash32((client + offset) & 0xFFFFFFFF, BITS)
        if eligible(self._buckets[first]):
            return self._buckets[first]
        if "sh-fallback" not in self.flags:
            return None
        walk = (self._buckets[(2 * first + k) % BUCKETS] for k in range(BUCKETS))
        return next(filter(eligible, walk), None)
