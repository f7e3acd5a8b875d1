"""Conversion between the model's entries and the records of the kernel's IPVS."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Final

from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey, Tunnel, TunnelChecksum, TunnelKind
from relevo.model.table import Connection, ServerEntry, ServerState, ServiceEntry, ServiceState, Traffic
from relevo.wire import ipvs_netlink as wire
from relevo.wire.ipvs_netlink import Counters, Destination, Identity, Method, Service, TunnelType
from relevo.wire.ipvs_proc import ConnectionLine

PROTOCOLS: Final = {Protocol.TCP: wire.TCP, Protocol.UDP: wire.UDP}
FULLNAT: Final = 5
"""DPVS's number for it; the kernel has none."""
METHODS: Final = {Forwarding.NAT: Method.MASQUERADE, Forwarding.DR: Method.ROUTE, Forwarding.TUN: Method.TUNNEL}
TUNNELS: Final = {TunnelKind.IPIP: TunnelType.IPIP, TunnelKind.GUE: TunnelType.GUE, TunnelKind.GRE: TunnelType.GRE}
CHECKSUMS: Final = {
    TunnelChecksum.NONE: 0,
    TunnelChecksum.PLAIN: wire.TUNNEL_CHECKSUM,
    TunnelChecksum.REMOTE: wire.TUNNEL_REMOTE_CHECKSUM,
}
_FLAG_1, _FLAG_2, _FLAG_3 = wire.SCHEDULER_FLAGS
FLAGS: Final = {
    "sh-fallback": _FLAG_1,
    "sh-port": _FLAG_2,
    "mh-fallback": _FLAG_1,
    "mh-port": _FLAG_2,
    "flag-1": _FLAG_1,
    "flag-2": _FLAG_2,
    "flag-3": _FLAG_3,
}
_PROTOCOL_OF: Final = {number: protocol for protocol, number in PROTOCOLS.items()}
_FORWARDING_OF: Final[dict[int, Forwarding]] = {
    Method.LOCAL: Forwarding.NAT,
    **{int(method): forwarding for forwarding, method in METHODS.items()},
}
_TUNNEL_OF: Final[dict[int, TunnelKind]] = {number: kind for kind, number in TUNNELS.items()}
_CHECKSUM_OF: Final = {number: checksum for checksum, number in CHECKSUMS.items()}


def identity_of(key: ServiceKey) -> Identity:
    """Return the kernel's identity of a service."""
    family = wire.AF_INET6 if key.is_ipv6 else wire.AF_INET
    if key.mark:
        return Identity(key.mark, family)
    return Identity(0, family, PROTOCOLS[key.protocol], key.endpoint.address, key.endpoint.port)


def service_of(entry: ServiceEntry) -> Service:
    """Return the kernel's record of a service."""
    flags = sum({FLAGS[name] for name in entry.scheduler_flags if name in FLAGS})
    flags |= wire.PERSISTENT if entry.persistence_timeout_s else 0
    flags |= wire.ONE_PACKET if entry.one_packet else 0
    return Service(
        identity=identity_of(entry.key),
        scheduler=entry.scheduler,
        flags=flags,
        timeout_s=entry.persistence_timeout_s,
        netmask=netmask(entry.key.is_ipv6, entry.persistence_granularity),
    )


def netmask(ipv6: bool, length: int) -> int:
    """Return a prefix length as the kernel stores it: a mask for IPv4, a length of at least 1 for IPv6."""
    if ipv6:
        return max(1, length)
    return int(IPv4Network((0, length)).netmask)


def destination_of(entry: ServerEntry) -> Destination:
    """Return the kernel's record of a server; FULLNAT has a number that the kernel does not use."""
    tunnel = entry.tunnel
    return Destination(
        address=entry.endpoint.address,
        port=entry.endpoint.port,
        method=METHODS.get(entry.forwarding, FULLNAT),
        weight=entry.weight,
        upper_threshold=entry.upper_threshold,
        lower_threshold=entry.lower_threshold,
        tunnel_type=TUNNELS[tunnel.kind],
        tunnel_port=tunnel.port,
        tunnel_flags=CHECKSUMS[tunnel.checksum],
    )


