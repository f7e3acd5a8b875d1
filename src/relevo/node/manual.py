"""Manual changes of the plane's table (``relevo ipvsadm``): services that the configuration does not own, and zeroed counters."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from relevo.model import Endpoint, ServiceKey
from relevo.model.table import AddService, DeleteServer, DeleteService, Operation, ServerState, ServiceState, Traffic

Place = tuple[ServiceKey, Endpoint | None]


@dataclass(slots=True)
class ManualChanges:
    """Exist as long as the balancer. Planes only count up: zeroing stores the present values of counters."""

    services: set[ServiceKey] = field(default_factory=set)
    _zeros: dict[Place, Traffic] = field(default_factory=dict)

    def note(self, operation: Operation, refused: str) -> None:
        """Record a manual operation; ``refused`` is the plane's reason, empty if it succeeded."""
        if refused:
            return
        if isinstance(operation, AddService):
            self.services.add(operation.service.key)
        elif isinstance(operation, DeleteService):
            self.services.discard(operation.key)
        self.forget(operation)

    def forget(self, operation: Operation) -> None:
        """Delete the stored counters of a removed service or server: if it is added again, it counts from 0."""
        if isinstance(operation, DeleteService):
            self._zeros = {place: zero for place, zero in self._zeros.items() if place[0] != operation.key}
        elif isinstance(operation, DeleteServer):
            self._zeros.pop((operation.key, operation.endpoint), None)

    def zero(self, observed: list[ServiceState], key: ServiceKey | None) -> None:
        """Start the counters of a service, or of all services, at 0 now."""
        for state in observed:
            if key in (None, state.service.key):
                self._zeros[state.service.key, None] = state.traffic
                for server in state.servers:
                    self._zeros[state.service.key, server.server.endpoint] = server.traffic

    def since_zero(self, observed: list[ServiceState]) -> list[ServiceState]:
        """Return the table with counters relative to the last zeroing."""
        if not self._zeros:
            return observed
        return [
            msgspec.structs.replace(
                state,
                traffic=self._since(state.traffic, (state.service.key, None)),
                servers=tuple(self._server(server, state.service.key) for server in state.servers),
            )
            for state in observed
        ]

    def _server(self, server: ServerState, key: ServiceKey) -> ServerState:
        return msgspec.structs.replace(server, traffic=self._since(server.traffic, (key, server.server.endpoint)))

    def _since(self, traffic: Traffic, place: Place) -> Traffic:
        zero = self._zeros.get(place)
        if zero is None:
            return traffic
        return Traffic(**{name: max(0, getattr(traffic, name) - getattr(zero, name)) for name in Traffic.__struct_fields__})
