"""Reconciliation of the plane's table: ordered operations from the observed to the desired one. Equal tables give none."""

from __future__ import annotations

from collections.abc import Iterable

from relevo.model import ServiceKey
from relevo.model.table import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    Desired,
    EditServer,
    EditService,
    Operation,
    ServerEntry,
    ServiceState,
)


def reconcile(desired: Iterable[Desired], observed: Iterable[ServiceState]) -> list[Operation]:
    """Return the operations from ``observed`` to ``desired``.

    Removals come first, so that a server's address can change its service. Servers are added in the declared order; the plane's
    list then has the newest first.
    """
    wanted = {item.service.key: item for item in desired}
    present = {state.service.key: state for state in observed}
    operations: list[Operation] = [DeleteService(key) for key in present if key not in wanted]
    for key, item in wanted.items():
        state = present.get(key)
        if state is None:
            operations.append(AddService(item.service))
        elif state.service != item.service:
            operations.append(EditService(item.service))
        present_servers = [server.server for server in state.servers] if state else []
        operations += _servers(key, item.servers, present_servers)
    return operations


def _servers(key: ServiceKey, wanted: tuple[ServerEntry, ...], observed: list[ServerEntry]) -> list[Operation]:
    present = {server.endpoint: server for server in observed}
    kept = {server.endpoint for server in wanted}
    operations: list[Operation] = [DeleteServer(key, endpoint) for endpoint in present if endpoint not in kept]
    for server in wanted:
        if server.endpoint not in present:
            operations.append(AddServer(key, server))
        elif present[server.endpoint] != server:
            operations.append(EditServer(key, server))
    return operations
