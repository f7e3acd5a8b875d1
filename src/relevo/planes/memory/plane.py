"""The memory plane: the user-space table behind the port, with connections opened by the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relevo.model import Endpoint, ServiceKey
from relevo.model.table import Connection, ConnectionFilter, Operation, ServiceState
from relevo.planes.port import Capabilities, PickRefusal, PlaneEvent, Refused
from relevo.planes.table import Assignment, Server, ServiceTable, capabilities_of_user_space
from relevo.planes.user_space import UserSpace


class MemoryPlane(UserSpace):
    """A plane without packets. ``clock`` is seconds; ``connect`` acts as a client."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self._open: dict[int, tuple[Assignment, Endpoint]] = {}
        self._next = 1
        self.table = ServiceTable(self._reset)

    def capabilities(self) -> Capabilities:
        return capabilities_of_user_space("memory")

    async def observe(self) -> list[ServiceState]:
        self.table.expire(self._clock())
        return self.table.observe()

    async def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        return self.table.apply(operations)

    async def connections(self) -> list[Connection]:
        """Return the connections that ``connect`` opened, and the templates."""
        return [*map(_to_connection, self._open.values()), *self.table.templates(self._clock())]

    async def drop(self, wanted: ConnectionFilter) -> int:
        """Close connections and remove templates that match; return how many."""
        matches = wanted.test()
        handles = [handle for handle, opened in self._open.items() if matches(_to_connection(opened))]
        return sum(map(self.disconnect, handles)) + self.table.drop_templates(matches, self._clock())

    async def set_local(self, local: frozenset[str], floating: frozenset[str]) -> None:
        """Do nothing: no service depends on an address."""

    def events(self) -> list[PlaneEvent]:
        return []

    async def close(self) -> None:
        """Do nothing."""

    async def remove(self, *, keep_connections: bool = False) -> None:
        """Do nothing."""

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
        """Close a connection; False when it was closed before, or reset with its server."""
        if handle not in self._open:
            return False
        self.table.close(self._open.pop(handle)[0])
        return True

    def _reset(self, server: Server) -> None:
        for handle in [h for h, (assignment, _) in self._open.items() if assignment.server is server]:
            self.table.close(self._open.pop(handle)[0])


def _to_connection(opened: tuple[Assignment, Endpoint]) -> Connection:
    assignment, client = opened
    return Connection(
        protocol=assignment.service.entry.key.protocol,
        client=client,
        virtual=assignment.service.entry.key.endpoint,
        server=assignment.server.entry.endpoint,
        state="ESTABLISHED",
    )
