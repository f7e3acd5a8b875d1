"""The IPv4 header, as a raw socket delivers it."""

from __future__ import annotations

from dataclasses import dataclass

MIN_HEADER = 20


@dataclass(frozen=True, slots=True)
class Ipv4Packet:
    """Addresses, TTL and payload of an IPv4 packet."""

    source: str
    destination: str
    ttl: int
    payload: bytes


def decode_ipv4(data: bytes) -> Ipv4Packet | None:
    """Split an IPv4 packet; ``None`` if its lengths contradict each other or the data."""
    if len(data) < MIN_HEADER or data[0] >> 4 != 4:
        return None
    header = (data[0] & 0x0F) * 4
    total = int.from_bytes(data[2:4], "big")
    if header < MIN_HEADER or not header <= total <= len(data):
        return None
    return Ipv4Packet(_dotted(data[12:16]), _dotted(data[16:20]), data[8], data[header:total])


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))
