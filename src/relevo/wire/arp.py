"""ARP (RFC 826): announcements that update the neighbour caches of a LAN after an address moved, and those of others."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

BROADCAST: Final = b"\xff" * 6
ETHERTYPE: Final = 0x0806
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_KINDS: Final = (1, 0x0800, 6, 4)
"""Ethernet, IPv4, and the lengths of their addresses."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody with ``hardware_address`` says that ``address`` is his; ``gratuitous`` if that is all that he says."""

    hardware_address: bytes
    address: str
    gratuitous: bool


def gratuitous_arp(hardware_address: bytes, address: str) -> bytes:
    """Build the Ethernet frame of a gratuitous ARP request for an IPv4 ``address`` (RFC 5227 §3, RFC 9568 §8.2.2)."""
    protocol_address = bytes(map(int, address.split(".")))
    ethernet = BROADCAST + hardware_address + struct.pack("!H", ETHERTYPE)
    body = _ARP.pack(1, 0x0800, 6, 4, 1, hardware_address, protocol_address, BROADCAST, protocol_address)
    return (ethernet + body).ljust(60, b"\0")


def read_claim(body: bytes) -> Claim | None:
    """Return what the sender of an ARP message says of himself; ``None`` if it is none of Ethernet and IPv4, or says nothing."""
    if len(body) < _ARP.size:
        return None
    *kinds, _, hardware_address, address, _, target = _ARP.unpack_from(body)
    if tuple(kinds) != _KINDS or not any(address):  # 0.0.0.0 asks whether an address is free (RFC 5227 §2.1)
        return None
    return Claim(hardware_address, ".".join(map(str, address)), gratuitous=address == target)
