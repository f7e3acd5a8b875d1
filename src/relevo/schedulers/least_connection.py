"""lc and wlc: the least loaded server, plain and in proportion to weight."""

from __future__ import annotations

from collections.abc import Sequence

from relevo.schedulers.base import Candidate, Scheduler, eligible


def overhead(server: Candidate) -> int:
    """Return the load of a server as in IPVS: an active connection counts as 256 inactive ones."""
    return server.active * 256 + server.inactive


class LeastConnection(Scheduler):
    """Smallest overhead wins, the first in the list on ties; the size of a weight does not matter."""

    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        return min(filter(eligible, servers), key=overhead, default=None)


class WeightedLeastConnection(Scheduler):
    """Smallest overhead per weight wins, the first in the list on ties."""

    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        """Compare by products, so that no precision is lost."""
        best: Candidate | None = None
        for server in servers:
            if not eligible(server):
                continue
            if best is None or overhead(best) * server.weight > overhead(server) * best.weight:
                best = server
        return best
