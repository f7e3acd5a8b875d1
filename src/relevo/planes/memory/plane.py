"""The memory plane: the user-space table behind the port, with connections opened by the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relevo.model import Endpoint, ServiceKey
from relevo.model.table import Connection, ConnectionFilter, Operation, ServiceState
from relevo.planes.port import Capabilities, Notice, PickRefusal, Refused
from relevo.planes.table import Lease, Server, ServiceTable, capabilities_of_user_space
from relevo.planes.user_space import UserSpace


class MemoryPlane(UserSpace):
    """A plane without packets. ``clock`` gives the time; ``connect`` stands for a client."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self._open: dict[int, tuple[Lease, Endpoint]] = {}
        self._next = 1
        self.table = ServiceTable(self._reset)

    def capabilities(self) -> Capabilities:
        """Everything the user-space table can do."""
        return capabilities_of_user_space("memory")

    async def observe(self) -> list[ServiceState]:
        """Return the table."""
        self.table.expire(self._clock())
        return self.table.observe()

    async def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        """Change the table."""
        return self.table.apply(operations)

    async def connections(self) -> list[Connection]:
        """Return what ``connect`` opened, and the templates."""
        return [*map(_shown, self._open.values()), *self.table.templates(self._clock())]

    async def end(self, meant: ConnectionFilter) -> int:
        """Close connections and forget templates."""
        fits = meant.test()
        handles = [handle for handle, opened in self._open.items() if fits(_shown(opened))]
        return sum(map(self.disconnect, handles)) + self.table.forget(fits, self._clock())

    async def hold(self, held: frozenset[str], moved: frozenset[str]) -> None:
        """Every address is here."""

    def notices(self) -> list[Notice]:
        """Nothing happens by itself."""
        return []

    async def close(self) -> None:
        """Nothing to let go of."""

    async def remove(self, *, keep_connections: bool = False) -> None:
        """Nothing stays."""

    def connect(self, key: ServiceKey, client: Endpoint) -> tuple[int, Endpoint] | PickRefusal:
        """Open a connection; return its handle and the server it went to, or why it was refused."""
        service = self.table.services.get(key)
        if service is None:
            return PickRefusal.NO_SERVICE
        lease = self.table.open(service, client.address, client.port, self._clock(), active=key.protocol == "TCP")
        if isinstance(lease, PickRefusal):
            return lease
        handle, self._next = self._next, self._next + 1
        self._open[handle] = (lease, client)
        return handle, lease.server.entry.endpoint

    def disconnect(self, handle: int) -> bool:
        """Close a connection; False when it was reset before, with its server."""
        if handle not in self._open:
            return False
        self.table.close(self._open.pop(handle)[0])
        return True

    def _reset(self, server: Server) -> None:
        for handle in [h for h, (lease, _) in self._open.items() if lease.server is server]:
            self.table.close(self._open.pop(handle)[0])


def _shown(opened: tuple[Lease, Endpoint]) -> Connection:
    lease, client = opened
    return Connection(
        protocol=lease.service.entry.key.protocol,
        client=client,
        virtual=lease.service.entry.key.endpoint,
        server=lease.server.entry.endpoint,
        state="ESTABLISHED",
    )
