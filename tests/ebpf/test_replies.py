"""ICMP errors that are forwarded, and the director's own replies; scapy builds what is expected."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from relevo.model import Forwarding, Protocol, ServiceKey, Tunnel, TunnelKind
from relevo.model.table import AddServer, DeleteServer, DeleteService
from relevo.planes.ebpf.layout import PathMtu, TcpState, packed, port_to
from relevo.planes.ebpf.reasons import Reason
from tests.ebpf.packets import (
    CLIENT,
    CLIENT_PORT,
    ETHERNET,
    FAMILIES,
    GATEWAY,
    KINDS,
    LOCAL,
    NARROW,
    NARROW_CLIENT,
    NARROW_MTU,
    PASS,
    PORT,
    REDIRECT,
    SECOND,
    SERVER,
    SERVER_PORT,
    SHOT,
    VIRTUAL,
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
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"IPv{family}")
kinds = pytest.mark.parametrize("kind", KINDS, ids=str)
methods = pytest.mark.parametrize("method", list(Forwarding), ids=lambda method: method.value)
translations = pytest.mark.parametrize("method", [NAT, FULLNAT], ids=lambda method: method.value)

ERRORS: dict[int, dict[str, Packet]] = {
    4: {
        "port-unreachable": ICMP(type=3, code=3),
        "fragmentation-needed": ICMP(type=3, code=4, nexthopmtu=1400),
        "source-quench": ICMP(type=4),
        "time-exceeded": ICMP(type=11),
        "parameter-problem": ICMP(type=12),
    },
    6: {
        "port-unreachable": ICMPv6DestUnreach(code=4),
        "packet-too-big": ICMPv6PacketTooBig(mtu=1400),
        "time-exceeded": ICMPv6TimeExceeded(),
    },
}
errors = pytest.mark.parametrize(
    ("family", "error"),
    [(family, error) for family, of_family in ERRORS.items() for error in of_family.values()],
    ids=[f"IPv{family}-{name}" for family, of_family in ERRORS.items() for name in of_family],
)


def quoted(header: Packet, kind: Kind, source: int, destination: int, size: int = 8) -> bytes:
    """The part of a packet that an error quotes: its IP header and some bytes."""
    packet = bytes(header / kind.make(source, destination))
    return packet[: len(header) + size]


def with_ports(packet: bytes, header: int, source: int, destination: int) -> bytes:
    """The quoted packet with other ports and nothing else."""
    return packet[:header] + source.to_bytes(2, "big") + destination.to_bytes(2, "big") + packet[header + 4 :]


def header_of(family: int) -> int:
    return 20 if family == 4 else 40


def opened(director: Director, family: int, kind: Kind, method: Forwarding) -> ServiceKey:
    key = director.serve(family, kind.protocol, server(SERVER[family], forwarding=method))
    assert director.run(from_client(ip(CLIENT[family], VIRTUAL[family]) / kind.make(CLIENT_PORT, PORT)))[0] == REDIRECT
    return key


# -- from the servers' side --------------------------------------------------------------------------------------------


def error_about_clients_packet(
    director: Director, family: int, kind: Kind, method: Forwarding, error: Packet, *, size: int = 8, router: str = ""
) -> tuple[Packet, bytes]:
    """An error from a server, or from a router in front of it, about a client's packet; and what the client must receive."""
    fullnat = method is FULLNAT
    client, port = (LOCAL[family], local_port(director.connection())) if fullnat else (CLIENT[family], CLIENT_PORT)
    sent = quoted(ip(client, SERVER[family], 63), kind, port, SERVER_PORT, size)
    packet = ip(router or SERVER[family], client) / error.copy() / Raw(sent)
    original = quoted(ip(CLIENT[family], VIRTUAL[family], 63), kind, CLIENT_PORT, PORT, size)
    header = header_of(family)
    quote = original[:header] + with_ports(sent, header, CLIENT_PORT, PORT)[header:]
    return packet, bytes(ip(VIRTUAL[family], CLIENT[family], 63) / error.copy() / Raw(quote))


@errors
@kinds
@translations
def test_a_servers_error_reaches_the_client_about_the_packet_that_it_sent(
    director: Director, family: int, error: Packet, kind: Kind, method: Forwarding
) -> None:
    opened(director, family, kind, method)
    packet, expected = error_about_clients_packet(director, family, kind, method, error)
    ran = director.tc(from_server(packet), director.inside)
    assert ran.verdict == REDIRECT
    assert ran.packet == expected
    assert not ran.reasons


