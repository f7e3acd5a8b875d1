"""The table of virtual services in a data plane: entries, operations on them, and their observed state.

The vocabulary is that of IPVS. ``machines.pool`` computes desired entries, ``planes`` store them, ``observe`` reports them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

import msgspec

from relevo.model.configuration import PlaneTimeouts
from relevo.model.endpoint import Endpoint, Protocol
from relevo.model.services import Forwarding, ServiceKey, Tunnel


class ServiceEntry(msgspec.Struct, frozen=True, kw_only=True):
    """How a service schedules connections. ``persistence_timeout_s`` 0 is off; the granularity is a prefix length.

    With ``one_packet`` every datagram is scheduled by itself and creates no connection. With ``refuses_by_reset`` a client gets
    a TCP reset instead of an ICMP error when the service has no server.
    """

    key: ServiceKey
    scheduler: str = "wlc"
    scheduler_flags: tuple[str, ...] = ()
    one_packet: bool = False
    refuses_by_reset: bool = False
    persistence_timeout_s: int = 0
    persistence_granularity: int = 32


class ServerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One server of a service. Weight 0 takes no new connections, threshold 0 is off, ``local_addresses`` are for FULLNAT."""

    endpoint: Endpoint
    weight: int = 1
    forwarding: Forwarding = Forwarding.NAT
    tunnel: Tunnel = Tunnel()
    local_addresses: tuple[str, ...] = ()
    upper_threshold: int = 0
    lower_threshold: int = 0
    proxy_protocol: int = 0


class Desired(msgspec.Struct, frozen=True):
    """A service and its servers, in the order of their addition."""

    service: ServiceEntry
    servers: tuple[ServerEntry, ...] = ()


# -- operations of a plane -------------------------------------------------------------------------------------------


class AddService(msgspec.Struct, frozen=True, tag=True):
    """Create a service without servers."""

    service: ServiceEntry


class EditService(msgspec.Struct, frozen=True, tag=True):
    """Change the settings of a service; its connections stay."""

    service: ServiceEntry


class DeleteService(msgspec.Struct, frozen=True, tag=True):
    """Remove a service with its servers."""

    key: ServiceKey


class AddServer(msgspec.Struct, frozen=True, tag=True):
    """Add a server at the head of a service's list, as IPVS does."""

    key: ServiceKey
    server: ServerEntry


class EditServer(msgspec.Struct, frozen=True, tag=True):
    """Change a server in place."""

    key: ServiceKey
    server: ServerEntry


class DeleteServer(msgspec.Struct, frozen=True, tag=True):
    """Remove a server. The plane resets its connections if it can; otherwise they hang until they time out."""

    key: ServiceKey
    endpoint: Endpoint


Operation = AddService | EditService | DeleteService | AddServer | EditServer | DeleteServer


