"""Packets of connections through the programs: tables of packets in and out, with scapy as the oracle."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from relevo.model import Forwarding, Protocol, ServiceKey, Tunnel, TunnelKind
from relevo.planes.ebpf import syscall
from relevo.planes.ebpf.attach import XDP, XDP_FLAGS_DRV_MODE
from relevo.planes.ebpf.layout import ConnectionFlag, TcpState, packed
from relevo.planes.ebpf.reasons import Reason
from tests.ebpf.packets import (
    CLIENT,
    CLIENT_PORT,
    ETHERNET,
    FAMILIES,
    GATEWAY_MAC,
    INSIDE_MAC,
    KINDS,
    LOCAL,
    OUTSIDE_MAC,
    PORT,
    REDIRECT,
    SEGMENT,
    SERVER,
    SERVER_MAC,
    SERVER_PORT,
    SILENT,
    VIRTUAL,
    XDP_DROP,
    XDP_PASS,
    XDP_REDIRECT,
    XDP_TX,
    Director,
    Kind,
    checksums_are_right,
    datagram,
    from_client,
    from_server,
    ip,
    local_port,
    server,
    syn,
)

NAT, DR, TUN, FULLNAT = Forwarding.NAT, Forwarding.DR, Forwarding.TUN, Forwarding.FULLNAT
IPIP, GUE = 0, 1
GUE_PORT = 6080

families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"IPv{family}")
kinds = pytest.mark.parametrize("kind", KINDS, ids=str)
methods = pytest.mark.parametrize("method", [NAT, DR, FULLNAT], ids=lambda method: method.value)


def served(director: Director, family: int, kind: Kind, method: Forwarding = NAT) -> ServiceKey:
    return director.serve(family, kind.protocol, server(SERVER[family], forwarding=method))


def at_server(director: Director, family: int, kind: Kind, method: Forwarding, **fields: Any) -> Packet:
    """A client's packet as the server gets it; with FULLNAT, after its connection was opened."""
    if method is DR:
        return ip(CLIENT[family], VIRTUAL[family], 63, **fields) / kind.make(CLIENT_PORT, PORT)
    if method is FULLNAT:
        return ip(LOCAL[family], SERVER[family], 63, **fields) / kind.make(local_port(director.connection()), SERVER_PORT)
    return ip(CLIENT[family], SERVER[family], 63, **fields) / kind.make(CLIENT_PORT, SERVER_PORT)


def opened(director: Director, family: int, kind: Kind, method: Forwarding = NAT) -> None:
    """A connection that a packet has opened."""
    verdict, _ = director.run(from_client(ip(CLIENT[family], VIRTUAL[family]) / kind.make(CLIENT_PORT, PORT)))
    assert verdict == REDIRECT


def reply(director: Director, family: int, kind: Kind, method: Forwarding = NAT, ttl: int = 64) -> Packet:
    """The server's reply as the server sends it."""
    if method is FULLNAT:
        return ip(SERVER[family], LOCAL[family], ttl) / kind.make(SERVER_PORT, local_port(director.connection()))
    return ip(SERVER[family], CLIENT[family], ttl) / kind.make(SERVER_PORT, CLIENT_PORT)


# -- both directions ---------------------------------------------------------------------------------------------------


@families
@kinds
@methods
def test_a_clients_first_packet_reaches_the_server(director: Director, family: int, kind: Kind, method: Forwarding) -> None:
    served(director, family, kind, method)
    ran = director.tc(from_client(ip(CLIENT[family], VIRTUAL[family]) / kind.make(CLIENT_PORT, PORT)))
    assert ran.verdict == REDIRECT
    assert ran.packet == bytes(at_server(director, family, kind, method))
    assert not ran.reasons


@families
@pytest.mark.parametrize("kind", [SEGMENT, *KINDS[1:]], ids=str)
@methods
def test_a_clients_later_packet_reaches_the_same_server(director: Director, family: int, kind: Kind, method: Forwarding) -> None:
    served(director, family, kind, method)
    opened(director, family, KINDS[0] if kind is SEGMENT else kind)
    ran = director.tc(from_client(ip(CLIENT[family], VIRTUAL[family]) / kind.make(CLIENT_PORT, PORT)))
    assert ran.verdict == REDIRECT
    assert ran.packet == bytes(at_server(director, family, kind, method))
    assert not ran.reasons


