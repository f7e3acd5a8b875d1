"""Fragments in every order, fragments that are held and released, and packets that are fragmented by the programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6
from scapy.packet import Packet, Raw

from relevo.model import Forwarding, Protocol, Tunnel, TunnelKind
from relevo.model.table import AddServer, DeleteServer
from relevo.planes.ebpf.reasons import Reason
from tests.ebpf.packets import (
    BIG,
    CLIENT,
    CLIENT_PORT,
    ETHERNET,
    FAMILIES,
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
    datagram,
    from_client,
    from_server,
    ip,
    local_port,
    pieces,
    server,
)

NAT, DR, TUN, FULLNAT = Forwarding.NAT, Forwarding.DR, Forwarding.TUN, Forwarding.FULLNAT
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"IPv{family}")
methods = pytest.mark.parametrize("method", [NAT, DR, FULLNAT], ids=lambda method: method.value)
translations = pytest.mark.parametrize("method", [NAT, FULLNAT], ids=lambda method: method.value)
orders = pytest.mark.parametrize("order", list(permutations(range(3))), ids=lambda order: "".join(map(str, order)))

HELD = {Reason.AGAIN_HELD: 1}
RELEASED = {Reason.AGAIN_RELEASED: 1}


def clients(family: int, payload: bytes) -> list[Packet]:
    """A client's datagram in fragments."""
    packet = ip(CLIENT[family], VIRTUAL[family]) / UDP(sport=CLIENT_PORT, dport=PORT) / payload
    return [from_client(piece) for piece in pieces(packet)]


def put_together(frames: Iterable[bytes], family: int) -> bytes:
    """The payload of the fragments in order of offset; nothing may be missing or duplicated."""
    if family == 4:
        parts = sorted((part.frag, bytes(part.payload)) for part in (IP(frame[ETHERNET:]) for frame in frames))
        assert sum(IP(frame[ETHERNET:]).flags.MF for frame in frames) == len(parts) - 1
    else:
        headers = [IPv6(frame[ETHERNET:])[IPv6ExtHdrFragment] for frame in frames]
        parts = sorted((header.offset, bytes(header.payload)) for header in headers)
    carried = b""
    for offset, payload in parts:
        assert offset * 8 == len(carried)
        carried += payload
    return carried


def ends(frame: bytes, family: int) -> tuple[str, str, int]:
    header = (IP if family == 4 else IPv6)(frame[ETHERNET:])
    return header.src, header.dst, header.ttl if family == 4 else header.hlim


def arrive(director: Director, frames: Sequence[Packet | bytes], interface: int = 0) -> tuple[list[bytes], dict[Reason, int]]:
    """Run frames one after the other, and again those that the program sends to the ingress; return output and reasons."""
    waiting, left, counted = [bytes(frame) for frame in frames], [], dict[Reason, int]()
    with director.returning(interface) as returned:
        while waiting:
            ran = director.tc(waiting.pop(0), interface)
            for reason, count in ran.reasons.items():
                counted[reason] = counted.get(reason, 0) + count
            if ran.verdict == REDIRECT:
                left.append(ran.frame)
                continue
            assert (ran.verdict, len(ran.reasons)) == (SHOT, 1), "nothing is passed to the stack"
            waiting[:0] = returned()
    return left, counted


# -- in every order ----------------------------------------------------------------------------------------------------


@families
@methods
@orders
def test_a_clients_fragments_reach_the_server_in_any_order(
    director: Director, family: int, method: Forwarding, order: tuple[int, ...]
) -> None:
    director.serve(family, Protocol.UDP, server(SERVER[family], forwarding=method))
    parts = [
        from_client(piece) for piece in pieces(ip(CLIENT[family], VIRTUAL[family]) / UDP(sport=CLIENT_PORT, dport=PORT) / BIG)
    ]
    frames, reasons = arrive(director, [parts[place] for place in order])
    source, destination, port = {
        NAT: (CLIENT[family], SERVER[family], SERVER_PORT),
        DR: (CLIENT[family], VIRTUAL[family], PORT),
        FULLNAT: (LOCAL[family], SERVER[family], SERVER_PORT),
    }[method]
    source_port = local_port(director.connection()) if method is FULLNAT else CLIENT_PORT
    expected = ip(source, destination, 63) / UDP(sport=source_port, dport=port) / BIG
    assert put_together(frames, family) == bytes(expected)[20 if family == 4 else 40 :]
    assert {ends(frame, family) for frame in frames} == {(source, destination, 63)}
    assert director.connection().packets == len(frames)
    before = order.index(0)
    assert reasons == ({Reason.AGAIN_HELD: before, Reason.AGAIN_RELEASED: 1} if before else {})
    assert not director._keys("held")


