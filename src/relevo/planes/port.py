"""The data-plane port: the interface that every plane implements.

Everything above it is the same for every plane: the balancer observes the table, has ``reconcile`` compute the operations
that lead to the desired one, and applies them. A plane refuses an operation it cannot do with a reason, and changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from relevo.model import Configuration, Forwarding, PlaneTimeouts, RealServer, Sysctl, TunnelChecksum, TunnelKind
from relevo.model import Protocol as Transport
from relevo.model.table import Connection, ConnectionFilter, Operation, PlaneSettings, ServiceState, SyncState, SyncTask


class PickRefusal(enum.StrEnum):
    """Why a new connection got no server. The values are names in metrics; they do not change."""

    NO_DESTINATION = "no_destination"
    """The service has no server, or all have weight 0 or are overloaded."""
    NO_SERVICE = "no_service"
    TOO_MANY = "too_many_connections"
    CONNECT_FAILED = "connect_failed"
    """Every server that was tried refused, or did not answer."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a plane can do, for ``shortcomings``."""

    name: str
    transports: frozenset[Transport]
    schedulers: frozenset[str]
    forwarding: frozenset[Forwarding]
    survives_daemon: bool
    any_port: bool
    marks: bool
    one_packet: bool
    tunnels: frozenset[TunnelKind]
    tunnel_checksums: frozenset[TunnelChecksum] = frozenset((TunnelChecksum.NONE,))
    keeps_connections: bool
    """Whether connections can be handed over to another director."""
    sync_keys: bool = False
    """Whether messages of connection synchronisation can have a key."""
    sysctls: frozenset[str] = frozenset()
    """Sysctls of IPVS (``net.ipv4.vs.*``) that the plane has."""
    template_lag_s: float = 0.0
    """How much longer than its time-out a persistence template may live after its last connection has ended."""
    shared: bool = False
    """Whether the table may hold services of other programs; those are left alone."""


class Refused(msgspec.Struct, frozen=True):
    """An operation that the plane refused, and why."""

    operation: Operation
    reason: str


class PlaneEvent(msgspec.Struct, frozen=True):
    """A line for the log; ``grave`` when service or data was lost."""

    text: str
    grave: bool = False


class ConnectionSync(Protocol):
    """A plane's part in connection synchronisation."""

    async def synchronise(self, task: SyncTask | None, in_sync: Callable[[bool], None]) -> str:
        """Synchronise connections as ``task`` says, or with ``None`` stop; return why it could not be done, or an empty string.

        Where the plane can know it, ``in_sync`` is called with True when it has received every connection of the other
        directors' masters, and with False when that is no longer so.
        """
        ...

    async def complete_sync(self) -> int:
        """Send every connection to the peers at once, before a planned hand-over; return how many were sent."""
        ...

    async def sync_state(self, *, counted: bool) -> SyncState | None:
        """Return the state of synchronisation; ``None`` where the plane does not synchronise.

        With ``counted`` it includes the number of connections, which may take seconds.
        """
        ...


class Plane(ConnectionSync, Protocol):
    """A data plane."""

    def capabilities(self) -> Capabilities:
        """What the plane can do."""
        ...

    async def observe(self) -> list[ServiceState]:
        """Return the table with its counters."""
        ...

    async def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        """Carry operations out, in order; return those refused."""
        ...

    async def connections(self) -> list[Connection]:
        """Return connections and persistence templates."""
        ...

    async def drop(self, wanted: ConnectionFilter) -> int:
        """Drop connections and templates that match; return how many. ``PlaneError`` where the plane cannot."""
        ...

    async def set_local(self, local: frozenset[str], floating: frozenset[str]) -> None:
        """Set which of the ``floating`` addresses, those that VRRP moves, are on this node now (``local``)."""
        ...

    async def settings(self) -> PlaneSettings:
        """Return the size of the connection table, and the time-outs."""
        ...

    async def set_timeouts(self, wanted: PlaneTimeouts) -> str:
        """Change time-outs; 0 leaves one as it is. Return why it could not be done, or an empty string."""
        ...

    async def set_sysctls(self, wanted: Sequence[Sysctl]) -> list[str]:
        """Set sysctls of IPVS, and restore those that are no longer wanted; return a line for each that failed."""
        ...

    def events(self) -> list[PlaneEvent]:
        """Return what happened since the last call, as lines for the log."""
        ...

    def attachments(self) -> tuple[str, ...]:
        """Return where the plane is attached, such as interfaces and hooks, a line each, for ``status``."""
        ...

    def drop_counters(self) -> dict[str, int]:
        """Return how many packets were dropped or treated specially, by reason."""
        ...

    async def close(self) -> None:
        """Release the plane. Its table stays if the plane survives the daemon."""
        ...

    async def remove(self, *, keep_connections: bool = False) -> None:
        """Release the plane and remove its services, so that it forwards nothing any more.

        With ``keep_connections`` established connections are kept, where the plane can, for a daemon that is started later.
        """
        ...