@families
@pytest.mark.parametrize("kind", [SEGMENT, *KINDS[1:]], ids=str)
@pytest.mark.parametrize("method", [NAT, FULLNAT], ids=lambda method: method.value)
def test_a_servers_reply_reaches_the_client_from_the_virtual_address(
    director: Director, family: int, kind: Kind, method: Forwarding
) -> None:
    served(director, family, kind, method)
    opened(director, family, KINDS[0] if kind is SEGMENT else kind)
    ran = director.tc(from_server(reply(director, family, kind, method)), director.inside)
    assert ran.verdict == REDIRECT
    assert ran.packet == bytes(ip(VIRTUAL[family], CLIENT[family], 63) / kind.make(PORT, CLIENT_PORT))
    assert not ran.reasons


@families
@kinds
def test_a_server_without_a_port_is_addressed_at_the_packets_own(director: Director, family: int, kind: Kind) -> None:
    key = director.serve(family, kind.protocol, server(SERVER[family], port=0))
    ran = director.tc(from_client(ip(CLIENT[family], VIRTUAL[family]) / kind.make(CLIENT_PORT, PORT)))
    assert ran.packet == bytes(ip(CLIENT[family], SERVER[family], 63) / kind.make(CLIENT_PORT, PORT))
    answer = director.tc(from_server(ip(SERVER[family], CLIENT[family]) / kind.make(PORT, CLIENT_PORT)), director.inside)
    assert answer.packet == bytes(ip(VIRTUAL[family], CLIENT[family], 63) / kind.make(PORT, CLIENT_PORT))
    assert key.endpoint.port == PORT


@families
def test_a_service_of_every_port_keeps_the_port(director: Director, family: int) -> None:
    director.serve(family, Protocol.TCP, server(SERVER[family]), port=0, persistence_timeout_s=60)
    ran = director.tc(syn(family))
    assert ran.packet == bytes(ip(CLIENT[family], SERVER[family], 63) / TCP(sport=CLIENT_PORT, dport=PORT, flags="S", seq=1000))
    (template,) = director.templates()
    assert template.virtual_port == 0
    assert director.connection().flags & ConnectionFlag.KEEP_PORT


@families
@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 64, 1399])
def test_payloads_of_odd_and_even_length_keep_right_checksums(director: Director, family: int, size: int) -> None:
    payload = (bytes(range(256)) * 6)[:size]
    director.serve(family, Protocol.UDP)
    ran = director.tc(datagram(family, payload=payload))
    assert ran.verdict == REDIRECT
    assert ran.packet == bytes(ip(CLIENT[family], SERVER[family], 63) / UDP(sport=CLIENT_PORT, dport=SERVER_PORT) / payload)


def with_sum_of_nothing(header: Packet, transport: UDP) -> bytes:
    """Two bytes of payload with which the datagram's checksum would come out as 0."""
    return bytes((type(header))(bytes(header / transport / bytes(2)))[UDP])[6:8]


@families
def test_a_datagram_whose_checksum_comes_out_as_nothing_has_all_ones_in_its_place(director: Director, family: int) -> None:
    director.serve(family, Protocol.UDP)
    header, transport = ip(CLIENT[family], SERVER[family], 63), UDP(sport=CLIENT_PORT, dport=SERVER_PORT)
    payload = with_sum_of_nothing(header, transport)
    ran = director.tc(datagram(family, payload=payload))
    assert ran.packet == bytes(header / transport / payload)
    assert ran.packet[-4:-2] == b"\xff\xff"


@families
def test_a_datagram_that_came_with_all_ones_for_a_checksum_has_a_right_one(director: Director, family: int) -> None:
    director.serve(family, Protocol.UDP)
    came = ip(CLIENT[family], VIRTUAL[family]), UDP(sport=CLIENT_PORT, dport=PORT)
    payload = with_sum_of_nothing(*came)
    packet = datagram(family, payload=payload)
    assert bytes(packet)[-4:-2] == b"\xff\xff"
    ran = director.tc(packet)
    assert ran.packet == bytes(ip(CLIENT[family], SERVER[family], 63) / UDP(sport=CLIENT_PORT, dport=SERVER_PORT) / payload)


