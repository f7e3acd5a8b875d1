"""The memory plane: the user-space table behind the port, with connections opened by the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relevo.model import Endpoint, ServiceKey
from relevo.model.table import Connection, ConnectionFilter, Operation, ServiceState
from relevo.planes.port import Capabilities, PickRefusal, PlaneEvent, Refused
from relevo.planes.table import Assignment, Server, ServiceTable, capabilities_of_user_space
from relevo.planes.user_space import UserSpace


class MemoryPlane(UserSpace):
    """A plane without packets. ``clock`` gives the time; ``connect`` stands for a client."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self._open: dict[int, tuple[Assignment, Endpoint]] = {}
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

    async def drop(self, wanted: ConnectionFilter) -> int:
        """Close connections and forget templates."""
        matches = wanted.test()
        handles = [handle for handle, opened in self._open.items() if matches(_shown(opened))]
        return sum(map(self.disconnect, handles)) + self.table.forget(matches, self._clock())

    async def set_local(self, local: frozenset[str], floating: frozenset[str]) -> None:
        """Every address is here."""

    def events(self) -> list[PlaneEvent]:
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
        assignment = self.table.open(service, client.address, client.port, self._clock(), active=key.protocol == "TCP")
        if isinstance(assignment, PickRefusal):
            return assignment
        handle, self._next = self._next, self._next + 1
        self._open[handle] = (assignment, client)
        return handle, assignment.server.entry.endpoint

    def disconnect(self, handle: int) -> bool:
        """Close a connection; False when it was reset before, with its server."""
        if handle not in self._open:
            return False
        self.table.close(self._open.pop(handle)[0])
        return True

    def _reset(self, server: Server) -> None:
        for handle in [h for h, (assignment, _) in self._open.items() if assignment.server is server]:
            self.table.close(self._open.pop(handle)[0])


def _shown(opened: tuple[Assignment, Endpoint]) -> Connection:
    assignment, client = opened
    return Connection(
        protocol=assignment.service.entry.key.protocol,
        client=client,
        virtual=assignment.service.entry.key.endpoint,
        server=assignment.server.entry.endpoint,
        state="ESTABLISHED",
    )