@families
@pytest.mark.parametrize("size", [8, 9, 20, 24, 27])
@translations
def test_errors_may_quote_more_or_less(director: Director, family: int, size: int, method: Forwarding) -> None:
    kind, error = KINDS[0], next(iter(ERRORS[family].values()))
    opened(director, family, kind, method)
    packet, expected = error_about_clients_packet(director, family, kind, method, error, size=size)
    assert director.tc(from_server(packet), director.inside).packet == expected


@families
@translations
def test_an_error_of_a_router_near_the_server_comes_from_the_virtual_address(
    director: Director, family: int, method: Forwarding
) -> None:
    kind, error = KINDS[1], next(iter(ERRORS[family].values()))
    opened(director, family, kind, method)
    packet, expected = error_about_clients_packet(director, family, kind, method, error, router=SECOND[family])
    assert director.tc(from_server(packet), director.inside).packet == expected


@families
def test_an_error_changes_no_state_and_counts_no_traffic(director: Director, family: int) -> None:
    key = opened(director, family, KINDS[0], NAT)
    before = director.connection()
    packet, _ = error_about_clients_packet(director, family, KINDS[0], NAT, next(iter(ERRORS[family].values())))
    director.run(from_server(packet), director.inside)
    assert director.connection().state == before.state == TcpState.SYN_RECV
    assert director.traffic(key).packets_out == 0


# -- from the client's side --------------------------------------------------------------------------------------------


def error_about_reply(
    director: Director, family: int, kind: Kind, method: Forwarding, error: Packet, size: int = 8
) -> tuple[Packet, Packet]:
    """An error from a router on the client's side about a reply; and what the server must receive."""
    sent = quoted(ip(VIRTUAL[family], CLIENT[family], 62), kind, PORT, CLIENT_PORT, size)
    packet = ip(GATEWAY[family], VIRTUAL[family]) / error.copy() / Raw(sent)
    if method in (DR, TUN):
        return packet, ip(GATEWAY[family], VIRTUAL[family], 63) / error.copy() / Raw(sent)
    client, port = CLIENT[family], CLIENT_PORT
    if method is FULLNAT:
        client, port = LOCAL[family], local_port(director.connection())
    header = header_of(family)
    original = bytes(ip(SERVER[family], client, 62) / kind.make(SERVER_PORT, port))[:header]
    quote = original + with_ports(sent, header, SERVER_PORT, port)[header:]
    return packet, ip(GATEWAY[family], SERVER[family], 63) / error.copy() / Raw(quote)


@errors
@kinds
@methods
def test_an_error_about_a_reply_reaches_the_server_that_sent_it(
    director: Director, family: int, error: Packet, kind: Kind, method: Forwarding
) -> None:
    opened(director, family, kind, method)
    packet, expected = error_about_reply(director, family, kind, method, error)
    ran = director.tc(from_client(packet))
    assert ran.verdict == REDIRECT
    if method is not TUN:
        assert ran.packet == bytes(expected)
        return
    header = header_of(family)
    assert ran.packet[header:] == bytes(expected)
    fields = {"proto": 4, "id": IP(ran.packet).id} if family == 4 else {"nh": 41}
    outer = ip(LOCAL[family], SERVER[family], 63, **fields) / Raw(bytes(expected))
    assert ran.packet[:header] == bytes(outer)[:header]


@families
@methods
def test_a_wrong_checksum_of_an_error_stays_wrong(director: Director, family: int, method: Forwarding) -> None:
    opened(director, family, KINDS[1], method)
    packet, _ = error_about_reply(director, family, KINDS[1], method, next(iter(ERRORS[family].values())))
    data = bytearray(bytes(from_client(packet)))
    data[ETHERNET + header_of(family) + 2] ^= 0x55
    _, frame = director.run(bytes(data))
    inner = frame[ETHERNET + (header_of(family) if method is TUN else 0) :]
    assert not checksums_are_right(inner)


