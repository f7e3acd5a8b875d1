"""Generic netlink messages of IPVS: records and attributes (include/uapi/linux/ip_vs.h, net/netfilter/ipvs).

The records have every field that the kernel knows, so that a listing also shows services of other programs. ``planes.ipvs``
converts them to Relevo's model. Widths and byte orders differ from attribute to attribute.
"""

from __future__ import annotations

import enum
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import msgspec

from relevo.wire.netlink import NESTED, Fault, Malformed, attribute, attributes

FAMILY: Final = "IPVS"
VERSION: Final = 1
AF_INET: Final = 2
AF_INET6: Final = 10
TCP: Final = 6
UDP: Final = 17
SCTP: Final = 132


class Command(enum.IntEnum):
    """Commands. An item of a dump has the number of the command that would create it."""

    NEW_SERVICE = 1
    SET_SERVICE = 2
    DEL_SERVICE = 3
    GET_SERVICE = 4
    NEW_DEST = 5
    SET_DEST = 6
    DEL_DEST = 7
    GET_DEST = 8
    NEW_DAEMON = 9
    DEL_DAEMON = 10
    GET_DAEMON = 11
    SET_CONFIG = 12
    GET_CONFIG = 13
    SET_INFO = 14
    GET_INFO = 15
    ZERO = 16
    FLUSH = 17


PERSISTENT: Final = 0x1
ONE_PACKET: Final = 0x4
SCHEDULER_FLAGS: Final = (0x8, 0x10, 0x20)
SETTABLE: Final = PERSISTENT | ONE_PACKET | sum(SCHEDULER_FLAGS)


class Method(enum.IntEnum):
    """Forwarding method; the kernel stores three bits of the number."""

    MASQUERADE = 0
    LOCAL = 1
    TUNNEL = 2
    ROUTE = 3
    BYPASS = 4


class TunnelType(enum.IntEnum):
    """Encapsulation of a tunnel."""

    IPIP = 0
    GUE = 1
    GRE = 2


TUNNEL_CHECKSUM: Final = 1
TUNNEL_REMOTE_CHECKSUM: Final = 2


class DaemonState(enum.IntEnum):
    """Role of a synchronisation daemon."""

    MASTER = 1
    BACKUP = 2


class Counters(msgspec.Struct, frozen=True):
    """Counts since the entry was created or zeroed, and rates per second over the last seconds; bytes include IP headers."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connections_rate: int = 0
    packets_in_rate: int = 0
    packets_out_rate: int = 0
    bytes_in_rate: int = 0
    bytes_out_rate: int = 0


class Identity(msgspec.Struct, frozen=True, order=True):
    """Key of a service: a firewall mark, or protocol, address and port. ``family`` is AF_INET or AF_INET6."""

    mark: int = 0
    family: int = AF_INET
    protocol: int = 0
    address: str = ""
    port: int = 0


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual service. ``netmask`` is IPv4's mask as a number (0xFFFFFF00) or IPv6's prefix length."""

    identity: Identity
    scheduler: str = "wlc"
    flags: int = 0
    timeout_s: int = 0
    netmask: int = 0xFFFFFFFF
    engine: str = ""
    counters: Counters = Counters()


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A server of a service."""

    address: str
    port: int
    method: int = Method.ROUTE
    weight: int = 1
    upper_threshold: int = 0
    lower_threshold: int = 0
    tunnel_type: int = TunnelType.IPIP
    tunnel_port: int = 0
    tunnel_flags: int = 0
    active: int = 0
    inactive: int = 0
    persistent: int = 0
    counters: Counters = Counters()


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """A synchronisation daemon; 0 or empty means the kernel's default."""

    state: int
    interface: str
    sync_id: int = 0
    max_length: int = 0
    group: str = ""
    port: int = 0
    ttl: int = 0


class Timeouts(msgspec.Struct, frozen=True):
    """Idle time-outs in seconds of TCP connections, of TCP after a FIN, and of UDP; 0 in a request changes nothing."""

    tcp_s: int = 0
    tcp_fin_s: int = 0
    udp_s: int = 0


class Info(msgspec.Struct, frozen=True):
    """Version (0x010201 is 1.2.1), and the number of buckets of the connection table."""

    version: int
    table_size: int


_SERVICE, _DESTINATION, _DAEMON, _TIMEOUT_TCP, _TIMEOUT_TCP_FIN, _TIMEOUT_UDP = range(1, 7)
_U16: Final = struct.Struct("=H")
_U32: Final = struct.Struct("=I")
_I32: Final = struct.Struct("=i")
_PORT: Final = struct.Struct("!H")
_FLAGS: Final = struct.Struct("=II")

# -- requests ---------------------------------------------------------------------------------------------------------