@families
@translations
@orders
def test_a_servers_fragments_leave_from_the_virtual_address_in_any_order(
    director: Director, family: int, method: Forwarding, order: tuple[int, ...]
) -> None:
    director.serve(family, Protocol.UDP, server(SERVER[family], forwarding=method))
    assert director.run(datagram(family))[0] == REDIRECT
    client, port = (LOCAL[family], local_port(director.connection())) if method is FULLNAT else (CLIENT[family], CLIENT_PORT)
    parts = [from_server(piece) for piece in pieces(ip(SERVER[family], client) / UDP(sport=SERVER_PORT, dport=port) / BIG)]
    frames, _ = arrive(director, [parts[place] for place in order], director.inside)
    expected = ip(VIRTUAL[family], CLIENT[family], 63) / UDP(sport=PORT, dport=CLIENT_PORT) / BIG
    assert put_together(frames, family) == bytes(expected)[20 if family == 4 else 40 :]
    assert {ends(frame, family) for frame in frames} == {(VIRTUAL[family], CLIENT[family], 63)}


@families
@pytest.mark.parametrize("kind", [TunnelKind.IPIP, TunnelKind.GUE], ids=lambda kind: kind.value)
@orders
def test_fragments_go_through_a_tunnel_in_any_order(
    director: Director, family: int, kind: TunnelKind, order: tuple[int, ...]
) -> None:
    declared = Tunnel(TunnelKind.GUE, 6080) if kind is TunnelKind.GUE else Tunnel()
    director.serve(family, Protocol.UDP, server(SERVER[family], forwarding=TUN, tunnel=declared))
    packet = ip(CLIENT[family], VIRTUAL[family]) / UDP(sport=CLIENT_PORT, dport=PORT) / BIG
    parts = [from_client(piece) for piece in pieces(packet)]
    frames, _ = arrive(director, [parts[place] for place in order])
    outer = (20 if family == 4 else 40) + (12 if kind is TunnelKind.GUE else 0)
    inner = [frame[:ETHERNET] + frame[ETHERNET + outer :] for frame in frames]
    assert put_together(inner, family) == bytes(packet)[20 if family == 4 else 40 :]
    assert {ends(frame, family) for frame in frames} == {(LOCAL[family], SERVER[family], 63)}


@families
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=["in-order", "reversed"])
def test_one_packet_scheduling_keeps_a_datagram_together(director: Director, family: int, order: tuple[int, ...]) -> None:
    director.serve(family, Protocol.UDP, server(SERVER[family]), server(SECOND[family]), scheduler="rr", one_packet=True)
    seen = set()
    for number in range(2):
        packet = ip(CLIENT[family], VIRTUAL[family]) / UDP(sport=CLIENT_PORT + number, dport=PORT) / BIG
        parts = [from_client(piece) for piece in pieces(packet)]
        for key in director._keys("fragments"):
            director.instance.maps["fragments"].delete(key)
        frames, _ = arrive(director, [parts[place] for place in order])
        assert len(frames) == 3
        ((_, destination, _),) = {ends(frame, family) for frame in frames}
        seen.add(destination)
    assert seen == {SERVER[family], SECOND[family]}
    assert not director.entries()


def test_a_later_fragment_under_one_packet_scheduling_does_not_go_to_a_server_that_was_removed(director: Director) -> None:
    key = director.serve(4, Protocol.UDP, one_packet=True)
    first, later, _ = pieces(ip(CLIENT[4], VIRTUAL[4]) / UDP(sport=CLIENT_PORT, dport=PORT) / BIG)
    assert director.run(from_client(first))[0] == REDIRECT
    director.apply(DeleteServer(key, server(SERVER[4]).endpoint), AddServer(key, server(SECOND[4])))
    ran = director.tc(from_client(later))
    assert (ran.verdict, ran.reasons) == (SHOT, {Reason.DROP_FRAGMENT: 1})


