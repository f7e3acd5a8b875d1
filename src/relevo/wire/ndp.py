"""Unsolicited neighbour advertisements (RFC 4861 §4.4, §7.2.6; RFC 9568 §8.2.2): the IPv6 counterpart of gratuitous ARP."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address
from typing import Final

from relevo.wire.checksum import internet_checksum

ETHERTYPE: Final = 0x86DD
ALL_NODES: Final = IPv6Address("ff02::1").packed
ALL_NODES_ETHERNET: Final = bytes.fromhex("333300000001")
_ICMPV6: Final = 58
_NEIGHBOUR_ADVERTISEMENT: Final = 136
_OVERRIDE: Final = 0x2000_0000
"""Override flag: replace the cached entry. The solicited flag is 0."""
_ROUTER: Final = 0x8000_0000
"""Router flag. A router whose advertisement lacks it is no default router any more (RFC 4861 §7.2.5)."""
_TARGET_LINK_LAYER_ADDRESS: Final = 2


def neighbour_advertisement(hardware_address: bytes, address: str, *, router: bool = False) -> bytes:
    """Build the Ethernet frame that advertises ``address`` at ``hardware_address`` (6 bytes) to all nodes of a link.

    ``router`` says whether the sender forwards packets of the link.
    """
    source = IPv6Address(address).packed
    option = struct.pack("!BB", _TARGET_LINK_LAYER_ADDRESS, 1) + hardware_address
    body = struct.pack("!I", _OVERRIDE | (_ROUTER if router else 0)) + source + option
    length = 4 + len(body)
    pseudo = source + ALL_NODES + struct.pack("!IHBB", length, 0, 0, _ICMPV6)
    checksum = internet_checksum(pseudo + struct.pack("!BBH", _NEIGHBOUR_ADVERTISEMENT, 0, 0) + body)
    icmp = struct.pack("!BBH", _NEIGHBOUR_ADVERTISEMENT, 0, checksum) + body
    header = struct.pack("!IHBB", 6 << 28, length, _ICMPV6, 255) + source + ALL_NODES
    return ALL_NODES_ETHERNET + hardware_address + struct.pack("!H", ETHERTYPE) + header + icmp