def encode_service_key(identity: Identity) -> bytes:
    """Return the attributes that select a service."""
    return _nested(_SERVICE, _identity(identity))


def encode_service(service: Service) -> bytes:
    """Return the attributes that create or change a service. The kernel requires all of them, persistent or not."""
    body = _identity(service.identity) + _text(6, service.scheduler)
    body += attribute(7, _FLAGS.pack(service.flags & SETTABLE, SETTABLE)) + _u32(8, service.timeout_s)
    if service.identity.family == AF_INET:
        body += attribute(9, service.netmask.to_bytes(4, "big"))
    else:
        body += _u32(9, service.netmask)  # a prefix length is a plain number there
    if service.engine:
        body += _text(11, service.engine)
    return _nested(_SERVICE, body)


def encode_destination_key(identity: Identity, address: str, port: int) -> bytes:
    """Return the attributes that select a server."""
    return encode_service_key(identity) + _nested(_DESTINATION, _place(address, port))


def encode_destination(identity: Identity, destination: Destination) -> bytes:
    """Return the attributes that create or change a server."""
    body = _place(destination.address, destination.port) + _u32(3, destination.method)
    body += attribute(4, _I32.pack(destination.weight))
    body += _u32(5, destination.upper_threshold) + _u32(6, destination.lower_threshold)
    if destination.method == Method.TUNNEL:
        body += attribute(13, bytes([destination.tunnel_type])) + attribute(14, _PORT.pack(destination.tunnel_port))
        body += attribute(15, _U16.pack(destination.tunnel_flags))
    return encode_service_key(identity) + _nested(_DESTINATION, body)


def encode_daemon(daemon: Daemon) -> bytes:
    """Return the attributes that start a synchronisation daemon."""
    body = _u32(1, daemon.state) + _text(2, daemon.interface) + _u32(3, daemon.sync_id)
    if daemon.max_length:
        body += attribute(4, _U16.pack(daemon.max_length))
    if daemon.group:
        packed = packed_address(daemon.group)
        body += attribute(5 if len(packed) == 4 else 6, packed)
    if daemon.port:
        body += attribute(7, _U16.pack(daemon.port))  # host order, unlike every other port
    if daemon.ttl:
        body += attribute(8, bytes([daemon.ttl]))
    return _nested(_DAEMON, body)


def encode_daemon_key(state: int) -> bytes:
    """Return the attributes that select a daemon; ``state`` is a ``DaemonState``."""
    return _nested(_DAEMON, _u32(1, state))


def encode_timeouts(timeouts: Timeouts) -> bytes:
    """Return the attributes that change time-outs."""
    return _u32(_TIMEOUT_TCP, timeouts.tcp_s) + _u32(_TIMEOUT_TCP_FIN, timeouts.tcp_fin_s) + _u32(_TIMEOUT_UDP, timeouts.udp_s)


# -- answers ----------------------------------------------------------------------------------------------------------


def read_service(body: memoryview) -> Service:
    """Decode one item of a dump of services, or the answer to GET_SERVICE."""
    found = _inside(body, _SERVICE)
    family = _number(found, 1, _U16)
    if family not in (AF_INET, AF_INET6):
        raise Malformed(Fault.VALUE, "address family")
    if 5 in found:
        identity = Identity(_number(found, 5, _U32), family)
    else:
        identity = Identity(0, family, _number(found, 2, _U16), _read_address(_need(found, 3), family), _number(found, 4, _PORT))
    return Service(
        identity=identity,
        scheduler=_read_text(_need(found, 6)),
        flags=_read_flags(_need(found, 7)),
        timeout_s=_number(found, 8, _U32),
        netmask=_read_netmask(_need(found, 9), family),
        engine=_read_text(found[11]) if 11 in found else "",
        counters=_read_counters(found, 12, 10),
    )


def read_destination(body: memoryview, family: int) -> Destination:
    """Decode one item of a dump of servers; ``family`` is that of the service."""
    found = _inside(body, _DESTINATION)
    if 11 in found:
        family = _number(found, 11, _U16)
        if family not in (AF_INET, AF_INET6):
            raise Malformed(Fault.VALUE, "address family")
    return Destination(
        address=_read_address(_need(found, 1), family),
        port=_number(found, 2, _PORT),
        method=_number(found, 3, _U32),
        weight=_number(found, 4, _I32),
        upper_threshold=_number(found, 5, _U32),
        lower_threshold=_number(found, 6, _U32),
        active=_number(found, 7, _U32),
        inactive=_number(found, 8, _U32),
        persistent=_number(found, 9, _U32),
        tunnel_type=_byte(found, 13),
        tunnel_port=_number(found, 14, _PORT) if 14 in found else 0,
        tunnel_flags=_number(found, 15, _U16) if 15 in found else 0,
        counters=_read_counters(found, 12, 10),
    )


