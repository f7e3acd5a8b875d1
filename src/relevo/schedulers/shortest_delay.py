"""sed and nq: the server with the shortest expected delay of a new connection."""

from __future__ import annotations

from collections.abc import Sequence

from relevo.schedulers.base import Candidate, Scheduler, eligible


def delay(server: Candidate) -> int:
    """Return the active connections, the new one included. UDP connections are never active (see ``differences.md``)."""
    return server.active + 1


class ShortestExpectedDelay(Scheduler):
    """Fewest active connections per weight, the new one counted in; the first in the list on ties."""

    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        """Compare by products, so that no precision is lost."""
        best: Candidate | None = None
        for server in servers:
            if not eligible(server):
                continue
            if best is None or delay(best) * server.weight > delay(server) * best.weight:
                best = server
        return best


class NeverQueue(ShortestExpectedDelay):
    """The first server without active connections wins; without one, as sed."""

    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        """Look for an idle server first."""
        idle = next((server for server in servers if eligible(server) and delay(server) == 1), None)
        return idle or super().pick(servers, client, port)