class Shortcoming(msgspec.Struct, frozen=True):
    """Something a configuration asks of a plane that it cannot do; ``keyword`` is the configuration's keyword."""

    keyword: str
    message: str
    hint: str


def shortcomings(configuration: Configuration, able: Capabilities) -> list[Shortcoming]:
    """Return what ``configuration`` asks of a plane that it cannot do, for check time."""
    found: dict[Shortcoming, None] = {}
    plane = f"data plane '{able.name}'"
    for service in configuration.virtual_servers:
        if service.protocol not in able.transports:
            message = f"{service.name}: {plane} does not carry {service.protocol.value}"
            found[Shortcoming("protocol", message, "choose another data_plane")] = None
        if service.scheduler not in able.schedulers:
            message = f"{service.name}: {plane} has no scheduler '{service.scheduler}': wlc is used"
            found[Shortcoming("lb_algo", message, f"it has {' '.join(sorted(able.schedulers))}")] = None
        if not able.any_port and any(not (key.endpoint.port or key.mark) for key in service.keys):
            message = f"{service.name}: {plane} cannot serve every port"
            found[Shortcoming("virtual_server", message, "name the port")] = None
        if not able.marks and any(key.mark for key in service.keys):
            message = f"{service.name}: {plane} does not see firewall marks"
            found[Shortcoming("virtual_server", message, "name addresses and ports")] = None
        if service.one_packet and not able.one_packet:
            message = f"{service.name}: {plane} keeps a session for every client: ops has no effect"
            found[Shortcoming("ops", message, "choose another data_plane")] = None
        for tunnel in sorted({_formatted(server) for server in service.real_servers if not _can_wrap(able, server)}):
            message = f"{service.name}: {plane} has no tunnel of type {tunnel}: its servers are left out"
            kinds = " ".join(sorted(able.tunnels))
            found[Shortcoming("lb_kind", message, f"it has {kinds}, without checksums" if kinds else "choose NAT or DR")] = None
        for kind in sorted(
            {*(server.forwarding for server in service.real_servers), *filter(None, (service.sorry_forwarding,))}
            - able.forwarding
        ):
            message = f"{service.name}: {plane} cannot forward by {kind.value}: it terminates connections"
            found[Shortcoming("lb_kind", message, "servers see the director's address; proxy_protocol sends the client's")] = None
    for sysctl in configuration.global_defs.lvs_sysctls:
        if sysctl.name not in able.sysctls:
            message = f"{plane} has no setting '{sysctl.name}'"
            known = " ".join(sorted(able.sysctls))
            found[Shortcoming("lvs_sysctls", message, f"it has {known}" if known else "leave it out")] = None
    if configuration.global_defs.lvs_sync_daemon is not None and not able.keeps_connections:
        message = f"connection synchronisation has no effect: {plane} cannot hand connections over"
        found[Shortcoming("lvs_sync_daemon", message, "clients connect again after a takeover")] = None
    return list(found)


def _can_wrap(able: Capabilities, server: RealServer) -> bool:
    if server.forwarding is not Forwarding.TUN or Forwarding.TUN not in able.forwarding:
        return True  # a plane without tunnels is another shortcoming
    return server.tunnel.kind in able.tunnels and server.tunnel.checksum in able.tunnel_checksums


def _formatted(server: RealServer) -> str:
    checksum = server.tunnel.checksum
    return server.tunnel.kind.value + ("" if checksum is TunnelChecksum.NONE else f" with {checksum}")