def strangers(family: int) -> dict[str, Packet]:
    """Errors about packets of no connection, or that cannot be parsed."""
    error = next(iter(ERRORS[family].values()))
    virtual, client = VIRTUAL[family], CLIENT[family]
    answer = ip(virtual, client) / UDP(sport=PORT, dport=CLIENT_PORT) / b"datagram"

    def about(quote: Any) -> Packet:
        return ip(GATEWAY[family], virtual) / error.copy() / Raw(bytes(quote))

    known = {
        "another client's port": about(ip(virtual, client) / UDP(sport=PORT, dport=CLIENT_PORT + 1)),
        "another protocol": about(ip(virtual, client) / TCP(sport=PORT, dport=CLIENT_PORT)),
        "no ports": about(bytes(answer)[: header_of(family) + 3]),
        "no header": about(bytes(answer)[: header_of(family) - 1]),
        "another version": about(bytes([bytes(answer)[0] ^ 0x20]) + bytes(answer)[1:]),
        "neither TCP nor UDP": about(ip(virtual, client, **({"proto": 47} if family == 4 else {"nh": 47})) / bytes(20)),
        "time to live 1": ip(GATEWAY[family], virtual, 1) / error.copy() / Raw(bytes(answer)),
    }
    if family == 4:
        known["options in the quoted packet"] = about(
            ip(virtual, client, options=[IPOption_NOP()] * 4) / UDP(sport=PORT, dport=CLIENT_PORT)
        )
        known["a later fragment quoted"] = about(ip(virtual, client, frag=3) / UDP(sport=PORT, dport=CLIENT_PORT))
    return known


@pytest.mark.parametrize(
    ("family", "packet"),
    [(family, packet) for family in FAMILIES for packet in strangers(family).values()],
    ids=[f"IPv{family}-{name}" for family in FAMILIES for name in strangers(family)],
)
def test_an_error_about_no_known_connection_is_passed_to_the_stack(director: Director, family: int, packet: Packet) -> None:
    opened(director, family, KINDS[1], NAT)
    ran = director.tc(from_client(packet))
    assert (ran.verdict, ran.packet) == (PASS, bytes(packet))
    assert ran.reasons in ({Reason.PASS_NO_CONNECTION: 1}, {Reason.PASS_MALFORMED: 1})


@pytest.mark.parametrize("kind", [0, 8, 13], ids=["echo-reply", "echo", "timestamp"])
def test_icmp_other_than_errors_is_passed_to_the_stack(director: Director, kind: int) -> None:
    director.serve()
    ran = director.tc(from_client(ip(CLIENT[4], VIRTUAL[4]) / ICMP(type=kind) / bytes(64)))
    assert (ran.verdict, ran.reasons) == (PASS, {Reason.PASS_PROTOCOL: 1})


@families
def test_an_error_about_an_orphan_is_passed_to_the_stack(director: Director, family: int) -> None:
    key = opened(director, family, KINDS[1], NAT)
    packet, _ = error_about_reply(director, family, KINDS[1], NAT, next(iter(ERRORS[family].values())))
    director.apply(DeleteServer(key, server(SERVER[family]).endpoint))
    assert director.run(from_client(packet))[0] == PASS
    assert len(director.connections()) == 1


# -- replies -----------------------------------------------------------------------------------------------------------


ERROR_MOST = {4: 576, 6: 1280}
"""Bytes of an ICMP error: RFC 1812 §4.3.2.3, RFC 4443 §2.4."""


def icmp_reply_to(packet: Packet, error: Packet) -> bytes:
    """The ICMP error that answers a frame, as scapy builds it: from where it was sent to, back where it came from; it quotes as
    much of the packet as fits.
    """
    ethernet, inner = packet, packet.payload
    family = 4 if isinstance(inner, IP) else 6
    fields = {"id": 0, "flags": "DF"} if family == 4 else {}
    quote = bytes(inner)[: ERROR_MOST[family] - header_of(family) - 8]
    header = ip(inner.dst, inner.src, 64, **fields)
    return bytes(Ether(src=ethernet.dst, dst=ethernet.src) / header / error / Raw(quote))


UNREACHABLE_PORT = {4: ICMP(type=3, code=3), 6: ICMPv6DestUnreach(code=4)}
EXPIRED = {4: ICMP(type=11, code=0), 6: ICMPv6TimeExceeded(code=0)}


def too_big(family: int, mtu: int) -> Packet:
    return ICMP(type=3, code=4, nexthopmtu=mtu) if family == 4 else ICMPv6PacketTooBig(mtu=mtu)