@families
@pytest.mark.parametrize("transport", [TCP, UDP], ids=["TCP", "UDP"])
@pytest.mark.parametrize("method", [NAT, FULLNAT], ids=lambda method: method.value)
def test_a_wrong_transport_checksum_stays_wrong(
    director: Director, family: int, transport: type[Packet], method: Forwarding
) -> None:
    protocol = Protocol.TCP if transport is TCP else Protocol.UDP
    director.serve(family, protocol, server(SERVER[family], forwarding=method))
    right = syn(family) if transport is TCP else datagram(family)
    wrong = Ether(bytes(right))
    wrong[transport].chksum ^= 0x0101
    verdict, frame = director.run(wrong)
    assert verdict == REDIRECT
    assert not checksums_are_right(frame[ETHERNET:])
    director.delete_all()
    verdict, frame = director.run(right)
    assert checksums_are_right(frame[ETHERNET:])


@methods
def test_a_wrong_header_checksum_stays_wrong(director: Director, method: Forwarding) -> None:
    served(director, 4, KINDS[0], method)
    wrong = Ether(bytes(syn()))
    wrong[IP].chksum ^= 0x0101
    verdict, frame = director.run(wrong)
    assert verdict == REDIRECT
    assert not checksums_are_right(frame[ETHERNET:])


@pytest.mark.parametrize("ttl", [2, 3, 64, 128, 255])
@families
@methods
def test_the_ttl_is_decremented(director: Director, family: int, ttl: int, method: Forwarding) -> None:
    served(director, family, KINDS[0], method)
    verdict, frame = director.run(syn(family, ttl=ttl))
    assert verdict == REDIRECT
    assert frame[ETHERNET + (8 if family == 4 else 7)] == ttl - 1
    assert checksums_are_right(frame[ETHERNET:])


@pytest.mark.parametrize("options", [[IPOption_NOP()] * 4, [IPOption_RR(length=39, pointer=4, routers=["0.0.0.0"] * 9)]], ids=len)
@pytest.mark.parametrize("kind", KINDS, ids=str)
@methods
def test_ip_options_are_left_as_they_are(director: Director, kind: Kind, options: list[Any], method: Forwarding) -> None:
    served(director, 4, kind, method)
    ran = director.tc(from_client(ip(CLIENT[4], VIRTUAL[4], options=options) / kind.make(CLIENT_PORT, PORT)))
    assert ran.verdict == REDIRECT
    assert ran.packet == bytes(at_server(director, 4, kind, method, options=options))


EXTENSIONS = {
    "hop-by-hop": [IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))])],
    "destination": [IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))])],
    "routing-that-is-over": [IPv6ExtHdrRouting(segleft=0)],
    "three": [IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting(segleft=0), IPv6ExtHdrDestOpt()],
}


@pytest.mark.parametrize("extensions", EXTENSIONS.values(), ids=EXTENSIONS.keys())
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("method", [NAT, DR], ids=lambda method: method.value)
def test_ipv6_extension_headers_are_left_as_they_are(
    director: Director, kind: Kind, extensions: list[Packet], method: Forwarding
) -> None:
    def extended(header: Packet, source: int, destination: int) -> Packet:
        for extension in extensions:
            header = header / extension.copy()
        return header / kind.make(source, destination)

    served(director, 6, kind, method)
    ran = director.tc(from_client(extended(ip(CLIENT[6], VIRTUAL[6]), CLIENT_PORT, PORT)))
    assert ran.verdict == REDIRECT
    if method is NAT:
        assert ran.packet == bytes(extended(ip(CLIENT[6], SERVER[6], 63), CLIENT_PORT, SERVER_PORT))
    else:
        assert ran.packet == bytes(extended(ip(CLIENT[6], VIRTUAL[6], 63), CLIENT_PORT, PORT))