def key_of(identity: Identity) -> ServiceKey | None:
    """Return a service's key; ``None`` for one that no configuration can declare (SCTP)."""
    if identity.mark:
        return ServiceKey.of_mark(identity.mark, ipv6=identity.family == wire.AF_INET6)
    protocol = _PROTOCOL_OF.get(identity.protocol)
    return None if protocol is None else ServiceKey(protocol, Endpoint(identity.address, identity.port))


def entry_of(service: Service, key: ServiceKey) -> ServiceEntry:
    """Return the entry that makes this service."""
    prefix = {"sh": ("sh-fallback", "sh-port", "flag-3"), "mh": ("mh-fallback", "mh-port", "flag-3")}
    names = prefix.get(service.scheduler, ("flag-1", "flag-2", "flag-3"))
    flags = tuple(name for name, bit in zip(names, wire.SCHEDULER_FLAGS, strict=True) if service.flags & bit)
    length = service.netmask if key.is_ipv6 else service.netmask.bit_count()
    return ServiceEntry(
        key=key,
        scheduler=service.scheduler,
        scheduler_flags=flags,
        one_packet=bool(service.flags & wire.ONE_PACKET),
        persistence_timeout_s=service.timeout_s if service.flags & wire.PERSISTENT else 0,
        persistence_granularity=length,
    )


def server_of(found: Destination) -> ServerEntry:
    """Return the entry that makes this server."""
    tunnel = Tunnel()
    if found.method == Method.TUNNEL:
        kind = _TUNNEL_OF.get(found.tunnel_type, TunnelKind.IPIP)
        tunnel = Tunnel(kind, found.tunnel_port, _CHECKSUM_OF.get(found.tunnel_flags, TunnelChecksum.NONE))
    return ServerEntry(
        endpoint=Endpoint(found.address, found.port),
        weight=found.weight,
        forwarding=_FORWARDING_OF.get(found.method, Forwarding.NAT),
        tunnel=tunnel,
        upper_threshold=found.upper_threshold,
        lower_threshold=found.lower_threshold,
    )


def traffic_of(counters: Counters) -> Traffic:
    """Return counters as the port has them."""
    return Traffic(
        connections=counters.connections,
        packets_in=counters.packets_in,
        packets_out=counters.packets_out,
        bytes_in=counters.bytes_in,
        bytes_out=counters.bytes_out,
    )


def server_state(found: Destination, entry: ServerEntry) -> ServerState:
    """Return the state of a server. The kernel does not report overload: it is derived from the counters."""
    connections = found.active + found.inactive
    return ServerState(
        server=entry,
        active=found.active,
        inactive=found.inactive,
        persistent=found.persistent,
        overloaded=bool(found.upper_threshold) and connections >= found.upper_threshold,
        traffic=traffic_of(found.counters),
    )


def service_state(service: Service, entry: ServiceEntry, servers: tuple[ServerState, ...]) -> ServiceState:
    """Return the state of a service."""
    return ServiceState(service=entry, servers=servers, traffic=traffic_of(service.counters))


def connection_of(line: ConnectionLine) -> Connection | None:
    """Return a line of ``/proc/net/ip_vs_conn``; ``None`` for a protocol that no configuration can declare."""
    try:
        protocol = Protocol.TCP if line.protocol == "IP" else Protocol(line.protocol)
    except ValueError:
        return None
    return Connection(
        protocol=protocol,
        client=Endpoint(line.client, line.client_port),
        virtual=Endpoint(line.virtual, line.virtual_port),
        server=Endpoint(line.server, line.server_port),
        mark=mark_of(line),
        state=line.state,
        expires_s=float(line.expires_s),
        template=line.client_port == 0,
    )


def mark_of(line: ConnectionLine) -> int:
    """Return the firewall mark of a template, which the kernel lists as if it were an address; 0 where there is none."""
    return int(IPv4Address(line.virtual)) if line.protocol == "IP" and ":" not in line.virtual else 0