@families
@pytest.mark.parametrize("length", [0, 1, 12, 13, 519, 520, 521, 1000, 1183, 1184, 1185, 1400])
@kinds
def test_without_a_server_the_port_is_unreachable(director: Director, family: int, kind: Kind, length: int) -> None:
    key = director.serve(family, kind.protocol)
    director.apply(DeleteServer(key, server(SERVER[family]).endpoint))
    packet = from_client(ip(CLIENT[family], VIRTUAL[family]) / kind.make(CLIENT_PORT, PORT) / bytes(length))
    ran = director.tc(packet)
    assert ran.verdict == REDIRECT
    assert ran.frame == icmp_reply_to(packet, UNREACHABLE_PORT[family])
    assert ran.reasons == {Reason.REFUSED_NO_DESTINATION: 1}
    assert director.service(key).refused == 1


@families
@kinds
@methods
@pytest.mark.parametrize("ttl", [0, 1])
def test_a_clients_packet_whose_ttl_expires_gets_an_error(
    director: Director, family: int, kind: Kind, method: Forwarding, ttl: int
) -> None:
    director.serve(family, kind.protocol, server(SERVER[family], forwarding=method))
    packet = from_client(ip(CLIENT[family], VIRTUAL[family], ttl) / kind.make(CLIENT_PORT, PORT))
    ran = director.tc(packet)
    assert ran.verdict == REDIRECT
    assert ran.frame == icmp_reply_to(packet, EXPIRED[family])
    assert ran.reasons == {Reason.REFUSED_TTL: 1}


@families
@translations
def test_a_servers_packet_whose_ttl_expires_gets_an_error(director: Director, family: int, method: Forwarding) -> None:
    opened(director, family, KINDS[1], method)
    client, port = (LOCAL[family], local_port(director.connection())) if method is FULLNAT else (CLIENT[family], CLIENT_PORT)
    packet = from_server(ip(SERVER[family], client, 1) / UDP(sport=SERVER_PORT, dport=port) / b"answer")
    ran = director.tc(packet, director.inside)
    assert ran.frame == icmp_reply_to(packet, EXPIRED[family])
    assert ran.reasons == {Reason.REFUSED_TTL: 1}


@families
@pytest.mark.parametrize("over", [0, 1], ids=["fits", "one-byte-over"])
@pytest.mark.parametrize("method", [NAT, DR, FULLNAT], ids=lambda method: method.value)
def test_a_clients_packet_above_the_mtu_gets_an_error_with_the_mtu(
    director: Director, family: int, over: int, method: Forwarding
) -> None:
    director.serve(family, Protocol.UDP, server(NARROW[family], forwarding=method))
    fields = {"flags": "DF"} if family == 4 else {}
    header = ip(CLIENT[family], VIRTUAL[family], **fields) / UDP(sport=CLIENT_PORT, dport=PORT)
    packet = from_client(header / bytes(NARROW_MTU - len(header) + over))
    for _ in range(2):
        ran = director.tc(packet)
        assert ran.verdict == REDIRECT
        if over:
            assert ran.frame == icmp_reply_to(packet, too_big(family, NARROW_MTU))
            assert ran.reasons == {Reason.REFUSED_TOO_BIG: 1}
        else:
            assert not ran.reasons


@families
@translations
def test_a_servers_packet_above_the_mtu_gets_an_error_with_the_mtu(director: Director, family: int, method: Forwarding) -> None:
    director.serve(family, Protocol.UDP, server(SERVER[family], forwarding=method))
    assert director.run(datagram(family, client=NARROW_CLIENT[family]))[0] == REDIRECT
    client, port = NARROW_CLIENT[family], CLIENT_PORT
    if method is FULLNAT:
        client, port = LOCAL[family], local_port(director.connection())
    fields = {"flags": "DF"} if family == 4 else {}
    packet = from_server(ip(SERVER[family], client, **fields) / UDP(sport=SERVER_PORT, dport=port) / bytes(1400))
    ran = director.tc(packet, director.inside)
    assert ran.frame == icmp_reply_to(packet, too_big(family, NARROW_MTU))
    assert ran.reasons == {Reason.REFUSED_TOO_BIG: 1}


OVERHEAD = {(4, 0): 20, (6, 0): 40, (4, 1): 32, (6, 1): 52}


