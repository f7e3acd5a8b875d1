"""Services and servers for the tests of the tables of user space."""

from relevo.model import Endpoint, Protocol, ServiceKey
from relevo.model.table import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    ServerEntry,
    ServiceEntry,
)
from relevo.planes.port import PickRefusal
from relevo.planes.table import ServiceTable

KEY = ServiceKey(Protocol.TCP, Endpoint("192.0.2.10", 80))
OTHER = ServiceKey(Protocol.UDP, Endpoint("192.0.2.10", 53))


def entry(key=KEY, **changes):
    return ServiceEntry(key=key, **{"scheduler": "rr", **changes})


def at(name):
    """Endpoint of server A, B, C …"""
    return Endpoint(f"10.0.0.{ord(name) - 64}", 80)


def named(endpoint):
    return chr(64 + int(endpoint.address.rpartition(".")[2]))


def server(name, weight=1, **changes):
    return ServerEntry(endpoint=at(name), weight=weight, **changes)


class Table:
    """A table with one service, and what a caller does with it. Connections are opened at ``now``."""

    def __init__(self, *servers, key=KEY, **changes):
        self.now = 0.0
        self.removed = []
        self.table = ServiceTable(lambda gone: self.removed.append(named(gone.entry.endpoint)))
        self.key = key
        assert self.apply(AddService(entry(key, **changes)), *(AddServer(key, s) for s in servers)) == []

    @property
    def service(self):
        return self.table.services[self.key]

    def apply(self, *operations):
        return [refused.reason for refused in self.table.apply(operations)]

    def add(self, name, weight=1, **changes):
        return self.apply(AddServer(self.key, server(name, weight, **changes)))

    def edit(self, name, weight=1, **changes):
        return self.apply(EditServer(self.key, server(name, weight, **changes)))

    def delete(self, name):
        return self.apply(DeleteServer(self.key, at(name)))

    def delete_service(self):
        return self.apply(DeleteService(self.key))

    def edit_service(self, **changes):
        return self.apply(EditService(entry(self.key, **changes)))

    def server(self, name):
        return self.service.find(at(name))

    def open(self, client="198.51.100.1", **how):
        return self.table.open(self.service, client, 40000, self.now, **how)

    def pick(self, client="198.51.100.1", **how):
        """Name of the server a new connection gets, ``-`` for a refusal."""
        assignment = self.open(client, **how)
        return "-" if isinstance(assignment, PickRefusal) else named(assignment.server.entry.endpoint)

    def picks(self, *clients, **how):
        return "".join(self.pick(client, **how) for client in clients)
