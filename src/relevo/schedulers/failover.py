"""fo and ovf: one server takes every connection; the next takes over when it fails (fo) or is full (ovf)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from relevo.schedulers.base import Candidate, Scheduler, eligible


def _heaviest(servers: Iterable[Candidate]) -> Candidate | None:
    return max(servers, key=lambda server: server.weight, default=None)  # the first on ties


class Failover(Scheduler):
    """The heaviest eligible server."""

    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        return _heaviest(filter(eligible, servers))


class Overflow(Scheduler):
    """The heaviest eligible server with no more active connections than weight: each takes one more than its weight (IPVS)."""

    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        return _heaviest(server for server in servers if eligible(server) and server.active <= server.weight)
