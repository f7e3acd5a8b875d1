"""Parser of the kernel's list of IPVS connections, ``/proc/net/ip_vs_conn``. Netlink has no command for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

_LEAST_FIELDS: Final = 9


class ConnectionLine(NamedTuple):
    """One line. ``protocol`` is TCP, UDP, SCTP or IP; ``virtual`` of a firewall mark's template is the mark as an address."""

    protocol: str
    client: str
    client_port: int
    virtual: str
    virtual_port: int
    server: str
    server_port: int
    state: str
    expires_s: int
    engine: str = ""
    engine_data: str = ""


def read_connections(lines: Iterable[str]) -> Iterator[ConnectionLine]:
    """Yield the connections of the list; other lines are skipped."""
    for line in lines:
        fields = line.split()
        if len(fields) < _LEAST_FIELDS or fields[0] == "Pro":
            continue
        try:
            yield ConnectionLine(
                fields[0],
                _address(fields[1]),
                int(fields[2], 16),
                _address(fields[3]),
                int(fields[4], 16),
                _address(fields[5]),
                int(fields[6], 16),
                fields[7],
                int(fields[8]),
                *fields[9:11],
            )
        except ValueError:
            continue


def read_origins(lines: Iterable[str]) -> Iterator[str]:
    """Yield the origin of each connection of ``/proc/net/ip_vs_conn_sync``: LOCAL or SYNC."""
    for line in lines:
        fields = line.split()
        if len(fields) > _LEAST_FIELDS and fields[0] != "Pro":
            yield fields[8]


def _address(text: str) -> str:
    """Parse an address: eight hexadecimal digits for IPv4; IPv6 in full, with or without brackets."""
    bare = text.strip("[]")
    return str(IPv6Address(bare)) if ":" in bare else str(IPv4Address(int(bare, 16)))
