"""VRRP adverts: version 2 over IPv4 (RFC 3768, with PASS authentication), and version 3 over IPv4 and IPv6 (RFC 9568).

The address family is that of the packet's source. ``admit`` checks an advert against an instance (version, interval, peers,
secret); ``machines.vrrp`` handles it after that, ``wire.ah`` the header of IPsec before it. Addresses are text, intervals are in
seconds.
"""

from __future__ import annotations

import enum
import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

from relevo.model import AuthenticationType, VrrpInstance
from relevo.wire.checksum import internet_checksum

PROTOCOL: Final = 112
"""IP protocol number of VRRP."""
ADVERTISEMENT: Final = 1
AUTH_NONE: Final = 0
AUTH_PASS: Final = 1
AUTH_AH: Final = 2
AUTH_LENGTH: Final = 8
PRIORITY_STOP: Final = 0
TTL: Final = 255
"""An advert with another TTL or hop limit crossed a router and may be forged (RFC 9568 §5.1.1.3, §5.1.2.3)."""
TOS: Final = 0xC0
"""Internetwork control precedence, as keepalived sends."""

_HEADER = struct.Struct("!BBBBBBH")
_HEADER_3 = struct.Struct("!BBBBHH")


class AdvertRefusal(enum.StrEnum):
    """Why an advert was discarded. The values are names in metrics and status; they do not change."""

    TRUNCATED = "truncated"
    LENGTH = "length"
    VERSION = "version"
    TYPE = "type"
    CHECKSUM = "checksum"
    TTL = "ttl"
    UNKNOWN_ROUTER = "unknown_virtual_router"
    OWN = "own"
    NOT_A_PEER = "not_a_peer"
    MODE = "multicast_or_unicast"
    AUTHENTICATION_TYPE = "authentication_type"
    AUTHENTICATION = "authentication"
    SEQUENCE = "sequence_number"
    INTERVAL = "interval"


@dataclass(frozen=True, slots=True)
class Advert:
    """One advertisement. ``secret`` is the authentication data of version 2, or empty."""

    version: int
    virtual_router_id: int
    priority: int
    interval_s: float
    addresses: tuple[str, ...]
    secret: bytes = b""
    auth_type: int = AUTH_NONE


@dataclass(frozen=True, slots=True)
class Envelope:
    """Addresses and TTL or hop limit of a received packet; that is ``None`` where it is not checked (UDP, unicast).

    ``headers`` are those of IP and AH, of a packet that has the latter.
    """

    source: str
    destination: str
    ttl: int | None = None
    headers: bytes = b""


def encode(advert: Advert, source: str, destination: str, *, pseudo_header: bool = True) -> bytes:
    """Encode ``advert``. ``pseudo_header`` says whether a version 3 checksum covers the addresses of the IP header.

    With IPv6 it must (RFC 9568 §5.2.8), unless the advert is carried in UDP.
    """
    body = b"".join(_packed(address) for address in advert.addresses)
    count = len(advert.addresses)
    if advert.version == 2:
        auth = advert.secret[:AUTH_LENGTH].ljust(AUTH_LENGTH, b"\0")
        head = (
            0x20 | ADVERTISEMENT,
            advert.virtual_router_id,
            advert.priority,
            count,
            advert.auth_type,
            int(advert.interval_s),
        )
        checksum = internet_checksum(_HEADER.pack(*head, 0) + body + auth)
        return _HEADER.pack(*head, checksum) + body + auth
    head_3 = (
        0x30 | ADVERTISEMENT,
        advert.virtual_router_id,
        advert.priority,
        count,
        round(advert.interval_s * 100) & 0xFFF,
    )
    packet = _HEADER_3.pack(*head_3, 0) + body
    prefix = _pseudo_header(source, destination, len(packet)) if pseudo_header else b""
    return _HEADER_3.pack(*head_3, internet_checksum(prefix + packet)) + body


