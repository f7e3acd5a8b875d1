"""Map values, mirrored from ``bpf/layout.h``; a test compares the two through the objects' type information."""

from __future__ import annotations

import ctypes
import enum
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64
from ipaddress import IPv6Address, ip_address
from struct import Struct
from typing import Final

LAYOUT_VERSION: Final = 6
BUCKET_SLOTS: Final = 8
FILTER_BITS: Final = 15
TIMEOUTS: Final = 16
ETHERNET: Final = 14
NOWHERE: Final = 0xFFFFFFFF
MAX_SERVERS: Final = 4096
INSERT_MAX: Final = 32
LAST_SYNC_RETRIES: Final = 3
"""Mask of the bits of ``last_sync`` that count retries; the other bits are ticks."""


class _Value(ctypes.LittleEndianStructure):
    """A map's value. Ports are in network order: use ``port_to`` and ``port_from``."""


class Address(_Value):
    """Sixteen bytes; an IPv4 address is mapped."""

    _fields_ = [("bytes", c_uint8 * 16)]


class Connection(_Value):
    """One connection or persistence template."""

    _fields_ = [
        ("client", Address),
        ("virtual", Address),
        ("client_port", c_uint16),
        ("virtual_port", c_uint16),
        ("protocol", c_uint8),
        ("state", c_uint8),
        ("flags", c_uint16),
        ("server", c_uint32),
        ("expires", c_uint32),
        ("master", c_uint32),
        ("packets", c_uint16),
        ("last_sync", c_uint16),
        ("local_port", c_uint16),
        ("snat_address", c_uint16),
        ("generation", c_uint32),
    ]


CONNECTION: Final = Struct("<16s16sHHBBHIIIHHHHI")
"""The fields of ``Connection`` in order, for packing many at a time."""


class Bucket(_Value):
    """Eight connections under one lock."""

    _fields_ = [
        ("lock", c_uint32),
        ("spilled", c_uint32),
        ("tag", c_uint8 * BUCKET_SLOTS),
        ("slot", Connection * BUCKET_SLOTS),
    ]


class ServiceKeyValue(_Value):
    """The key of ``service_index``."""

    _fields_ = [
        ("address", Address),
        ("port", c_uint16),
        ("protocol", c_uint8),
        ("family", c_uint8),
        ("reserved", c_uint32),
    ]


class Counters(_Value):
    """Traffic of a server on one CPU."""

    _fields_ = [
        ("connections", c_uint64),
        ("packets_in", c_uint64),
        ("packets_out", c_uint64),
        ("bytes_in", c_uint64),
        ("bytes_out", c_uint64),
    ]


class ServiceValue(_Value):
    _fields_ = [
        ("address", Address),
        ("mask", Address),
        ("port", c_uint16),
        ("protocol", c_uint8),
        ("family", c_uint8),
        ("flags", c_uint32),
        ("scheduler", c_uint32),
        ("persistence", c_uint32),
        ("server_list", c_uint64),
        ("table", c_uint64),
        ("cursor", c_uint32),
        ("threshold", c_uint32),
        ("step", c_uint32),
        ("ceiling", c_uint32),
        ("refused", c_uint64),
        ("former", Counters),
    ]


class ServerValue(_Value):
    _fields_ = [
        ("address", Address),
        ("outer_source", Address),
        ("port", c_uint16),
        ("forwarding", c_uint8),
        ("tunnel", c_uint8),
        ("tunnel_port", c_uint16),
        ("snat_count", c_uint16),
        ("snat_first", c_uint32),
        ("service", c_uint32),
        ("weight", c_uint32),
        ("upper", c_uint32),
        ("lower", c_uint32),
        ("generation", c_uint32),
        ("overloaded", c_uint32),
        ("active", c_uint32),
        ("inactive", c_uint32),
        ("templates", c_uint32),
        ("is_local", c_uint32),
        ("reserved", c_uint32),
    ]


class PathMtu(_Value):
    """Path MTU to a tunnel endpoint, from a router's ICMP error. ``expires`` is in jiffies."""

    _fields_ = [("expires", c_uint32), ("mtu", c_uint16), ("reserved", c_uint16)]


class Settings(_Value):
    """Settings of the whole instance."""

    _fields_ = [
        ("version", c_uint32),
        ("flags", c_uint32),
        ("hz", c_uint32),
        ("replies_per_second", c_uint32),
        ("timeout", c_uint32 * TIMEOUTS),
        ("key", c_uint64 * 2),
        ("bucket_mask", c_uint32),
        ("path_mtus", c_uint32),
        ("sync_threshold", c_uint16),
        ("sync_period", c_uint16),
        ("sync_refresh", c_uint32),
        ("sync_retries", c_uint16),
        ("tick_shift", c_uint16),
        ("local_port_first", c_uint16),
        ("local_port_count", c_uint16),
        ("virtual_filter", c_uint8 * (1 << (FILTER_BITS - 3))),
        ("server_filter", c_uint8 * (1 << (FILTER_BITS - 3))),
    ]


class SweepRequest(_Value):
    """Packet of ``relevo_sweep``."""

    _pack_ = 1
    _fields_ = [("ethernet", c_uint8 * ETHERNET), ("reserved", c_uint8 * 2), ("next", c_uint32), ("deleted", c_uint32)]


