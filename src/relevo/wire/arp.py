"""Gratuitous ARP (RFC 5227 §3, RFC 9568 §8.2.2): updates the neighbour caches of a LAN after an address moved."""

from __future__ import annotations

import struct
from typing import Final

BROADCAST: Final = b"\xff" * 6
ETHERTYPE: Final = 0x0806
_ARP = struct.Struct("!HHBBH6s4s6s4s")


def gratuitous_arp(hardware_address: bytes, address: str) -> bytes:
    """Build the Ethernet frame of a gratuitous ARP request for an IPv4 ``address``."""
    protocol_address = bytes(map(int, address.split(".")))
    ethernet = BROADCAST + hardware_address + struct.pack("!H", ETHERTYPE)
    body = _ARP.pack(1, 0x0800, 6, 4, 1, hardware_address, protocol_address, BROADCAST, protocol_address)
    return (ethernet + body).ljust(60, b"\0")
