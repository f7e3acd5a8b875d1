"""rr: the next eligible server after the last pick."""

from __future__ import annotations

from collections.abc import Sequence

from relevo.schedulers.base import Candidate, Scheduler, eligible


class RoundRobin(Scheduler):
    """Keeps the last pick. When that server is removed, its predecessor takes its place, as in IPVS."""

    def __init__(self, flags: Sequence[str] = ()) -> None:
        super().__init__(flags)
        self._last: Candidate | None = None

    def changed(self, servers: Sequence[Candidate], removed: Candidate | None = None) -> None:
        """Step back when the last pick is removed."""
        if removed is not None and removed is self._last:
            index = _index(servers, removed)
            self._last = servers[index - 1] if index > 0 else None

    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        """Walk the list once, from the server after the last pick."""
        start = 0 if self._last is None else _index(servers, self._last) + 1
        for offset in range(len(servers)):
            server = servers[(start + offset) % len(servers)]
            if eligible(server):
                self._last = server
                return server
        return None


def _index(servers: Sequence[Candidate], wanted: Candidate) -> int:
    return next((i for i, server in enumerate(servers) if server is wanted), -1)