class DeleteRequest(_Value):
    """Packet of ``relevo_delete``."""

    _pack_ = 1
    _fields_ = [("ethernet", c_uint8 * ETHERNET), ("client_port", c_uint16), ("place", c_uint32), ("done", c_uint32)]


class Outcome(enum.IntEnum):
    """``enum outcome``: the result of inserting a connection."""

    NO_ROOM = 0
    INSERTED = 1
    UPDATED = 2
    IGNORED = 3


class InsertItem(_Value):
    """A connection to insert, and its result."""

    _fields_ = [("connection", Connection), ("place", c_uint32), ("outcome", c_uint32)]


class InsertRequest(_Value):
    """Packet of ``relevo_insert``."""

    _pack_ = 1
    _fields_ = [
        ("ethernet", c_uint8 * ETHERNET),
        ("reserved", c_uint8 * 2),
        ("count", c_uint32),
        ("reserved_2", c_uint32),
        ("item", InsertItem * INSERT_MAX),
    ]


class SyncExport(enum.IntFlag):
    """``enum sync_export_flag``: which entries of the table are exported."""

    HALF_OPEN = 1
    UNSYNCED = 2


class SyncExportRequest(_Value):
    """Packet of ``relevo_sync_export``."""

    _pack_ = 1
    _fields_ = [
        ("ethernet", c_uint8 * ETHERNET),
        ("reserved", c_uint8 * 2),
        ("next", c_uint32),
        ("exported", c_uint32),
        ("limit", c_uint32),
        ("which", c_uint32),
    ]


class ConnectionFlag(enum.IntFlag):
    """``enum connection_flag``."""

    TEMPLATE = 1
    ACTIVE = 2
    NO_OUTPUT = 4
    FULLNAT = 8
    ASSURED = 16
    FOREIGN = 32
    KEEP_PORT = 64


class ServiceFlag(enum.IntFlag):
    """``enum service_flag``."""

    USED = 1
    CLOSED = 2
    FALLBACK = 4
    HASH_PORT = 8
    ONE_PACKET = 16
    ANY_PORT = 32
    RESET = 64


class SettingFlag(enum.IntFlag):
    """``enum setting_flag``."""

    SLOPPY_TCP = 1
    SYNC = 2
    MARKS = 4
    KEEP_ORPHANS = 8
    EXPIRE_QUIESCENT = 16
    SECURE_TCP = 32
    SYNC_TEMPLATES_ONLY = 64


class TunnelNumber(enum.IntEnum):
    """``enum tunnel``."""

    IPIP = 0
    GUE = 1


class SchedulerNumber(enum.IntEnum):
    """``enum scheduler``."""

    NONE = 0
    RR = 1
    WRR = 2
    LC = 3
    WLC = 4
    SED = 5
    NQ = 6
    FO = 7
    OVF = 8
    SH = 9
    DH = 10
    MH = 11


class TcpState(enum.IntEnum):
    """``enum tcp_state``, the numbers of IPVS."""

    NONE = 0
    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT = 4
    TIME_WAIT = 5
    CLOSE = 6
    CLOSE_WAIT = 7
    LAST_ACK = 8
    LISTEN = 9
    SYNACK = 10
    UDP = 11


TIMEOUT_S: Final[dict[TcpState, int]] = {
    TcpState.NONE: 2,
    TcpState.ESTABLISHED: 900,
    TcpState.SYN_SENT: 120,
    TcpState.SYN_RECV: 60,
    TcpState.FIN_WAIT: 120,
    TcpState.TIME_WAIT: 120,
    TcpState.CLOSE: 10,
    TcpState.CLOSE_WAIT: 60,
    TcpState.LAST_ACK: 30,
    TcpState.LISTEN: 120,
    TcpState.SYNACK: 120,
    TcpState.UDP: 300,
}


def jiffies_of(seconds: int, hz: int) -> int:
    """Return a time-out in jiffies, at most 2³¹-1 (24 days at 1000 Hz), the range of the signed comparison in ``past()``."""
    return min(max(0, seconds) * hz, 0x7FFFFFFF)


def port_to(port: int) -> int:
    """Return a port with its two bytes swapped (network order on a little-endian machine)."""
    return port >> 8 | (port & 0xFF) << 8


port_from = port_to


def mapped(data: bytes) -> bytes:
    """Return an address of 4 or 16 bytes as 16 bytes, IPv4 mapped."""
    return data if len(data) == 16 else b"\0" * 10 + b"\xff\xff" + data


def packed(text: str) -> bytes:
    """Return an address as 16 bytes, IPv4 mapped."""
    return mapped(ip_address(text).packed)


def address_text(data: bytes) -> str:
    """Return 16 bytes as the text of an address."""
    six = IPv6Address(data)
    return str(six.ipv4_mapped or six)


def filter_bit(data: bytes) -> int:
    """Return the number of an address's bit in the filters (``fold_address`` and ``hash_32`` of the programs)."""
    words = [int.from_bytes(data[i : i + 4], "big") for i in (0, 4, 8, 12)]
    folded = words[3] if data[:12] == b"\0" * 10 + b"\xff\xff" else words[0] ^ words[1] ^ words[2] ^ words[3]
    return ((folded * 0x61C88647) & 0xFFFFFFFF) >> (32 - FILTER_BITS)
