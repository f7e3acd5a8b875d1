"""Virtual servers and the real servers behind them."""

from __future__ import annotations

import enum

import msgspec

from relevo.model.checks import Check
from relevo.model.endpoint import Endpoint, Protocol
from relevo.model.script import Script


class Forwarding(enum.StrEnum):
    """How a packet reaches the real server (``lb_kind``)."""

    NAT = "NAT"
    DR = "DR"
    TUN = "TUN"
    FULLNAT = "FULLNAT"
    """Like NAT, and the client's address is replaced by a local address, so that servers need no route back through the node."""


class TunnelKind(enum.StrEnum):
    """Encapsulation of packets to a server behind a tunnel."""

    IPIP = "ipip"
    GUE = "gue"
    """Generic UDP encapsulation, to ``Tunnel.port``."""
    GRE = "gre"


class TunnelChecksum(enum.StrEnum):
    """Checksum of the tunnel's own header (GUE and GRE)."""

    NONE = "nocsum"
    PLAIN = "csum"
    REMOTE = "remcsum"


class Tunnel(msgspec.Struct, frozen=True):
    """Tunnel to a server with ``Forwarding.TUN``."""

    kind: TunnelKind = TunnelKind.IPIP
    port: int = 0
    checksum: TunnelChecksum = TunnelChecksum.NONE


class ServiceKey(msgspec.Struct, frozen=True, order=True):
    """Key of a virtual service: protocol, address and port, or a firewall mark.

    With a mark, the endpoint is the unspecified address of the IP version with port 0, and the protocol has no meaning.
    """

    protocol: Protocol
    endpoint: Endpoint
    mark: int = 0

    def __str__(self) -> str:
        if self.mark:
            return f"FWM {self.mark}" + (" IPv6" if self.is_ipv6 else "")
        return f"{self.protocol.value} {self.endpoint}"

    @property
    def is_ipv6(self) -> bool:
        """Whether the service is IPv6."""
        return ":" in self.endpoint.address

    @classmethod
    def of_mark(cls, mark: int, *, ipv6: bool = False) -> ServiceKey:
        """Return the key of a firewall mark's service."""
        return cls(Protocol.TCP, Endpoint("::" if ipv6 else "0.0.0.0"), mark)  # noqa: S104 - nothing listens there: it means no address


class RealServer(msgspec.Struct, frozen=True, kw_only=True):
    """One server of a pool. It is up when all of ``checks`` are up; without checks it is always up."""

    endpoint: Endpoint
    weight: int = 1
    forwarding: Forwarding = Forwarding.NAT
    tunnel: Tunnel = Tunnel()
    inhibit_on_failure: bool = False
    upper_threshold: int = 0
    lower_threshold: int = 0
    proxy_protocol: int = 0
    smtp_alert: bool = True
    notify_up: Script | None = None
    notify_down: Script | None = None
    checks: tuple[Check, ...] = ()


class ServerMode(enum.StrEnum):
    """What an administrator says about a server, whatever its checks say (``relevo server``)."""

    READY = "ready"
    """What the file and the checks say."""
    DRAIN = "drain"
    """No new connections: its weight is 0."""
    MAINT = "maint"
    """Out of service."""
    WEIGHT = "weight"
    """A weight in place of that of the file and the checks."""


class ServerOrder(msgspec.Struct, frozen=True):
    """An administrator's word about one server: ``service`` is the name of a virtual server, ``server`` its endpoint as text."""

    service: str
    server: str
    mode: ServerMode
    weight: int = 0

    def __str__(self) -> str:
        return f"weight {self.weight}" if self.mode is ServerMode.WEIGHT else self.mode.value


class VirtualServer(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual service and its pool of real servers.

    With a ``mark`` other than 0, packets belong to the service by their firewall mark. A ``group`` has one pool for all the
    keys of ``members``; ``endpoint`` is then that of the first member. FULLNAT replaces client addresses by
    ``local_addresses``, or by the node's own address if there are none. ``persistence_timeout_s`` 0 means off;
    ``persistence_granularity`` is a prefix length (32 or 128: one client). The sorry server is reached by ``sorry_forwarding``,
    or as the others. With ``ha_suspend`` servers are checked only while the address is on this node.
    """

    endpoint: Endpoint
    protocol: Protocol
    mark: int = 0
    group: str = ""
    members: tuple[ServiceKey, ...] = ()
    scheduler: str = "wlc"
    scheduler_flags: tuple[str, ...] = ()
    one_packet: bool = False
    refuses_by_reset: bool = False
    forwarding: Forwarding = Forwarding.NAT
    tunnel: Tunnel = Tunnel()
    local_addresses: tuple[str, ...] = ()
    persistence_timeout_s: int = 0
    persistence_granularity: int = 32
    delay_loop_s: float = 60.0
    alpha: bool = False
    omega: bool = False
    quorum: int = 1
    hysteresis: int = 0
    quorum_up: Script | None = None
    quorum_down: Script | None = None
    sorry_server: Endpoint | None = None
    sorry_server_inhibit: bool = False
    sorry_forwarding: Forwarding | None = None
    sorry_tunnel: Tunnel = Tunnel()
    ha_suspend: bool = False
    smtp_alert: bool = False
    real_servers: tuple[RealServer, ...] = ()

    @property
    def name(self) -> str:
        """The service as keepalived formats it in logs and mails."""
        if self.group:
            return f"[{self.group}]:0"
        return f"FWM {self.mark}" if self.mark else self.endpoint.formatted(self.protocol)

    @property
    def keys(self) -> tuple[ServiceKey, ...]:
        """Keys of the services that the plane must have for this pool."""
        return self.members or (ServiceKey(self.protocol, self.endpoint, self.mark),)