def read_daemon(body: memoryview) -> Daemon:
    """Decode one item of a dump of daemons."""
    found = _inside(body, _DAEMON)
    group = ""
    if 5 in found:
        group = _read_address(found[5], AF_INET)
    elif 6 in found:
        group = _read_address(found[6], AF_INET6)
    return Daemon(
        state=_number(found, 1, _U32),
        interface=_read_text(_need(found, 2)),
        sync_id=_number(found, 3, _U32),
        max_length=_number(found, 4, _U16) if 4 in found else 0,
        group=group,
        port=_number(found, 7, _U16) if 7 in found else 0,
        ttl=_byte(found, 8),
    )


def read_timeouts(body: memoryview) -> Timeouts:
    """Decode the answer to GET_CONFIG."""
    found = attributes(body)
    tcp, fin, udp = (_number(found, kind, _U32) for kind in (_TIMEOUT_TCP, _TIMEOUT_TCP_FIN, _TIMEOUT_UDP))
    return Timeouts(tcp, fin, udp)


def read_info(body: memoryview) -> Info:
    """Decode the answer to GET_INFO."""
    found = attributes(body)
    return Info(_number(found, 1, _U32), _number(found, 2, _U32))


# -- addresses --------------------------------------------------------------------------------------------------------


def packed_address(address: str) -> bytes:
    """Return the 4 or 16 bytes of an address in text form."""
    return (IPv6Address if ":" in address else IPv4Address)(address).packed


# -- pieces -----------------------------------------------------------------------------------------------------------


def _identity(identity: Identity) -> bytes:
    family = attribute(1, _U16.pack(identity.family))
    if identity.mark:
        return family + _u32(5, identity.mark)
    place = attribute(3, packed_address(identity.address)) + attribute(4, _PORT.pack(identity.port))
    return family + attribute(2, _U16.pack(identity.protocol)) + place


def _place(address: str, port: int) -> bytes:
    family = AF_INET6 if ":" in address else AF_INET
    return attribute(1, packed_address(address)) + attribute(2, _PORT.pack(port)) + attribute(11, _U16.pack(family))


def _nested(kind: int, body: bytes) -> bytes:
    return attribute(kind | NESTED, body)


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, _U32.pack(value))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _inside(body: memoryview, kind: int) -> dict[int, memoryview]:
    return attributes(_need(attributes(body), kind))


def _need(found: dict[int, memoryview], kind: int) -> memoryview:
    if kind not in found:
        raise Malformed(Fault.MISSING, f"attribute {kind}")
    return found[kind]


def _number(found: dict[int, memoryview], kind: int, form: struct.Struct) -> int:
    data = _need(found, kind)
    if len(data) != form.size:
        raise Malformed(Fault.SIZE, f"attribute {kind}")
    return int(form.unpack(data)[0])


def _byte(found: dict[int, memoryview], kind: int) -> int:
    data = found.get(kind, b"\0")
    if len(data) != 1:
        raise Malformed(Fault.SIZE, f"attribute {kind}")
    return data[0]


def _read_text(data: memoryview) -> str:
    try:
        return bytes(data).partition(b"\0")[0].decode("ascii")
    except UnicodeDecodeError:
        raise Malformed(Fault.VALUE, "text") from None


def _read_flags(data: memoryview) -> int:
    if len(data) != _FLAGS.size:
        raise Malformed(Fault.SIZE, "flags")
    return int(_FLAGS.unpack(data)[0])


def _read_netmask(data: memoryview, family: int) -> int:
    if len(data) != 4:
        raise Malformed(Fault.SIZE, "netmask")
    return int.from_bytes(data, "big" if family == AF_INET else "little")


def _read_address(data: memoryview, family: int) -> str:
    """Decode an address; a dump has 16 bytes for either family."""
    wanted = 4 if family == AF_INET else 16
    if len(data) not in (wanted, 16):
        raise Malformed(Fault.SIZE, "address")
    return str((IPv4Address if family == AF_INET else IPv6Address)(bytes(data[:wanted])))


def _read_counters(found: dict[int, memoryview], wide: int, narrow: int) -> Counters:
    """Decode the 64-bit counters (since Linux 4.1), or the 32-bit ones."""
    nest = found.get(wide, found.get(narrow))
    if nest is None:
        return Counters()
    inside = attributes(nest)
    return Counters(*(_any_width(inside, kind) for kind in range(1, 11)))


def _any_width(found: dict[int, memoryview], kind: int) -> int:
    data = found.get(kind, b"")
    if len(data) not in (0, 4, 8):
        raise Malformed(Fault.SIZE, f"counter {kind}")
    return int.from_bytes(data, "little")