def decode(data: bytes, envelope: Envelope, *, pseudo_header: bool = True) -> Advert | AdvertRefusal:
    """Decode an advert that arrived in ``envelope``, or return why it is refused."""
    if len(data) < _HEADER.size:
        return AdvertRefusal.TRUNCATED
    version, kind = data[0] >> 4, data[0] & 0x0F
    if version not in (2, 3):
        return AdvertRefusal.VERSION
    if kind != ADVERTISEMENT:
        return AdvertRefusal.TYPE
    if envelope.ttl is not None and envelope.ttl != TTL:
        return AdvertRefusal.TTL
    ipv6 = ":" in envelope.source
    if ipv6 and version == 2:
        return AdvertRefusal.VERSION
    size = 16 if ipv6 else 4
    end = _HEADER.size + size * data[3]
    if len(data) != end + (AUTH_LENGTH if version == 2 else 0):
        return AdvertRefusal.LENGTH
    prefix = b""
    if version == 3 and pseudo_header:
        prefix = _pseudo_header(envelope.source, envelope.destination, len(data))
    if internet_checksum(prefix + data) != 0:
        return AdvertRefusal.CHECKSUM
    text = _text6 if ipv6 else _text4
    addresses = tuple(text(data[at : at + size]) for at in range(_HEADER.size, end, size))
    if version == 2:
        return Advert(2, data[1], data[2], float(data[5]), addresses, data[end:], data[4])
    return Advert(3, data[1], data[2], (int.from_bytes(data[4:6], "big") & 0xFFF) / 100, addresses)


def virtual_router_id(data: bytes) -> int | None:
    """Return the virtual router id of a packet, whether the rest is valid or not; ``None`` if the packet is too short."""
    return data[1] if len(data) > 1 else None


def admit(advert: Advert, envelope: Envelope, instance: VrrpInstance, own_address: str) -> AdvertRefusal | None:
    """Return why ``instance`` must discard ``advert``, or ``None`` to process it (RFC 9568 §7.1, RFC 3768 §7.1)."""
    if envelope.source == own_address:
        return AdvertRefusal.OWN
    if advert.version != instance.version:
        return AdvertRefusal.VERSION
    multicast = is_multicast(envelope.destination)
    if multicast == bool(instance.unicast_peers):
        return AdvertRefusal.MODE
    if instance.unicast_peers and envelope.source not in instance.unicast_peers:
        return AdvertRefusal.NOT_A_PEER
    if instance.version == 2:
        if advert.auth_type != auth_type(instance):
            return AdvertRefusal.AUTHENTICATION_TYPE
        if advert.auth_type == AUTH_PASS and advert.secret != secret_of(instance):
            return AdvertRefusal.AUTHENTICATION
        if advert.interval_s != instance.advert_interval_s:
            return AdvertRefusal.INTERVAL
    return None


def auth_type(instance: VrrpInstance) -> int:
    """Return the authentication type in adverts of ``instance``, as version 2 numbers them."""
    if instance.authentication is None:
        return AUTH_NONE
    return AUTH_AH if instance.authentication.type is AuthenticationType.AH else AUTH_PASS


def secret_of(instance: VrrpInstance) -> bytes:
    """Return the secret of ``instance``: eight bytes, zero-padded. Adverts with PASS carry it, AH has it as its key."""
    if instance.authentication is None:
        return b""
    return instance.authentication.password.encode()[:AUTH_LENGTH].ljust(AUTH_LENGTH, b"\0")


def is_multicast(address: str) -> bool:
    """Whether an address is in 224.0.0.0/4 or ff00::/8."""
    if ":" in address:
        return address[:2].lower() == "ff" and address.index(":") == 4
    return 224 <= int(address.partition(".")[0]) < 240


def _packed(address: str) -> bytes:
    return ipaddress.IPv6Address(address).packed if ":" in address else bytes(map(int, address.split(".")))


def _text4(packed: bytes) -> str:
    return ".".join(map(str, packed))


def _text6(packed: bytes) -> str:
    return str(ipaddress.IPv6Address(packed))


def _pseudo_header(source: str, destination: str, length: int) -> bytes:
    """Return the bytes that are put before the packet for its checksum (RFC 5798 §5.2.8, RFC 8200 §8.1)."""
    form = "!II" if ":" in source else "!HH"
    values = (length, PROTOCOL) if ":" in source else (PROTOCOL, length)
    return _packed(source) + _packed(destination) + struct.pack(form, *values)


def address_rank(address: str) -> int:
    """Return the rank of an address in ties of priority: the greater wins (RFC 9568 §6.4.3)."""
    return int(ipaddress.ip_address(address))
