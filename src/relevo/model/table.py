"""The table of virtual services as a data plane holds it: entries, what is asked of them, and what is seen of them.

The vocabulary is IPVS's. ``machines.pool`` wants entries, ``planes`` hold them, ``observe`` shows them.
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
    """How a service schedules. ``persistence_timeout_s`` 0 is off; granularity is a prefix length.

    With ``one_packet`` every datagram is scheduled and nothing is remembered of it. ``refuses_by_reset``: who finds no
    server is sent a TCP reset in place of an ICMP error.
    """

    key: ServiceKey
    scheduler: str = "wlc"
    scheduler_flags: tuple[str, ...] = ()
    one_packet: bool = False
    refuses_by_reset: bool = False
    persistence_timeout_s: int = 0
    persistence_granularity: int = 32


class ServerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One server of a service. Weight 0 takes no new connections; thresholds 0 are off; ``local_addresses`` are FULLNAT's."""

    endpoint: Endpoint
    weight: int = 1
    forwarding: Forwarding = Forwarding.NAT
    tunnel: Tunnel = Tunnel()
    local_addresses: tuple[str, ...] = ()
    upper_threshold: int = 0
    lower_threshold: int = 0
    proxy_protocol: int = 0


class Desired(msgspec.Struct, frozen=True):
    """A service and its servers, in the order in which they are to be added."""

    service: ServiceEntry
    servers: tuple[ServerEntry, ...] = ()


# -- operations: what reconcile asks of a plane -----------------------------------------------------------------------


class AddService(msgspec.Struct, frozen=True, tag=True):
    """Create a service without servers."""

    service: ServiceEntry


class EditService(msgspec.Struct, frozen=True, tag=True):
    """Change scheduler or persistence; connections stay."""

    service: ServiceEntry


class DeleteService(msgspec.Struct, frozen=True, tag=True):
    """Remove a service with its servers."""

    key: ServiceKey


class AddServer(msgspec.Struct, frozen=True, tag=True):
    """Put a server at the head of a service's list, where IPVS puts it."""

    key: ServiceKey
    server: ServerEntry


class EditServer(msgspec.Struct, frozen=True, tag=True):
    """Change a server in place."""

    key: ServiceKey
    server: ServerEntry


class DeleteServer(msgspec.Struct, frozen=True, tag=True):
    """Remove a server. Its connections are reset where the plane can, else they hang until they time out."""

    key: ServiceKey
    endpoint: Endpoint


Operation = AddService | EditService | DeleteService | AddServer | EditServer | DeleteServer


# -- observation ------------------------------------------------------------------------------------------------------


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Connections, packets and octets since the entry was made; in is towards the server. A proxy sees no packets."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """A server as the plane holds it now."""

    server: ServerEntry
    active: int = 0
    inactive: int = 0
    persistent: int = 0
    overloaded: bool = False
    traffic: Traffic = Traffic()


class ServiceState(msgspec.Struct, frozen=True, kw_only=True):
    """A service as the plane holds it now; ``listening`` is ``""`` or why it cannot take connections."""

    service: ServiceEntry
    servers: tuple[ServerState, ...] = ()
    traffic: Traffic = Traffic()
    refused: dict[str, int] = {}
    listening: str = ""


class PlaneSettings(msgspec.Struct, frozen=True):
    """What a plane was set to. ``table_size`` counts the buckets of connections; 0 where there are none, as for time-outs."""

    table_size: int = 0
    timeouts: PlaneTimeouts = PlaneTimeouts()


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """One connection, or with ``client`` port 0 one persistence template, which ``mark`` names the
    service of if it has one. ``expires_s`` is seconds from now.
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
    """Part of a node in connection synchronisation: who sends, and who listens."""

    MASTER = "master"
    BACKUP = "backup"


class SyncPeer(msgspec.Struct, frozen=True, kw_only=True):
    """Another director that shares the key: what it is to us, how many messages of its are missing here, and of ours there."""

    address: str
    state: str
    heard_at: float
    missing_here: int
    missing_there: int


class SyncState(msgspec.Struct, frozen=True, kw_only=True):
    """Connection synchronisation as a plane does it now. ``None`` is what the plane cannot know.

    ``received`` are connections here that another node announced, ``waiting`` those whose server is not here; ``refused`` counts
    what was not taken in, by reason; ``in_sync`` and ``directors`` are known among directors that share a key; times are of the
    wall clock, ``problem`` is empty or why it does not work.
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
    """What a plane is to do for connection synchronisation: with a multicast ``group``, or with ``peers`` if there are any.

    ``max_length`` 0 fits an Ethernet frame. A backup listens at ``ports`` ports from ``port`` on: a kernel's master may have so
    many threads. With a ``key_file``, messages are sealed, and unsealed ones refused.
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
    """Which connections are meant: those that fit every field given.

    Addresses are literals or networks (``10.0.0.0/8``), port 0 is any. ``templates``: False leaves them out, True means
    them alone.
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
        """Return what tells whether a connection is meant; ``ValueError`` for what is no address."""
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
