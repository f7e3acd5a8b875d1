"""The data-plane port: the few things every plane offers.

Everything above is plane-agnostic: the balancer observes, asks ``reconcile`` what differs from the desired table, and
applies that. A plane that cannot do an operation says so with a reason and keeps what it has.
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
    """No server is there, or all have weight 0 or are overloaded."""
    NO_SERVICE = "no_service"
    TOO_MANY = "too_many_connections"
    CONNECT_FAILED = "connect_failed"
    """Every server tried refused or did not answer."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a plane can do. ``missing`` maps a feature it lacks to the reason, for check time."""

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
    sysctls: frozenset[str] = frozenset()
    """Settings of IPVS that it knows by its own names."""
    template_lag_s: float = 0.0
    """How much longer than its time-out a client may be remembered whose connections have ended."""
    shared: bool = False
    """Whether others may have services in the same table: they are left alone."""


class Refused(msgspec.Struct, frozen=True):
    """An operation the plane did not carry out, and why."""

    operation: Operation
    reason: str


class PlaneEvent(msgspec.Struct, frozen=True):
    """A line for the log; ``grave`` when something is lost by it."""

    text: str
    grave: bool = False


class Plane(Protocol):
    """A data plane."""

    def capabilities(self) -> Capabilities:
        """What the plane can do."""
        ...

    async def observe(self) -> list[ServiceState]:
        """Return the table as it stands, counters included."""
        ...

    async def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        """Carry operations out, in order; return those refused."""
        ...

    async def connections(self) -> list[Connection]:
        """Return connections and persistence templates."""
        ...

    async def drop(self, wanted: ConnectionFilter) -> int:
        """End connections and forget templates; return how many."""
        ...

    async def set_local(self, local: frozenset[str], floating: frozenset[str]) -> None:
        """Take note that of the addresses that VRRP moves (``moved``) those ``held`` are on this node now."""
        ...

    async def synchronise(self, task: SyncTask | None, in_sync: Callable[[bool], None]) -> str:
        """Take part in connection synchronisation as ``task`` says, with ``None`` no more; return what stands against it.

        ``in_sync`` is called when the connections of the other directors' masters are all here, and when they are not any more,
        where the plane can know that.
        """
        ...

    async def complete_sync(self) -> int:
        """Tell the peers of every connection at once, for a hand-over; return how many were told."""
        ...

    async def sync_state(self, *, counted: bool) -> SyncState | None:
        """Return how synchronisation goes, with connections ``counted`` or without; ``None`` where the plane has no part in any.

        Counting may take seconds.
        """
        ...

    async def settings(self) -> PlaneSettings:
        """Return the size of its table of connections, and its time-outs."""
        ...

    async def set_timeouts(self, wanted: PlaneTimeouts) -> str:
        """Change time-outs, 0 leaves one as it is; return what stands against it."""
        ...

    async def set_sysctls(self, wanted: Sequence[Sysctl]) -> list[str]:
        """Set what IPVS calls its sysctls, and those that are wanted no more as they were before; return what was not done, a
        line each.
        """
        ...

    def events(self) -> list[PlaneEvent]:
        """Return what happened since the last call, as lines for the log."""
        ...

    def attachments(self) -> tuple[str, ...]:
        """Return where the plane is at work, a line each, for ``status``."""
        ...

    def drop_counters(self) -> dict[str, int]:
        """Return how often a packet was not simply forwarded, by reason."""
        ...

    async def close(self) -> None:
        """Let go of the plane. What it holds stays if it survives the daemon."""
        ...

    async def remove(self, *, keep_connections: bool = False) -> None:
        """Let go of the plane and leave nothing at work.

        With ``keep_connections`` established connections are kept, where the plane can, for a daemon that is started later.
        """
        ...


class Shortcoming(msgspec.Struct, frozen=True):
    """Something a configuration asks of a plane that it cannot do; ``keyword`` is the word that asks."""

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
        for kind in sorted({server.forwarding for server in service.real_servers} - able.forwarding):
            message = f"{service.name}: {plane} cannot forward by {kind.value}: it ends connections and opens its own"
            found[Shortcoming("lb_kind", message, "servers see the director's address; proxy_protocol tells the client's")] = None
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
        return True  # not by tunnel at all is another shortcoming
    return server.tunnel.kind in able.tunnels and server.tunnel.checksum in able.tunnel_checksums


def _formatted(server: RealServer) -> str:
    checksum = server.tunnel.checksum
    return server.tunnel.kind.value + ("" if checksum is TunnelChecksum.NONE else f" with {checksum}")