# -- observation ------------------------------------------------------------------------------------------------------


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Connections, packets and bytes since the entry was made; *in* is towards the server. The proxy plane counts no packets."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """A server as the plane reports it. ``active``, ``inactive`` and ``persistent`` count connections."""

    server: ServerEntry
    active: int = 0
    inactive: int = 0
    persistent: int = 0
    overloaded: bool = False
    traffic: Traffic = Traffic()


class ServiceState(msgspec.Struct, frozen=True, kw_only=True):
    """A service as the plane reports it; ``listening`` is empty, or says why the service cannot accept connections."""

    service: ServiceEntry
    servers: tuple[ServerState, ...] = ()
    traffic: Traffic = Traffic()
    refused: dict[str, int] = {}
    listening: str = ""


class PlaneSettings(msgspec.Struct, frozen=True):
    """Settings of a plane. ``table_size`` is the number of buckets of the connection table; 0 if it has none."""

    table_size: int = 0
    timeouts: PlaneTimeouts = PlaneTimeouts()


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """One connection, or a persistence template if ``template`` is set (its ``client`` port is 0).

    ``mark`` is the firewall mark of a template's service, else 0. ``expires_s`` is in seconds from now.
    """

    protocol: Protocol
    client: Endpoint
    virtual: Endpoint
    server: Endpoint
    mark: int = 0
    state: str
    expires_s: float | None = None
    template: bool = False


class SyncRole(enum.StrEnum):
    """Role of a node in connection synchronisation: a master sends, a backup receives."""

    MASTER = "master"
    BACKUP = "backup"


class SyncPeer(msgspec.Struct, frozen=True, kw_only=True):
    """Another director with the same key: its state, the number of its messages that are missing here, and of ours there."""

    address: str
    state: str
    heard_at: float
    missing_here: int
    missing_there: int


class SyncState(msgspec.Struct, frozen=True, kw_only=True):
    """State of connection synchronisation in a plane. A field is ``None`` if the plane cannot know it.

    ``local`` counts the connections of this node, ``received`` those that another node synced, ``waiting`` those whose server is
    not in the table; ``refused`` counts discarded entries by reason. ``in_sync`` and ``directors`` exist only with a key. Times
    are Unix seconds. ``problem`` is empty, or says why synchronisation does not work.
    """

    roles: tuple[SyncRole, ...] = ()
    interface: str = ""
    sync_id: int = 0
    group: str = ""
    peers: tuple[str, ...] = ()
    port: int = 0
    local: int | None = None
    received: int | None = None
    waiting: int = 0
    entries_sent: int | None = None
    entries_received: int | None = None
    last_sent_at: float | None = None
    last_received_at: float | None = None
    refused: dict[str, int] = {}
    in_sync: bool | None = None
    directors: tuple[SyncPeer, ...] = ()
    problem: str = ""


class SyncTask(msgspec.Struct, frozen=True, kw_only=True):
    """Connection synchronisation that a plane must do: with a multicast ``group``, or with ``peers`` if there are any.

    ``max_length`` 0 fits an Ethernet frame. A backup listens on ``ports`` ports from ``port`` on, one for each thread of a
    kernel's master. With a ``key_file``, messages are authenticated, and others are refused.
    """

    roles: frozenset[SyncRole]
    interface: str
    sync_id: int
    max_length: int = 0
    group: str = "224.0.0.81"
    port: int = 8848
    ttl: int = 1
    ports: int = 1
    peers: tuple[str, ...] = ()
    key_file: str = ""


class ConnectionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects the connections that match every given field.

    Addresses are literals or networks (``10.0.0.0/8``), port 0 is any port. ``templates`` False excludes persistence templates,
    True selects only them.
    """

    protocol: Protocol | None = None
    client: str = ""
    client_port: int = 0
    virtual: str = ""
    virtual_port: int = 0
    server: str = ""
    server_port: int = 0
    state: str = ""
    templates: bool | None = None

    def test(self) -> Callable[[Connection], bool]:
        """Return the predicate of this filter; ``ValueError`` for an invalid address."""
        tests: list[Callable[[Connection], bool]] = []
        if self.protocol is not None:
            tests.append(lambda connection: connection.protocol is self.protocol and not connection.mark)
        if self.state:
            tests.append(lambda connection: connection.state == self.state)
        if self.templates is not None:
            tests.append(lambda connection: connection.template is self.templates)
        for name in ("client", "virtual", "server"):
            tests += _end_tests(name, getattr(self, name), getattr(self, f"{name}_port"))
        return lambda connection: all(matches(connection) for matches in tests)


def _end_tests(name: str, address: str, port: int) -> Iterator[Callable[[Connection], bool]]:
    if port:
        yield lambda connection: getattr(connection, name).port == port
    if address:
        network = ip_network(address, strict=False)
        if network.num_addresses == 1:
            whole = str(network.network_address)
            yield lambda connection: getattr(connection, name).address == whole
        else:
            yield lambda connection: ip_address(getattr(connection, name).address) in network