@families
def test_the_largest_datagram_arrives_in_reverse_order(director: Director, family: int) -> None:
    director.serve(family, Protocol.UDP)
    payload = bytes(range(251)) * 200
    parts = clients(family, payload)
    assert 45 < len(parts) <= 64
    frames, reasons = arrive(director, parts[::-1])
    expected = ip(CLIENT[family], SERVER[family], 63) / UDP(sport=CLIENT_PORT, dport=SERVER_PORT) / payload
    assert put_together(frames, family) == bytes(expected)[20 if family == 4 else 40 :]
    assert reasons == {Reason.AGAIN_HELD: len(parts) - 1, Reason.AGAIN_RELEASED: 1}


def test_a_fragment_behind_ipv6_options_follows_its_first(director: Director) -> None:
    """A later fragment's own header says options; only the first one has the protocol after them."""
    director.serve(6, Protocol.UDP)
    assert director.run(datagram(6))[0] == REDIRECT
    transport = IPv6ExtHdrDestOpt() / UDP(sport=SERVER_PORT, dport=CLIENT_PORT) / BIG
    transport[UDP].chksum = 0xABCD
    answer = IPv6(src=SERVER[6], dst=CLIENT[6]) / IPv6ExtHdrFragment(id=3) / transport
    parts = [from_server(part) for part in fragment6(answer, 1100)]
    assert {part[IPv6ExtHdrFragment].nh for part in parts} == {60}
    frames, _ = arrive(director, parts[::-1], director.inside)
    assert len(frames) == len(parts)
    assert {ends(frame, 6) for frame in frames} == {(VIRTUAL[6], CLIENT[6], 63)}


# -- what is held ------------------------------------------------------------------------------------------------------


def later_of(family: int, source: str = "", destination: str = "") -> Packet:
    packet = ip(source or CLIENT[family], destination or VIRTUAL[family]) / UDP(sport=CLIENT_PORT, dport=PORT) / BIG
    return pieces(packet)[1]


@families
def test_a_servers_fragment_before_its_first_never_reaches_the_stack(director: Director, family: int) -> None:
    director.serve(family, Protocol.UDP)
    ran = director.tc(from_server(later_of(family, SERVER[family], CLIENT[family])), director.inside)
    assert (ran.verdict, ran.reasons) == (SHOT, HELD)


@families
def test_a_servers_other_datagrams_are_passed_to_the_stack_after_their_first_fragment(director: Director, family: int) -> None:
    director.serve(family, Protocol.UDP)
    first, second, last = map(from_server, pieces(ip(SERVER[family], CLIENT[family]) / UDP(sport=53, dport=CLIENT_PORT) / BIG))
    with director.returning(director.inside) as returned:
        assert director.tc(second, director.inside).reasons == HELD
        assert director.tc(first, director.inside).reasons == RELEASED
        again = returned()
    assert again == [bytes(first), bytes(second)]
    for frame in (*again, bytes(last)):
        assert director.run(frame, director.inside) == (PASS, frame)


@pytest.mark.parametrize("length", [2048 - ETHERNET, 2049 - ETHERNET])
def test_a_fragment_that_is_too_large_to_be_held_is_dropped(director: Director, length: int) -> None:
    director.serve(4, Protocol.UDP)
    packet = IP(src=SERVER[4], dst=CLIENT[4], frag=3, proto=17) / bytes(length - 20)
    ran = director.tc(from_server(packet), director.inside)
    assert (ran.verdict, ran.reasons) == (SHOT, HELD if length + ETHERNET <= 2048 else {Reason.DROP_FRAGMENT: 1})


def test_no_more_fragments_are_held_than_a_datagram_can_have(director: Director) -> None:
    director.serve(4, Protocol.UDP)
    later = from_client(later_of(4))
    assert [director.tc(later).reasons for _ in range(65)] == [HELD] * 64 + [{Reason.DROP_FRAGMENT: 1}]


def test_a_fragment_is_held_for_two_seconds(director: Director) -> None:
    """After that another datagram may have its identification."""
    director.serve(4, Protocol.UDP)
    first, later, _ = map(from_client, pieces(ip(CLIENT[4], VIRTUAL[4]) / UDP(sport=CLIENT_PORT, dport=PORT) / BIG))
    for age_s, outcome in ((1, SHOT), (3, REDIRECT)):
        assert director.tc(later).reasons == HELD
        (key,) = director._keys("held")
        held = bytearray(director.instance.maps["held"].lookup(key) or b"")
        expires = int.from_bytes(held[4:8], "little") - age_s * director.settings.hz
        held[4:8] = (expires & 0xFFFFFFFF).to_bytes(4, "little")
        director.instance.maps["held"].update(key, bytes(held))
        assert director.run(first)[0] == outcome
        assert bool(director._keys("held")) is (outcome == REDIRECT)