@pytest.mark.parametrize("tunnel", [0, 1], ids=["ipip", "gue"])
@pytest.mark.parametrize("outer", FAMILIES, ids=lambda family: f"outer-IPv{family}")
@pytest.mark.parametrize("inner", FAMILIES, ids=lambda family: f"inner-IPv{family}")
@pytest.mark.parametrize("over", [0, 1], ids=["fits", "one-byte-over"])
def test_a_tunnels_own_headers_count_towards_the_size(director: Director, inner: int, outer: int, tunnel: int, over: int) -> None:
    key = director.serve(inner, Protocol.UDP, server(SERVER[outer], forwarding=TUN))
    director.server(key).tunnel, director.server(key).tunnel_port = tunnel, port_to(6080)
    fields = {"flags": "DF"} if inner == 4 else {}
    header = ip(CLIENT[inner], VIRTUAL[inner], **fields) / UDP(sport=CLIENT_PORT, dport=PORT)
    packet = from_client(header / bytes(1500 - OVERHEAD[outer, tunnel] - len(header) + over))
    ran = director.tc(packet)
    assert ran.reasons == ({Reason.REFUSED_TOO_BIG: 1} if over else {})


@pytest.mark.parametrize("tunnel", [0, 1], ids=["ipip", "gue"])
@pytest.mark.parametrize("outer", FAMILIES, ids=lambda family: f"outer-IPv{family}")
@pytest.mark.parametrize("inner", FAMILIES, ids=lambda family: f"inner-IPv{family}")
def test_the_mtu_in_the_error_leaves_room_for_the_tunnel(director: Director, inner: int, outer: int, tunnel: int) -> None:
    key = director.serve(inner, Protocol.UDP, server(SERVER[outer], forwarding=TUN))
    director.server(key).tunnel, director.server(key).tunnel_port = tunnel, port_to(6080)
    fields = {"flags": "DF"} if inner == 4 else {}
    header = ip(CLIENT[inner], VIRTUAL[inner], **fields) / UDP(sport=CLIENT_PORT, dport=PORT)
    packet = from_client(header / bytes(1500 - len(header)))
    ran = director.tc(packet)
    assert ran.frame == icmp_reply_to(packet, too_big(inner, 1500 - OVERHEAD[outer, tunnel]))


PROTOCOL_OF_TUNNEL = {(4, 0): 4, (6, 0): 41}


def router_reports_mtu(director: Director, inner: int, outer: int, tunnel: int, mtu: int) -> None:
    """A router behind the director cannot forward a tunnel's packet; its error quotes eight bytes of the inner packet."""
    within = bytes(UDP(sport=50_000, dport=6080)) if tunnel else bytes(ip(CLIENT[inner], VIRTUAL[inner]))[:8]
    header = ip(LOCAL[outer], SERVER[outer])
    header.fields["proto" if outer == 4 else "nh"] = 17 if tunnel else PROTOCOL_OF_TUNNEL[inner, 0]
    router = "10.2.0.77" if outer == 4 else "fd00:2::77"
    director.run(from_server(ip(router, LOCAL[outer]) / too_big(outer, mtu) / Raw(bytes(header) + within)), director.inside)


@pytest.mark.parametrize("tunnel", [0, 1], ids=["ipip", "gue"])
@pytest.mark.parametrize("outer", FAMILIES, ids=lambda family: f"outer-IPv{family}")
@pytest.mark.parametrize("inner", FAMILIES, ids=lambda family: f"inner-IPv{family}")
@pytest.mark.parametrize("mtu", [1400, 100])
def test_a_routers_path_mtu_limits_packets_through_a_tunnel(
    director: Director, inner: int, outer: int, tunnel: int, mtu: int
) -> None:
    """No router can lower it below the kernel's own minimum."""
    declared = Tunnel(TunnelKind.GUE, 6080) if tunnel else Tunnel()
    director.serve(inner, Protocol.UDP, server(SERVER[outer], forwarding=TUN, tunnel=declared))
    fields = {"flags": "DF"} if inner == 4 else {}
    header = ip(CLIENT[inner], VIRTUAL[inner], **fields) / UDP(sport=CLIENT_PORT, dport=PORT)
    packet = from_client(header / bytes(1450 - len(header)))
    assert director.tc(packet).verdict == REDIRECT
    router_reports_mtu(director, inner, outer, tunnel, mtu)
    least = {4: 552, 6: 1280}[outer]
    assert director.tc(packet).frame == icmp_reply_to(packet, too_big(inner, max(mtu, least) - OVERHEAD[outer, tunnel]))
    director.instance.maps["path_mtus"].delete(packed(SERVER[outer]))
    assert director.tc(packet).verdict == REDIRECT


