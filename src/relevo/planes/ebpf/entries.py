"""Services and servers as the programs have them in memory, and as the model has them; and the filter of their addresses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, Final

from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey, Tunnel, TunnelKind
from relevo.model.table import (
    ServerEntry,
    ServiceEntry,
    Traffic,
)
from relevo.planes.ebpf.layout import (
    Counters,
    SchedulerNumber,
    ServerValue,
    ServiceFlag,
    ServiceKeyValue,
    ServiceValue,
    TunnelNumber,
    address_text,
    filter_bit,
    packed,
    port_from,
    port_to,
)

NUMBERS: Final = {
    "none": SchedulerNumber.NONE,
    "rr": SchedulerNumber.RR,
    "wrr": SchedulerNumber.WRR,
    "lc": SchedulerNumber.LC,
    "wlc": SchedulerNumber.WLC,
    "sed": SchedulerNumber.SED,
    "nq": SchedulerNumber.NQ,
    "fo": SchedulerNumber.FO,
    "ovf": SchedulerNumber.OVF,
    "sh": SchedulerNumber.SH,
    "dh": SchedulerNumber.DH,
    "mh": SchedulerNumber.MH,
}
NAMES: Final = {number: name for name, number in NUMBERS.items()}
PROTOCOLS: Final = {Protocol.TCP: 6, Protocol.UDP: 17}
PROTOCOL_OF: Final = {number: protocol for protocol, number in PROTOCOLS.items()}
FORWARDINGS: Final = {Forwarding.NAT: 0, Forwarding.DR: 1, Forwarding.TUN: 2, Forwarding.FULLNAT: 3}
FORWARDING_OF: Final = {number: forwarding for forwarding, number in FORWARDINGS.items()}
TUNNELS: Final = {TunnelKind.IPIP: TunnelNumber.IPIP, TunnelKind.GUE: TunnelNumber.GUE}
TUNNEL_OF: Final = {number: kind for kind, number in TUNNELS.items()}
TABLED: Final = frozenset((SchedulerNumber.SH, SchedulerNumber.DH, SchedulerNumber.MH))
"""Schedulers that read a hash table."""

COUNTER_NAMES: Final = ("connections", "packets_in", "packets_out", "bytes_in", "bytes_out")


def known_scheduler(name: str) -> SchedulerNumber:
    """Return the number of a scheduler; wlc for one that this plane lacks."""
    return NUMBERS.get(name, SchedulerNumber.WLC)


@dataclass(slots=True)
class Server:
    """A server, its index and value in ``servers``, and its last weight other than 0."""

    entry: ServerEntry
    number: int
    value: ServerValue
    last_weight: int


@dataclass(slots=True)
class Service:
    """A service, its index and value in ``services``, and its servers, newest first. ``written`` is its stored server list."""

    entry: ServiceEntry
    number: int
    value: ServiceValue
    servers: list[Server] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    dirty: bool = False

    def find(self, endpoint: Endpoint) -> Server | None:
        """Return the server at ``endpoint``."""
        return next((server for server in self.servers if server.entry.endpoint == endpoint), None)


class AddressFilter:
    """One bit per hash value of an address. The programs read it first and skip packets whose addresses have no bit."""

    def __init__(self, bits: Any) -> None:
        self._bits = bits
        self._held: Counter[int] = Counter()

    def add(self, address: str) -> None:
        """Set the bit of an address."""
        bit = filter_bit(packed(address))
        self._held[bit] += 1
        self._bits[bit >> 3] |= 1 << (bit & 7)

    def discard(self, address: str) -> None:
        """Remove an address; clear its bit when no other address has it."""
        bit = filter_bit(packed(address))
        self._held[bit] -= 1
        if self._held[bit] <= 0:
            del self._held[bit]
            self._bits[bit >> 3] &= ~(1 << (bit & 7)) & 0xFF


def counter_value(value: int) -> int:
    """Return a counter, 0 if it is below 0: packets update it concurrently."""
    return value if value < 1 << 31 else 0


def traffic_of(counted: Counters) -> Traffic:
    return Traffic(
        connections=counted.connections,
        packets_in=counted.packets_in,
        packets_out=counted.packets_out,
        bytes_in=counted.bytes_in,
        bytes_out=counted.bytes_out,
    )


def family_of(key: ServiceKey) -> int:
    return (6 if key.is_ipv6 else 4) if key.mark else 0


def key_bytes(key: ServiceKey) -> bytes:
    value = ServiceKeyValue(family=family_of(key))
    if key.mark:
        value.address.bytes[:8] = key.mark.to_bytes(8, "little")
    else:
        value.port, value.protocol = port_to(key.endpoint.port), PROTOCOLS[key.protocol]
        value.address.bytes[:] = packed(key.endpoint.address)
    return bytes(value)


def mask_bytes(prefix: int, six: bool) -> bytes:
    bits = prefix if six else 96 + prefix
    return ((1 << 128) - (1 << (128 - bits))).to_bytes(16, "big")


def service_entry(value: ServiceValue, hz: int) -> ServiceEntry:
    address = address_text(bytes(value.address.bytes))
    ones = bin(int.from_bytes(bytes(value.mask.bytes), "big")).count("1")
    prefix = {SchedulerNumber.SH: "sh", SchedulerNumber.MH: "mh"}.get(value.scheduler, "")
    flags = [
        f"{prefix}-{name}"
        for name, bit in (("fallback", ServiceFlag.FALLBACK), ("port", ServiceFlag.HASH_PORT))
        if value.flags & bit
    ]
    if value.family:
        key = ServiceKey.of_mark(int(IPv4Address(address)), ipv6=value.family == 6)
    else:
        key = ServiceKey(PROTOCOL_OF[value.protocol], Endpoint(address, port_from(value.port)))
    return ServiceEntry(
        key=key,
        scheduler=NAMES[value.scheduler],
        scheduler_flags=tuple(flags),
        one_packet=bool(value.flags & ServiceFlag.ONE_PACKET),
        refuses_by_reset=bool(value.flags & ServiceFlag.RESET),
        persistence_timeout_s=value.persistence // hz,
        persistence_granularity=ones if key.is_ipv6 else ones - 96,
    )


def server_entry(value: ServerValue, local_addresses: tuple[str, ...]) -> ServerEntry:
    return ServerEntry(
        endpoint=Endpoint(address_text(bytes(value.address.bytes)), port_from(value.port)),
        weight=value.weight,
        forwarding=FORWARDING_OF[value.forwarding],
        tunnel=Tunnel(TUNNEL_OF[TunnelNumber(value.tunnel)], port_from(value.tunnel_port)),
        local_addresses=local_addresses,
        upper_threshold=value.upper,
        lower_threshold=value.lower,
    )
