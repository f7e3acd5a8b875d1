"""mh: a client always reaches the same server, by a Maglev table (``maglev``)."""

from __future__ import annotations

from collections.abc import Sequence

from relevo.schedulers import maglev
from relevo.schedulers.base import Candidate, Scheduler, eligible


class MaglevHash(Scheduler):
    """Looks clients up in a Maglev table; ``mh-fallback`` hashes again when the server cannot take connections."""

    size = maglev.DEFAULT_SIZE

    def __init__(self, flags: Sequence[str] = ()) -> None:
        super().__init__(flags)
        self._servers: list[Candidate] = []
        self._last_weights: dict[int, int] = {}
        self._table: list[int] = []

    def changed(self, servers: Sequence[Candidate], removed: Candidate | None = None) -> None:
        """Fill the table again, if servers or weights have changed."""
        staying = [server for server in servers if server is not removed]
        weights = {id(server): server.weight or self._last_weights.get(id(server), 0) for server in staying}
        if staying == self._servers and weights == self._last_weights:
            return
        self._servers, self._last_weights = staying, weights
        self._table = maglev.fill([server.place for server in staying], list(weights.values()), self.size)

    def pick(self, servers: Sequence[Candidate], client: int, port: int) -> Candidate | None:
        """Look up the client's slot."""
        if not self._servers or self._table[0] < 0:
            return None
        size = len(self._table)
        value = client + (port if "mh-port" in self.flags else 0)
        first = maglev.hashed(maglev.KEY_1, value) % size
        server = self._servers[self._table[first]]
        if eligible(server):
            return server
        if "mh-fallback" not in self.flags:
            return None
        for tried in range(size):
            slot = maglev.hashed(maglev.KEY_1, value + (tried + first) % size) % size
            server = self._servers[self._table[slot]]
            if eligible(server):
                return server
        return None
