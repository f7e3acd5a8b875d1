"""Thousands of random packets, each compared with a model of a few lines of Python."""

from __future__ import annotations

import random
import struct
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
from scapy.layers.inet import TCP, UDP

from relevo.model import Protocol
from tests.ebpf.packets import (
    CLIENT,
    ETHERNET,
    FAMILIES,
    GATEWAY_MAC,
    INSIDE_MAC,
    OUTSIDE_MAC,
    PASS,
    REDIRECT,
    SERVER,
    SERVER_MAC,
    SHOT,
    VIRTUAL,
    XDP_DROP,
    XDP_PASS,
    XDP_REDIRECT,
    Director,
    checksums_are_right,
    from_client,
    ip,
    server,
)

TCP_NUMBER, UDP_NUMBER, GRE = 6, 17, 47
SYN = 0x02
PORTS = {(4, TCP_NUMBER): (80, 8080), (4, UDP_NUMBER): (53, 5353), (6, TCP_NUMBER): (80, 8081), (6, UDP_NUMBER): (53, 5354)}


def ones_sum(data: bytes) -> int:
    """The sum of 16-bit words in one's complement."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@dataclass(frozen=True)
class Plain:
    """A packet's fields."""

    family: int
    protocol: int
    source: str
    destination: str
    source_port: int
    destination_port: int
    ttl: int = 64
    flags: int = 0
    payload: bytes = b""
    between: bytes = b""
    without_checksum: bool = False

    def transport(self) -> bytes:
        ports = struct.pack("!HH", self.source_port, self.destination_port)
        if self.protocol == TCP_NUMBER:
            return ports + struct.pack("!IIBBHHH", 1, 2, 0x50, self.flags, 512, 0, 0) + self.payload
        if self.protocol == UDP_NUMBER:
            return ports + struct.pack("!HH", 8 + len(self.payload), 0) + self.payload
        return ports + self.payload

    def packet(self) -> bytes:
        source, destination = ip_address(self.source).packed, ip_address(self.destination).packed
        transport = self.transport()
        pseudo = source + destination + struct.pack("!II", self.protocol, len(transport))
        checksum = ones_sum(pseudo + transport) ^ 0xFFFF
        if self.protocol == TCP_NUMBER:
            transport = transport[:16] + checksum.to_bytes(2, "big") + transport[18:]
        elif self.protocol == UDP_NUMBER and not self.without_checksum:
            transport = transport[:6] + (checksum or 0xFFFF).to_bytes(2, "big") + transport[8:]
        if self.family == 6:
            following = 60 if self.between else self.protocol
            begin = struct.pack("!IHBB", 6 << 28, len(self.between) + len(transport), following, self.ttl)
            return begin + source + destination + self.between + transport
        words = 5 + len(self.between) // 4
        total = words * 4 + len(transport)
        begin = struct.pack("!BBHHHBBH", 0x40 | words, 0, total, 99, 0x4000, self.ttl, self.protocol, 0)
        header = begin + source + destination + self.between
        return header[:10] + (ones_sum(header) ^ 0xFFFF).to_bytes(2, "big") + header[12:] + transport

    def but(self, source: str, source_port: int, destination: str, destination_port: int) -> bytes:
        """The packet with other addresses and ports, and the TTL decremented."""
        changed = {"source": source, "destination": destination, "source_port": source_port, "destination_port": destination_port}
        return Plain(**{**self.__dict__, **changed, "ttl": self.ttl - 1}).packet()


Tuple = tuple[int, int, str, int, str, int]
ANSWERED = b""


@dataclass
class Model:
    """Services of one server each, by NAT."""

    connections: set[Tuple] = field(default_factory=set)

    def meets(self, p: Plain) -> tuple[int, bytes | None]:
        """Verdict and packet; ``ANSWERED`` for something else that goes back, ``None`` for the packet as it was."""
        if p.protocol not in (TCP_NUMBER, UDP_NUMBER) or p.source in ("127.0.0.1", "::1", "224.0.0.5", "ff02::1"):
            return PASS, None
        port, server_port = PORTS[p.family, p.protocol]
        served = (p.destination, p.destination_port) == (VIRTUAL[p.family], port)
        forward = (p.family, p.protocol, p.source, p.source_port, p.destination, p.destination_port)
        if served and forward not in self.connections:
            if p.source_port == 20 or (p.protocol == TCP_NUMBER and not p.flags & SYN):
                served = False
            else:
                self.connections.add(forward)
        if served:
            return REDIRECT, p.but(p.source, p.source_port, SERVER[p.family], server_port) if p.ttl > 1 else ANSWERED
        answered = (p.family, p.protocol, p.destination, p.destination_port, VIRTUAL[p.family], port)
        if (p.source, p.source_port) == (SERVER[p.family], server_port) and answered in self.connections:
            return REDIRECT, p.but(VIRTUAL[p.family], port, p.destination, p.destination_port) if p.ttl > 1 else ANSWERED
        return PASS, None