def test_only_held_fragments_that_have_not_expired_are_released(director: Director) -> None:
    director.serve(4, Protocol.UDP)
    first, second, last = clients(4, BIG)
    assert [director.tc(part).reasons for part in (second, last)] == [HELD, HELD]
    (key,) = [key for key in director._keys("held") if key[40] == 1]
    held = bytearray(director.instance.maps["held"].lookup(key) or b"")
    held[4:8] = (director.instance.jiffies() - 1 & 0xFFFFFFFF).to_bytes(4, "little")
    director.instance.maps["held"].update(key, bytes(held))
    with director.returning() as returned:
        assert director.tc(first).reasons == RELEASED
        assert returned() == [bytes(first), bytes(second)]
    assert not director._keys("held")


def test_a_first_fragments_ports_are_kept_for_two_seconds(director: Director) -> None:
    director.serve(4, Protocol.UDP)
    first, later, _ = map(from_client, pieces(ip(CLIENT[4], VIRTUAL[4]) / UDP(sport=CLIENT_PORT, dport=PORT) / BIG))
    assert director.run(first)[0] == REDIRECT
    (key,) = director._keys("fragments")
    ports = bytearray(director.instance.maps["fragments"].lookup(key) or b"")
    ports[4:8] = (director.instance.jiffies() - 1 & 0xFFFFFFFF).to_bytes(4, "little")
    assert director.run(later)[0] == REDIRECT
    director.instance.maps["fragments"].update(key, bytes(ports))
    assert director.tc(later).reasons == HELD


def test_fragments_of_different_packets_are_kept_apart(director: Director) -> None:
    director.serve(4, Protocol.UDP)
    first, later, *_ = pieces(IP(src=CLIENT[4], dst=VIRTUAL[4], id=7) / UDP(sport=CLIENT_PORT, dport=PORT) / BIG)
    assert director.run(from_client(first))[0] == REDIRECT
    for fields in ({"id": 8}, {"proto": 6}, {"src": "10.7.0.3"}):
        other = later.copy()
        for name, value in fields.items():
            setattr(other, name, value)
        other.chksum = None
        ran = director.tc(from_client(other))
        assert (ran.verdict, ran.reasons) == (SHOT, HELD)
    assert director.run(from_client(later))[0] == REDIRECT


# -- what is not balanced ----------------------------------------------------------------------------------------------


def test_fragments_to_a_port_without_a_service_are_passed_to_the_stack(director: Director) -> None:
    director.serve(4, Protocol.UDP)
    for packet in pieces(IP(src=CLIENT[4], dst=VIRTUAL[4]) / UDP(sport=CLIENT_PORT, dport=53) / BIG):
        assert director.run(from_client(packet)) == (PASS, bytes(from_client(packet)))


def test_fragments_between_other_hosts_are_passed_to_the_stack(director: Director) -> None:
    director.serve(4, Protocol.UDP)
    for packet in reversed(pieces(IP(src=CLIENT[4], dst="10.9.9.9") / UDP(sport=CLIENT_PORT, dport=53) / BIG)):
        assert director.run(from_client(packet)) == (PASS, bytes(from_client(packet)))


@families
def test_fragments_of_other_protocols_are_passed_to_the_stack(director: Director, family: int) -> None:
    director.serve(family, Protocol.UDP)
    echo = ICMP() / BIG if family == 4 else ICMPv6EchoRequest(data=BIG)
    for packet in pieces(ip(CLIENT[family], VIRTUAL[family]) / echo):
        assert director.run(from_client(packet)) == (PASS, bytes(from_client(packet)))


def test_an_atomic_fragment_is_treated_as_a_whole_packet(director: Director) -> None:
    director.serve(6, Protocol.UDP)
    packet = IPv6(src=CLIENT[6], dst=VIRTUAL[6]) / IPv6ExtHdrFragment(id=9) / UDP(sport=CLIENT_PORT, dport=PORT) / b"stream"
    _, frame = director.run(from_client(packet))
    expected = IPv6(src=CLIENT[6], dst=SERVER[6], hlim=63) / IPv6ExtHdrFragment(id=9)
    assert frame[ETHERNET:] == bytes(expected / UDP(sport=CLIENT_PORT, dport=SERVER_PORT) / b"stream")
    assert not [*director.instance.maps["fragments"].keys()]


