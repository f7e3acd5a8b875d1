"""wrr: interleaved weighted round robin, with the threshold walk of IPVS."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from relevo.schedulers.base import Candidate, Scheduler, eligible


class WeightedRoundRobin(Scheduler):
    """Walks the list at a falling threshold; a server is picked when its weight reaches it.

    An edit does not restart the cycle unless the threshold is above the new ceiling.
    """

    def __init__(self, flags: Sequence[str] = ()) -> None:
        super().__init__(flags)
        self._cursor = -1  # index of the last pick; -1 is the list head
        self._threshold = 0
        self._step = 1
        self._ceiling = 0

    def changed(self, servers: Sequence[Candidate], removed: Candidate | None = None) -> None:
        """Recompute step and ceiling; the walk starts at the head again."""
        weights = [server.weight for server in servers if server is not removed and server.weight > 0]
        self._cursor = -1
        self._step = gcd(*weights) or 1
        self._ceiling = max(weights, default=0) - (self._step - 1)
        if self._threshold > self._ceiling or self._threshold == 0:
            self._threshold = self._ceiling
        elif self._step > 1:
            self._threshold = self._threshold // self._step * self._step + 1

    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        """Continue the walk from the last pick, with a lower threshold each round."""
        if self._ceiling <= 0 or not any(map(eligible, servers)):
            return None
        while True:
            for index in range(self._cursor + 1, len(servers)):
                if servers[index].weight >= self._threshold and eligible(servers[index]):
                    self._cursor = index
                    return servers[index]
            self._cursor = -1
            self._threshold -= self._step
            if self._threshold <= 0:
                self._threshold = self._ceiling