def test_a_path_mtu_expires(director: Director) -> None:
    director.serve(4, Protocol.UDP, server(SERVER[4], forwarding=TUN))
    router_reports_mtu(director, 4, 4, 0, 1000)
    paths = director.instance.maps["path_mtus"]
    held = PathMtu.from_buffer_copy(paths.lookup(packed(SERVER[4])) or b"")
    assert 599 * director.settings.hz < (held.expires - director.instance.jiffies()) & 0xFFFFFFFF <= 600 * director.settings.hz
    held.expires = director.instance.jiffies() - 1 & 0xFFFFFFFF
    paths.update(packed(SERVER[4]), bytes(held))
    packet = ip(CLIENT[4], VIRTUAL[4], flags="DF") / UDP(sport=CLIENT_PORT, dport=PORT) / bytes(1400)
    assert director.tc(from_client(packet)).verdict == REDIRECT
    paths.delete(packed(SERVER[4]))


@pytest.mark.parametrize("about", ["10.2.0.99", "10.99.0.1"])
def test_path_mtu_errors_about_no_tunnel_are_ignored(director: Director, about: str) -> None:
    director.serve(4, Protocol.UDP, server(SERVER[4], forwarding=TUN))
    header = IP(src=LOCAL[4], dst=about, proto=4)
    error = ip("10.2.0.77", LOCAL[4]) / too_big(4, 1000) / Raw(bytes(header) + bytes(8))
    director.run(from_server(error), director.inside)
    assert director.instance.maps["path_mtus"].lookup(packed(about)) is None


@pytest.mark.parametrize("limit", [0, 3])
def test_replies_per_second_are_limited(director: Director, limit: int) -> None:
    director.serve(4, Protocol.UDP)
    director.settings.replies_per_second = limit
    begun = director.instance.jiffies() & 0xFFFFFFFF
    director.instance.maps["replies"].update(bytes(4), (begun << 32).to_bytes(8, "little"))
    director.settings.hz *= 1000
    seen = [director.tc(datagram(ttl=1)) for _ in range(limit + 2)]
    assert [ran.verdict for ran in seen] == [REDIRECT] * limit + [SHOT] * 2
    assert [ran.reasons for ran in seen[limit:]] == [{Reason.REFUSED_TTL: 1, Reason.DROP_REPLY_LIMIT: 1}] * 2


WITH_MORE_HEADERS = {
    "with options": from_client(ip(CLIENT[4], VIRTUAL[4], 1, options=[IPOption_NOP()] * 4) / UDP(sport=CLIENT_PORT, dport=PORT)),
    "with an extension header": from_client(
        ip(CLIENT[6], VIRTUAL[6], 1) / IPv6ExtHdrDestOpt() / UDP(sport=CLIENT_PORT, dport=PORT)
    ),
    "a first fragment": from_client(ip(CLIENT[6], VIRTUAL[6], 1) / IPv6ExtHdrFragment(m=1) / UDP(sport=CLIENT_PORT, dport=PORT)),
}


@pytest.mark.parametrize("packet", WITH_MORE_HEADERS.values(), ids=WITH_MORE_HEADERS.keys())
def test_an_error_quotes_options_and_extension_headers(director: Director, packet: Packet) -> None:
    family = 4 if IP in packet else 6
    director.serve(family, Protocol.UDP)
    ran = director.tc(packet)
    assert (ran.verdict, ran.reasons) == (REDIRECT, {Reason.REFUSED_TTL: 1})
    assert ran.frame == icmp_reply_to(packet, EXPIRED[family])


# -- resets ------------------------------------------------------------------------------------------------------------


def orphaned(director: Director, family: int, method: Forwarding = NAT) -> ServiceKey:
    key = director.serve(family, Protocol.TCP, server(SERVER[family], forwarding=method))
    assert director.run(syn(family))[0] == REDIRECT
    director.apply(
        DeleteServer(key, server(SERVER[family], forwarding=method).endpoint),
        AddServer(key, server(SECOND[family], forwarding=method)),
    )
    return key