def random_packet(chance: random.Random) -> tuple[Plain, bool]:
    """A packet, and whether it comes from the servers' side."""
    family = chance.choice(FAMILIES)
    protocol = chance.choice((TCP_NUMBER, UDP_NUMBER) * 6 + (GRE,))
    port, server_port = PORTS[family, protocol if protocol != GRE else TCP_NUMBER]
    clients = [f"{CLIENT[family][:-1]}{i}" for i in range(2, 7)]
    odd = ["127.0.0.1", "224.0.0.5", "203.0.113.9"] if family == 4 else ["::1", "ff02::1", "2001:db8::9"]
    client, client_port = chance.choice(clients * 3 + odd), chance.choice((20, 1024, 1025, 1026, 40_000, 65_535))
    inside = chance.random() < 0.4
    virtual = chance.choice([VIRTUAL[family]] * 6 + [f"{SERVER[family]}"])
    ends = (client, client_port, virtual, chance.choice([port] * 6 + [port + 1]))
    if inside:
        behind = chance.choice([SERVER[family]] * 6 + [VIRTUAL[family]])
        ends = (behind, chance.choice([server_port] * 6 + [port]), chance.choice(clients), client_port)
    packet = Plain(
        family,
        protocol,
        ends[0],
        ends[2],
        ends[1],
        ends[3],
        ttl=chance.choice((0, 1, 2, 63, 64, 64, 64, 255)),
        flags=chance.choice((0x02, 0x02, 0x10, 0x18, 0x11, 0x12)),
        payload=chance.randbytes(chance.choice((0, 1, 2, 3, 17, 64, chance.randint(0, 600)))),
        between=between(chance, family, protocol) if chance.random() < 0.15 else b"",
        without_checksum=chance.random() < 0.2,
    )
    return packet, inside


def between(chance: random.Random, family: int, protocol: int) -> bytes:
    """IP options, or a header of destination options."""
    if family == 4:
        return b"\x01" * 4 * chance.randint(1, 10)
    words = chance.randint(0, 6)
    return bytes([protocol, words, 1, 4 + 8 * words]) + bytes(4 + 8 * words)


def test_the_model_makes_packets_as_scapy_does() -> None:
    for family in FAMILIES:
        header = ip(CLIENT[family], VIRTUAL[family], **({"id": 99, "flags": "DF"} if family == 4 else {}))
        tcp = Plain(family, TCP_NUMBER, CLIENT[family], VIRTUAL[family], 7, 80, flags=0x12, payload=b"odd")
        segment = TCP(sport=7, dport=80, seq=1, ack=2, flags="SA", window=512)
        assert tcp.packet() == bytes(header / segment / b"odd")
        udp = Plain(family, UDP_NUMBER, CLIENT[family], VIRTUAL[family], 7, 53, payload=b"even")
        assert udp.packet() == bytes(header / UDP(sport=7, dport=53) / b"even")
        longer = Plain(family, UDP_NUMBER, CLIENT[family], VIRTUAL[family], 7, 53, between=between(random.Random(1), family, 17))
        assert checksums_are_right(longer.packet())
    assert bytes(from_client(header))[:6] == bytes.fromhex(OUTSIDE_MAC.replace(":", ""))


ETHERNETS = {False: (OUTSIDE_MAC, GATEWAY_MAC), True: (INSIDE_MAC, SERVER_MAC)}


@pytest.mark.parametrize("seed", range(6))
def test_random_packets_are_treated_as_the_model_says(director: Director, seed: int) -> None:
    for (family, number), (port, server_port) in PORTS.items():
        protocol = Protocol.TCP if number == TCP_NUMBER else Protocol.UDP
        director.serve(family, protocol, server(SERVER[family], server_port), port=port)
    chance, model, seen = random.Random(seed), Model(), Counter[str]()
    for index in range(1500):
        plain, inside = random_packet(chance)
        to, came_from = (bytes.fromhex(mac.replace(":", "")) for mac in ETHERNETS[inside])
        frame = to + came_from + (b"\x08\x00" if plain.family == 4 else b"\x86\xdd") + plain.packet()
        padding = bytes(max(0, 60 - len(frame)))
        verdict, left = director.run(frame + padding, director.inside if inside else director.outside)
        wanted, packet = model.meets(plain)
        what = f"packet {index} of seed {seed}: {plain}"
        assert verdict == wanted, what
        if packet is None:
            seen["left"] += 1
            assert left == frame + padding, what
        elif packet is ANSWERED:
            seen["answered"] += 1
            assert left[:12] == came_from + to, what
            assert checksums_are_right(left[ETHERNET:]), what
        else:
            seen["to client" if inside else "to server"] += 1
            assert left[ETHERNET:] == packet + padding, what
    assert min(seen[name] for name in ("left", "answered", "to client", "to server")) > 10, seen
    assert len(director.connections()) == len(model.connections)


@pytest.mark.parametrize("seed", range(3))
def test_a_corrupted_packet_is_changed_only_when_it_is_forwarded(director: Director, seed: int) -> None:
    for (family, number), (port, server_port) in PORTS.items():
        protocol = Protocol.TCP if number == TCP_NUMBER else Protocol.UDP
        director.serve(family, protocol, server(SERVER[family], server_port), port=port)
    chance = random.Random(seed)
    to, came_from = (bytes.fromhex(mac.replace(":", "")) for mac in ETHERNETS[False])
    for _ in range(1500):
        plain, _ = random_packet(chance)
        frame = bytearray(to + came_from + (b"\x08\x00" if plain.family == 4 else b"\x86\xdd") + plain.packet())
        for _ in range(chance.randint(1, 4)):
            frame[chance.randrange(12, min(len(frame), 80))] = chance.randrange(256)
        shortest = min(len(frame), ETHERNET + 40)
        data = bytes(frame[: chance.choice((len(frame), len(frame), chance.randint(shortest, len(frame))))])
        verdict, left = director.run(data)
        assert verdict in (PASS, SHOT, REDIRECT)
        assert verdict != PASS or left == data, data.hex()
        ran = director.xdp(data)
        assert ran.verdict in (XDP_PASS, XDP_DROP, XDP_REDIRECT)
        assert ran.verdict != XDP_PASS or ran.frame == data, data.hex()