@families
@methods
def test_padding_of_the_frame_is_no_part_of_the_packet(director: Director, family: int, method: Forwarding) -> None:
    kind = KINDS[2]
    key = served(director, family, kind, method)
    padding = b"\xaa" * 18
    packet = ip(CLIENT[family], VIRTUAL[family]) / kind.make(CLIENT_PORT, PORT)
    ran = director.tc(bytes(from_client(packet)) + padding)
    assert ran.packet == bytes(at_server(director, family, kind, method)) + padding
    assert director.traffic(key).bytes_in == len(packet)


@families
def test_traffic_is_counted_in_packets_and_bytes(director: Director, family: int) -> None:
    key = served(director, family, SEGMENT)
    sizes_in, sizes_out = [], []
    for length in (0, 1, 1000):
        packet = syn(family, flags="S" if not length else "A") / bytes(length)
        assert director.run(packet)[0] == REDIRECT
        sizes_in.append(len(packet) - ETHERNET)
        answer = ip(SERVER[family], CLIENT[family]) / TCP(sport=SERVER_PORT, dport=CLIENT_PORT, flags="SA") / bytes(length + 3)
        assert director.run(from_server(answer), director.inside)[0] == REDIRECT
        sizes_out.append(len(answer))
    traffic = director.traffic(key)
    assert (traffic.connections, traffic.packets_in, traffic.packets_out) == (1, 3, 3)
    assert (traffic.bytes_in, traffic.bytes_out) == (sum(sizes_in), sum(sizes_out))
    assert director.connection().packets == 3


@families
def test_a_super_packet_goes_whole_when_its_segments_fit(director: Director, family: int) -> None:
    director.serve(family)
    packet = syn(family, flags="A") / bytes(3000)
    assert director.run(syn(family))[0] == REDIRECT
    verdict, frame = director.run(packet, gso_size=1400)
    assert verdict == REDIRECT
    assert len(frame) == len(packet)
    assert checksums_are_right(frame[ETHERNET:])
    headers = len(syn(family)) - ETHERNET
    assert not director.tc(packet, gso_size=1500 - headers).reasons
    assert director.tc(packet, gso_size=1501 - headers).reasons == {Reason.REFUSED_TOO_BIG: 1}


# -- tunnels -----------------------------------------------------------------------------------------------------------


def tunnelled(director: Director, inner: int, outer: int, kind: Kind, tunnel: int = IPIP) -> ServiceKey:
    declared = Tunnel(TunnelKind.GUE, GUE_PORT) if tunnel == GUE else Tunnel()
    return director.serve(inner, kind.protocol, server(SERVER[outer], forwarding=TUN, tunnel=declared))


def traffic_class(family: int, value: int) -> dict[str, int]:
    return {"tos": value} if family == 4 else {"tc": value}


def wrapped(inner: Packet, outer: int, tunnel: int, value: int, *, flags: str, source_port: int) -> bytes:
    protocol = 4 if isinstance(inner, IP) else 41
    fields = traffic_class(outer, value) | ({"id": 0, "flags": flags} if outer == 4 else {})
    header = ip(LOCAL[outer], SERVER[outer], 63, **fields)
    if tunnel == GUE:
        udp = UDP(sport=source_port, dport=GUE_PORT, chksum=0)
        return bytes(header / udp / Raw(bytes([0, protocol, 0, 0]) + bytes(inner)))
    header.fields["proto" if outer == 4 else "nh"] = protocol
    return bytes(header / Raw(bytes(inner)))


def outer_source_port(packet: bytes) -> int:
    return int.from_bytes(packet[20:22] if packet[0] >> 4 == 4 else packet[40:42], "big")