def test_a_later_fragment_whose_ttl_expires_is_dropped_without_an_error(director: Director) -> None:
    director.serve(4, Protocol.UDP)
    first, later, *_ = pieces(IP(src=CLIENT[4], dst=VIRTUAL[4]) / UDP(sport=CLIENT_PORT, dport=PORT) / BIG)
    director.run(from_client(first))
    later.ttl, later.chksum = 1, None
    ran = director.tc(from_client(later))
    assert (ran.verdict, ran.reasons) == (SHOT, {Reason.REFUSED_TTL: 1})


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_first_fragment_too_short_for_its_ports_is_dropped(director: Director, side: str) -> None:
    """A receiver would reassemble ports that were never checked (RFC 1858), or see the server's address."""
    director.serve()
    ends_of = {"client": (CLIENT[4], VIRTUAL[4]), "server": (SERVER[4], CLIENT[4])}[side]
    packet = IP(src=ends_of[0], dst=ends_of[1], flags="MF", proto=6) / bytes(8)
    frame, interface = (from_client(packet), director.outside) if side == "client" else (from_server(packet), director.inside)
    ran = director.tc(frame, interface)
    assert (ran.verdict, ran.reasons) == (SHOT, {Reason.DROP_FRAGMENT: 1})


# -- too big, and may be fragmented ------------------------------------------------------------------------------------


