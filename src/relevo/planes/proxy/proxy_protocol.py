"""The PROXY protocol header, which passes the client's address to a server (HAProxy's proxy-protocol.txt, versions 1 and 2)."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Final

from relevo.model import Endpoint

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_COMMAND_PROXY: Final = 0x21
_STREAM: Final = 0x1
_DATAGRAM: Final = 0x2


def header(version: int, client: Endpoint, virtual: Endpoint, *, stream: bool = True) -> bytes:
    """Return the header that precedes the first byte; empty for version 0. Version 1 is for TCP (``stream``) only."""
    if version == 0 or (version == 1 and not stream):
        return b""
    source, destination = ip_address(client.address), ip_address(virtual.address)
    if version == 1:
        family = "TCP4" if source.version == 4 else "TCP6"
        return f"PROXY {family} {source} {destination} {client.port} {virtual.port}\r\n".encode()
    family_2 = (0x10 if source.version == 4 else 0x20) | (_STREAM if stream else _DATAGRAM)
    addresses = source.packed + destination.packed + struct.pack("!HH", client.port, virtual.port)
    return SIGNATURE + struct.pack("!BBH", _COMMAND_PROXY, family_2, len(addresses)) + addresses