@pytest.mark.parametrize("inner", FAMILIES, ids=lambda family: f"inner-IPv{family}")
@pytest.mark.parametrize("outer", FAMILIES, ids=lambda family: f"outer-IPv{family}")
@pytest.mark.parametrize("tunnel", [IPIP, GUE], ids=["ipip", "gue"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("value", [0, 0xB8 | 2], ids=["plain", "marked"])
def test_a_tunnel_wraps_the_whole_packet(director: Director, inner: int, outer: int, tunnel: int, kind: Kind, value: int) -> None:
    tunnelled(director, inner, outer, kind, tunnel)
    fields = traffic_class(inner, value) | ({"flags": "DF"} if inner == 4 else {})
    ran = director.tc(from_client(ip(CLIENT[inner], VIRTUAL[inner], **fields) / kind.make(CLIENT_PORT, PORT)))
    assert ran.verdict == REDIRECT
    aged = ip(CLIENT[inner], VIRTUAL[inner], 63, **fields) / kind.make(CLIENT_PORT, PORT)
    assert ran.packet == wrapped(aged, outer, tunnel, value, flags="DF", source_port=outer_source_port(ran.packet))
    assert ran.frame[12:14] == (b"\x08\x00" if outer == 4 else b"\x86\xdd")
    assert director.connection().flags & ConnectionFlag.NO_OUTPUT


@pytest.mark.parametrize("tunnel", [IPIP, GUE], ids=["ipip", "gue"])
def test_a_tunnels_packet_may_be_fragmented_if_the_packet_in_it_may(director: Director, tunnel: int) -> None:
    tunnelled(director, 4, 4, KINDS[1], tunnel)
    _, frame = director.run(datagram())
    outer = IP(frame[ETHERNET:])
    assert outer.flags == 0
    assert checksums_are_right(bytes(outer)[:20] + bytes(outer.payload))


def test_tunnel_packets_that_may_be_fragmented_have_identifications_of_their_own(director: Director) -> None:
    tunnelled(director, 4, 4, KINDS[1])
    seen = {IP(director.run(datagram(payload=bytes([i])))[1][ETHERNET:]).id for i in range(8)}
    assert len(seen) > 1


@families
def test_gue_spreads_flows_by_its_source_port(director: Director, family: int) -> None:
    tunnelled(director, family, family, KINDS[1], GUE)
    seen = {}
    for port in range(30_000, 30_050):
        first, second = (outer_source_port(director.run(datagram(family, port))[1][ETHERNET:]) for _ in range(2))
        assert first == second >= 49_152
        seen[port] = first
    assert len(set(seen.values())) > 40


# -- next hops ---------------------------------------------------------------------------------------------------------


@families
def test_a_known_next_hop_is_written_into_the_frame(director: Director, family: int) -> None:
    director.serve(family)
    director.forget_neighbours()
    director.keep_neighbours()
    _, first = director.run(syn(family))
    assert first[:ETHERNET] == bytes(syn(family))[:ETHERNET]
    _, second = director.run(syn(family))
    assert second[:ETHERNET] == bytes(Ether(src=INSIDE_MAC, dst=SERVER_MAC, type=0x0800 if family == 4 else 0x86DD))
    assert second[ETHERNET:] == first[ETHERNET:]


@families
def test_a_replys_next_hop_is_the_gateway_to_the_client(director: Director, family: int) -> None:
    director.serve(family, Protocol.UDP)
    director.keep_neighbours()
    opened(director, family, KINDS[1])
    answer = from_server(reply(director, family, KINDS[1]))
    director.run(answer, director.inside)
    _, frame = director.run(answer, director.inside)
    assert frame[:12] == bytes(Ether(src=OUTSIDE_MAC, dst=GATEWAY_MAC))[:12]


@families
def test_an_unresolved_neighbour_is_left_to_the_kernel(director: Director, family: int) -> None:
    director.serve(family, Protocol.TCP, server(SILENT[family]))
    director.keep_neighbours()
    for _ in range(2):
        verdict, frame = director.run(syn(family))
        assert verdict == REDIRECT
        assert frame[:ETHERNET] == bytes(syn(family))[:ETHERNET]


# -- XDP ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def fast(director: Director) -> Any:
    """A director whose interfaces take frames from XDP, and whose next hops stay known."""
    exits = director.instance.maps["exits"]
    director.keep_neighbours()
    for interface in (director.inside, director.outside):
        exits.update(interface.to_bytes(4, "little"), interface.to_bytes(4, "little"))
    yield director
    for interface in (director.inside, director.outside):
        exits.delete(interface.to_bytes(4, "little"))


def both_hooks(director: Director, packet: Packet, interface: int = 0) -> tuple[bytes, bytes]:
    """The frames that TC and XDP send for the same packet of a connection, once the next hop is cached."""
    director.run(packet, interface)
    verdict, by_tc = director.run(packet, interface)
    assert verdict == REDIRECT
    ran = director.xdp(packet)
    assert ran.verdict == XDP_REDIRECT
    return by_tc, ran.frame


@families
@pytest.mark.parametrize("kind", [SEGMENT, *KINDS[1:]], ids=str)
@methods
def test_xdp_does_to_a_clients_packet_what_tc_does(fast: Director, family: int, kind: Kind, method: Forwarding) -> None:
    served(fast, family, kind, method)
    opened(fast, family, KINDS[0] if kind is SEGMENT else kind, method)
    by_tc, by_xdp = both_hooks(fast, from_client(ip(CLIENT[family], VIRTUAL[family]) / kind.make(CLIENT_PORT, PORT)))
    assert by_xdp == by_tc
    assert by_xdp[:12] == bytes(Ether(src=INSIDE_MAC, dst=SERVER_MAC))[:12]
    assert by_xdp[ETHERNET:] == bytes(at_server(fast, family, kind, method))


@families
@pytest.mark.parametrize("kind", [SEGMENT, *KINDS[1:]], ids=str)
@pytest.mark.parametrize("method", [NAT, FULLNAT], ids=lambda method: method.value)
def test_xdp_does_to_a_reply_what_tc_does(fast: Director, family: int, kind: Kind, method: Forwarding) -> None:
    served(fast, family, kind, method)
    opened(fast, family, KINDS[0] if kind is SEGMENT else kind, method)
    by_tc, by_xdp = both_hooks(fast, from_server(reply(fast, family, kind, method)), fast.inside)
    assert by_xdp == by_tc
    assert by_xdp[ETHERNET:] == bytes(ip(VIRTUAL[family], CLIENT[family], 63) / kind.make(PORT, CLIENT_PORT))


@pytest.mark.parametrize("inner", FAMILIES, ids=lambda family: f"inner-IPv{family}")
@pytest.mark.parametrize("outer", FAMILIES, ids=lambda family: f"outer-IPv{family}")
@pytest.mark.parametrize("tunnel", [IPIP, GUE], ids=["ipip", "gue"])
def test_xdp_wraps_as_tc_does(fast: Director, inner: int, outer: int, tunnel: int) -> None:
    tunnelled(fast, inner, outer, KINDS[1], tunnel)
    fields = traffic_class(inner, 0x2E << 2) | ({"flags": "DF"} if inner == 4 else {})
    by_tc, by_xdp = both_hooks(fast, from_client(ip(CLIENT[inner], VIRTUAL[inner], **fields) / KINDS[1].make(CLIENT_PORT, PORT)))
    assert by_xdp == by_tc


@families
def test_xdp_keeps_the_checksum_rules_of_datagrams(fast: Director, family: int) -> None:
    fast.serve(family, Protocol.UDP)
    header, transport = ip(CLIENT[family], SERVER[family], 63), UDP(sport=CLIENT_PORT, dport=SERVER_PORT)
    payload = with_sum_of_nothing(header, transport)
    by_tc, by_xdp = both_hooks(fast, datagram(family, payload=payload))
    assert by_xdp == by_tc
    assert by_xdp[-4:-2] == b"\xff\xff"


@families
def test_xdp_sends_back_where_a_frame_came_in(fast: Director, family: int) -> None:
    gateway = {4: "10.1.0.2", 6: "fd00:1::2"}[family]
    fast.serve(family, Protocol.UDP, server(gateway))
    fast.run(datagram(family))
    fast.run(datagram(family))
    data = bytes(datagram(family))
    link = syscall.link_create(fast.instance.programs["relevo_xdp"], fast.outside, XDP, XDP_FLAGS_DRV_MODE)
    try:
        ran = fast.xdp(data, struct.pack("<6I", 0, len(data), 0, fast.outside, 0, 0))
    finally:
        syscall.os.close(link)
    assert ran.verdict == XDP_TX
    assert ran.frame[:12] == bytes(Ether(src=OUTSIDE_MAC, dst=GATEWAY_MAC))[:12]
    assert ran.packet == bytes(ip(CLIENT[family], gateway, 63) / UDP(sport=CLIENT_PORT, dport=SERVER_PORT) / b"datagram")


def test_xdp_leaves_to_tc_what_cannot_leave_by_xdp(director: Director) -> None:
    director.serve(4, Protocol.UDP)
    director.keep_neighbours()
    director.run(datagram())
    ran = director.xdp(datagram())
    assert (ran.verdict, ran.frame) == (XDP_PASS, bytes(datagram()))


def test_xdp_leaves_to_tc_a_next_hop_that_is_not_known(fast: Director) -> None:
    fast.serve(4, Protocol.UDP)
    fast.run(datagram())
    fast.forget_neighbours()
    ran = fast.xdp(datagram())
    assert (ran.verdict, ran.frame) == (XDP_PASS, bytes(datagram()))


LEFT_TO_TC = {
    "first packet": datagram(port=50_000),
    "time to live 1": datagram(ttl=1),
    "fragment": from_client(IP(src=CLIENT[4], dst=VIRTUAL[4], flags="MF") / UDP(sport=CLIENT_PORT, dport=PORT) / bytes(24)),
    "later fragment": from_client(IP(src=CLIENT[4], dst=VIRTUAL[4], frag=4, proto=17) / bytes(24)),
    "ICMP error": from_client(
        IP(src="10.1.0.2", dst=VIRTUAL[4]) / ICMP(type=3) / IP(src=VIRTUAL[4], dst=CLIENT[4]) / UDP(sport=PORT, dport=CLIENT_PORT)
    ),
    "too big": datagram(payload=bytes(1600)),
    "other hosts'": from_client(IP(src=CLIENT[4], dst="10.9.0.1") / UDP()),
    "ARP": Ether(src=GATEWAY_MAC, dst=OUTSIDE_MAC, type=0x0806) / Raw(bytes(28)),
    "multicast frame": Ether(src=GATEWAY_MAC, dst="01:00:5e:00:00:01") / datagram()[IP],
    "VLAN": Ether(src=GATEWAY_MAC, dst=OUTSIDE_MAC, type=0x8100) / Raw(b"\0\x05\x08\0" + bytes(datagram()[IP])),
}


@pytest.mark.parametrize("packet", LEFT_TO_TC.values(), ids=LEFT_TO_TC.keys())
def test_xdp_leaves_the_unusual_to_tc_unchanged(fast: Director, packet: Packet) -> None:
    fast.serve(4, Protocol.UDP)
    fast.run(datagram())
    fast.run(datagram())
    assert fast.xdp(datagram()).verdict == XDP_REDIRECT
    ran = fast.xdp(packet)
    assert (ran.verdict, ran.frame) == (XDP_PASS, bytes(packet))


def test_xdp_drops_a_frame_that_it_has_changed_and_cannot_finish(fast: Director) -> None:
    tunnelled(fast, 4, 6, KINDS[1], GUE)
    fast.run(datagram())
    fast.run(datagram())
    data, metadata = bytes(datagram()), 200
    try:
        ran = fast.xdp(bytes(metadata) + data, struct.pack("<6I", metadata, metadata + len(data), 0, 0, 0, 0))
    except OSError:
        pytest.skip("this kernel's test runs take no packet with so much before it")
    assert ran.verdict == XDP_DROP
    assert {reason.name for reason in ran.reasons} == {"DROP_REWRITE"}


def test_xdp_moves_states_and_counts_like_tc(fast: Director) -> None:
    key = fast.serve(4)
    for flags in ("S", "A"):
        fast.run(syn(flags=flags))
    assert fast.xdp(syn(flags="FA")).verdict == XDP_REDIRECT
    assert fast.connection().state == TcpState.CLOSE_WAIT
    assert (fast.server(key).active, fast.server(key).inactive) == (0, 1)
    assert fast.traffic(key).packets_in == 3
    assert bytes(fast.connection().virtual.bytes) == packed(VIRTUAL[4])