def payload_of(length: int) -> bytes:
    return (bytes(range(251)) * (length // 251 + 1))[:length]


@pytest.mark.parametrize("length", [1253, 1400, 3300])
@methods
def test_a_clients_packet_above_the_mtu_is_fragmented(director: Director, method: Forwarding, length: int) -> None:
    director.serve(4, Protocol.UDP, server(NARROW[4], forwarding=method))
    payload = payload_of(length)
    frames, reasons = arrive(
        director, [from_client(ip(CLIENT[4], VIRTUAL[4], id=99) / UDP(sport=CLIENT_PORT, dport=PORT) / payload)]
    )
    source, destination, port = {
        NAT: (CLIENT[4], NARROW[4], SERVER_PORT),
        DR: (CLIENT[4], VIRTUAL[4], PORT),
        FULLNAT: (LOCAL[4], NARROW[4], SERVER_PORT),
    }[method]
    source_port = local_port(director.connection()) if method is FULLNAT else CLIENT_PORT
    expected = ip(source, destination) / UDP(sport=source_port, dport=port) / payload
    assert put_together(frames, 4) == bytes(expected)[20:]
    assert {ends(frame, 4) for frame in frames} == {(source, destination, 63)}
    assert {IP(frame[ETHERNET:]).id for frame in frames} == {99}
    assert max(len(frame) for frame in frames) - ETHERNET <= NARROW_MTU
    assert len(frames) == -(-(length + 8) // ((NARROW_MTU - 20) // 8 * 8))
    assert reasons == {Reason.AGAIN_CUT: 1}


def test_a_datagram_without_checksum_is_fragmented_and_has_none(director: Director) -> None:
    director.serve(4, Protocol.UDP, server(NARROW[4]))
    packet = ip(CLIENT[4], VIRTUAL[4]) / UDP(sport=CLIENT_PORT, dport=PORT, chksum=0) / payload_of(1400)
    frames, _ = arrive(director, [from_client(packet)])
    expected = ip(CLIENT[4], NARROW[4]) / UDP(sport=CLIENT_PORT, dport=SERVER_PORT, chksum=0) / payload_of(1400)
    assert put_together(frames, 4) == bytes(expected)[20:]


@translations
def test_a_servers_packet_above_the_mtu_is_fragmented(director: Director, method: Forwarding) -> None:
    director.serve(4, Protocol.UDP, server(SERVER[4], forwarding=method))
    assert director.run(datagram(client=NARROW_CLIENT[4]))[0] == REDIRECT
    client, port = (LOCAL[4], local_port(director.connection())) if method is FULLNAT else (NARROW_CLIENT[4], CLIENT_PORT)
    payload = payload_of(1400)
    answer = from_server(ip(SERVER[4], client) / UDP(sport=SERVER_PORT, dport=port) / payload)
    frames, _ = arrive(director, [answer], director.inside)
    expected = ip(VIRTUAL[4], NARROW_CLIENT[4]) / UDP(sport=PORT, dport=CLIENT_PORT) / payload
    assert put_together(frames, 4) == bytes(expected)[20:]
    assert {ends(frame, 4) for frame in frames} == {(VIRTUAL[4], NARROW_CLIENT[4], 63)}


OVERHEAD = {(4, TunnelKind.IPIP): 20, (6, TunnelKind.IPIP): 40, (4, TunnelKind.GUE): 32, (6, TunnelKind.GUE): 52}


@pytest.mark.parametrize("kind", [TunnelKind.IPIP, TunnelKind.GUE], ids=lambda kind: kind.value)
@pytest.mark.parametrize("outer", FAMILIES, ids=lambda family: f"outer-IPv{family}")
@pytest.mark.parametrize("over", [0, 1])
def test_a_packet_too_big_for_a_tunnel_is_fragmented(director: Director, kind: TunnelKind, outer: int, over: int) -> None:
    declared = Tunnel(TunnelKind.GUE, 6080) if kind is TunnelKind.GUE else Tunnel()
    director.serve(4, Protocol.UDP, server(SERVER[outer], forwarding=TUN, tunnel=declared))
    overhead = OVERHEAD[outer, kind]
    packet = ip(CLIENT[4], VIRTUAL[4]) / UDP(sport=CLIENT_PORT, dport=PORT) / payload_of(1500 - overhead - 28 + over)
    frames, _ = arrive(director, [from_client(packet)])
    assert len(frames) == 1 + over
    assert max(len(frame) for frame in frames) <= ETHERNET + 1500
    assert put_together([frame[:ETHERNET] + frame[ETHERNET + overhead :] for frame in frames], 4) == bytes(packet)[20:]


@orders
def test_fragments_too_big_for_a_tunnel_are_fragmented_in_any_order(director: Director, order: tuple[int, ...]) -> None:
    director.serve(4, Protocol.UDP, server(SERVER[4], forwarding=TUN))
    packet = ip(CLIENT[4], VIRTUAL[4], id=5) / UDP(sport=CLIENT_PORT, dport=PORT) / payload_of(4000)
    whole = bytes(packet)[20:]
    parts = [
        from_client(IP(src=CLIENT[4], dst=VIRTUAL[4], id=5, proto=17, flags=more, frag=at // 8) / Raw(whole[at : at + 1480]))
        for at, more in ((0, "MF"), (1480, "MF"), (2960, 0))
    ]
    frames, reasons = arrive(director, [parts[place] for place in order])
    assert put_together([frame[:ETHERNET] + frame[ETHERNET + 20 :] for frame in frames], 4) == whole
    assert max(len(frame) for frame in frames) <= ETHERNET + 1500
    assert reasons[Reason.AGAIN_CUT] == 2


def test_a_segment_that_is_fragmented_opens_its_connection_once(director: Director) -> None:
    key = director.serve(4, Protocol.TCP, server(NARROW[4]))
    segment = from_client(ip(CLIENT[4], VIRTUAL[4]) / TCP(sport=CLIENT_PORT, dport=PORT, flags="S", seq=9) / payload_of(1400))
    frames, _ = arrive(director, [segment])
    assert len(frames) == 2
    assert len(director.connections()) == 1
    assert director.traffic(key).connections == 1


def test_a_packet_that_cannot_be_fragmented_gets_an_error(director: Director) -> None:
    director.serve(4, Protocol.UDP, server(NARROW[4]))
    header = ip(CLIENT[4], VIRTUAL[4], options=[IPOption_NOP()] * 4)
    ran = director.tc(from_client(header / UDP(sport=CLIENT_PORT, dport=PORT) / bytes(1400)))
    assert (ran.verdict, ran.reasons) == (REDIRECT, {Reason.REFUSED_TOO_BIG: 1})
    error = IP(ran.packet)[ICMP]
    assert (error.type, error.code, error.nexthopmtu) == (3, 4, NARROW_MTU)


def test_any_ipv6_fragment_too_big_for_a_tunnel_gets_an_error(director: Director) -> None:
    """Routers do not fragment IPv6; the sender does after the error."""
    director.serve(6, Protocol.UDP, server(SERVER[6], forwarding=TUN))
    packet = IPv6(src=CLIENT[6], dst=VIRTUAL[6]) / IPv6ExtHdrFragment(id=1) / UDP(sport=CLIENT_PORT, dport=PORT) / bytes(4000)
    for part in fragment6(packet, 1500)[:2]:
        ran = director.tc(from_client(part))
        assert (ran.verdict, ran.reasons) == (REDIRECT, {Reason.REFUSED_TOO_BIG: 1})
        error = IPv6(ran.packet)
        assert (error.payload.type, error.payload.mtu, len(ran.packet)) == (2, 1460, 1280)
