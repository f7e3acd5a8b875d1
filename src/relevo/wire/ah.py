"""The authentication header of IPsec, as VRRP version 2 has it (RFC 2338 §5.3.6.3): HMAC-MD5 over what routers do not change.

As in keepalived, the key is the secret of the instance, the security parameter index is the sender's address, and all routers of
a group share one sequence: whoever becomes master goes on after the last number of his predecessor. That, and not RFC 2402, is
what peers expect; also that the TTL is covered where it is always 255, which is with multicast.

A packet whose number is not above the last one is a repetition. A group that starts anew begins with 1, so that what was recorded
before can be repeated then.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from typing import Final

from relevo.wire.checksum import internet_checksum
from relevo.wire.ip import decode_ipv4
from relevo.wire.vrrp import PROTOCOL as VRRP
from relevo.wire.vrrp import TOS, AdvertRefusal, Envelope, is_multicast

PROTOCOL: Final = 51
"""IP protocol number of the authentication header."""
MAX_SEQUENCE: Final = 0xFFFFFFFD
"""Last number of a sequence: with an advert a second it lasts for 136 years."""
_WORDS: Final = 4
"""Length of the header in words of 32 bits, less two."""
_HEAD: Final = struct.Struct("!BBH4sI")
"""Next header, length, reserved, security parameter index, sequence number; the digest follows."""
_DIGEST: Final = 12
_SIZE: Final = _HEAD.size + _DIGEST
_IP: Final = struct.Struct("!BBHHHBBH4s4s")


@dataclass(frozen=True, slots=True)
class Header:
    """What an advert is wrapped in: addresses, ``ttl``, ``identification`` of the IP packet (not 0), number in the sequence."""

    source: str
    destination: str
    ttl: int
    identification: int
    sequence: int


def wrap(advert: bytes, header: Header, key: bytes) -> bytes:
    """Return the IP packet with an advert. The kernel may set its checksum, and nothing else."""
    source, destination = _packed(header.source), _packed(header.destination)
    total = _IP.size + _SIZE + len(advert)
    head = _IP.pack(0x45, TOS, total, header.identification, 0, header.ttl, PROTOCOL, 0, source, destination)
    front = _HEAD.pack(VRRP, _WORDS, 0, source, header.sequence)
    digest = _digest(head + front + bytes(_DIGEST), advert, key, unicast=not is_multicast(header.destination))
    checksum = struct.pack("!H", internet_checksum(head))
    return head[:10] + checksum + head[12:] + front + digest + advert


def unwrap(packet: bytes) -> tuple[bytes, Envelope] | None:
    """Split an IP packet into the advert and its envelope; ``None`` if it is broken, or has something else behind the header."""
    found = decode_ipv4(packet)
    if found is None or len(found.payload) < _SIZE:
        return None
    following, words, *_ = _HEAD.unpack_from(found.payload)
    if following != VRRP or words != _WORDS:
        return None
    length = (packet[0] & 0x0F) * 4 + _SIZE
    ttl = found.ttl if is_multicast(found.destination) else None
    return found.payload[_SIZE:], Envelope(found.source, found.destination, ttl, packet[:length])


def verify(advert: bytes, envelope: Envelope, key: bytes) -> int | AdvertRefusal:
    """Return the number of an advert in the sequence, or why it is refused."""
    headers = envelope.headers
    if len(headers) < _IP.size + _SIZE:
        return AdvertRefusal.AUTHENTICATION_TYPE
    given = headers[-_DIGEST:]
    wanted = _digest(headers[:-_DIGEST] + bytes(_DIGEST), advert, key, unicast=not is_multicast(envelope.destination))
    *_, index, sequence = _HEAD.unpack_from(headers, len(headers) - _SIZE)
    if not hmac.compare_digest(given, wanted) or index != _packed(envelope.source):
        return AdvertRefusal.AUTHENTICATION
    return int(sequence)


def _digest(headers: bytes, advert: bytes, key: bytes, *, unicast: bool) -> bytes:
    """Return the digest over the headers, whose own digest is zero, without what routers change (RFC 2402 §3.3.3.1.1)."""
    fixed = bytearray(headers)
    fixed[1] = 0
    fixed[6:8] = fixed[10:12] = b"\0\0"
    if unicast:
        fixed[8] = 0
    return hmac.digest(key, bytes(fixed) + advert, "md5")[:_DIGEST]


def _packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))