RESETS = {
    "acknowledging": ({"flags": "A", "seq": 5, "ack": 0xFFFFFFF0}, 0, {"flags": "R", "seq": 0xFFFFFFF0, "ack": 0}),
    "acknowledgment with data": ({"flags": "PA", "seq": 5, "ack": 9}, 100, {"flags": "R", "seq": 9, "ack": 0}),
    "ending": ({"flags": "FA", "seq": 5, "ack": 9}, 0, {"flags": "R", "seq": 9, "ack": 0}),
    "ending without acknowledging": ({"flags": "F", "seq": 5}, 0, {"flags": "RA", "seq": 0, "ack": 6}),
    "data without acknowledgment": ({"flags": "P", "seq": 0xFFFFFFFF}, 11, {"flags": "RA", "seq": 0, "ack": 10}),
    "nothing": ({"flags": "", "seq": 5}, 0, {"flags": "RA", "seq": 0, "ack": 5}),
    "options and urgent data": (
        {"flags": "PUA", "seq": 5, "ack": 9, "urgptr": 3, "options": [("Timestamp", (1, 2)), ("NOP", None), ("NOP", None)]},
        3,
        {"flags": "R", "seq": 9, "ack": 0},
    ),
    "options without acknowledging": (
        {"flags": "F", "seq": 5, "options": [("Timestamp", (1, 2)), ("NOP", None), ("NOP", None)]},
        7,
        {"flags": "RA", "seq": 0, "ack": 13},
    ),
}


@families
@pytest.mark.parametrize(("fields", "length", "reset"), RESETS.values(), ids=RESETS.keys())
def test_a_connection_whose_server_was_removed_is_reset(
    director: Director, family: int, fields: dict[str, Any], length: int, reset: dict[str, Any]
) -> None:
    orphaned(director, family)
    packet = from_client(ip(CLIENT[family], VIRTUAL[family]) / TCP(sport=CLIENT_PORT, dport=PORT, **fields) / (b"\x5a" * length))
    ran = director.tc(packet)
    assert ran.verdict == REDIRECT
    header = ip(VIRTUAL[family], CLIENT[family], 64, **({"id": 0, "flags": "DF"} if family == 4 else {}))
    tcp = TCP(sport=PORT, dport=CLIENT_PORT, window=0, **reset)
    assert ran.frame == bytes(Ether(src=packet.dst, dst=packet.src) / header / tcp)
    assert ran.reasons == {Reason.REFUSED_ORPHAN: 1}
    assert not director.entries()


@families
@methods
def test_every_forwarding_method_resets_its_orphans(director: Director, family: int, method: Forwarding) -> None:
    orphaned(director, family, method)
    ran = director.tc(syn(family, flags="A"))
    assert ran.reasons == {Reason.REFUSED_ORPHAN: 1}
    assert checksums_are_right(ran.packet)


def test_a_padded_segment_is_reset_by_its_own_length(director: Director) -> None:
    orphaned(director, 4)
    packet = bytes(syn(flags="F")) + bytes(6)
    assert Ether(director.tc(packet).frame)[TCP].ack == 1001


@families
def test_a_reset_gets_no_reply(director: Director, family: int) -> None:
    orphaned(director, family)
    ran = director.tc(syn(family, flags="R"))
    assert (ran.verdict, ran.reasons) == (SHOT, {Reason.REFUSED_ORPHAN: 1})


@families
def test_a_syn_of_an_orphan_gets_another_server(director: Director, family: int) -> None:
    key = orphaned(director, family)
    assert director.run(syn(family))[0] == REDIRECT
    assert director.connection().server == director.number(key)


@families
def test_a_datagram_of_an_orphan_gets_another_server(director: Director, family: int) -> None:
    key = opened(director, family, KINDS[1], NAT)
    director.apply(DeleteServer(key, server(SERVER[family]).endpoint), AddServer(key, server(SECOND[family])))
    ran = director.tc(datagram(family))
    assert (ran.verdict, ran.reasons) == (REDIRECT, {})
    assert ran.packet == bytes(ip(CLIENT[family], SECOND[family], 63) / UDP(sport=CLIENT_PORT, dport=SERVER_PORT) / b"datagram")


@families
def test_a_reply_of_a_removed_server_is_not_translated(director: Director, family: int) -> None:
    orphaned(director, family)
    answer = from_server(ip(SERVER[family], CLIENT[family]) / TCP(sport=SERVER_PORT, dport=CLIENT_PORT, flags="SA"))
    assert director.run(answer, director.inside) == (PASS, bytes(answer))


@families
def test_without_its_service_a_connection_is_passed_to_the_stack(director: Director, family: int) -> None:
    key = orphaned(director, family)
    director.apply(DeleteService(key))
    assert director.run(syn(family, flags="A"))[0] == PASS
