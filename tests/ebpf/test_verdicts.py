"""Packets that are not simply forwarded: every reason once, then truncated and malformed frames, and packets of other hosts."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    IPv6,
    IPv6ExtHdrHopByHop,
    PadN,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, DeleteServer, ServiceEntry
from relevo.planes.ebpf.layout import SettingFlag, TcpState, packed
from relevo.planes.ebpf.reasons import Reason
from tests.ebpf.packets import (
    BIG,
    CLIENT,
    CLIENT_PORT,
    ETHERNET,
    FAMILIES,
    GATEWAY_MAC,
    LOCAL,
    NARROW,
    NOWHERE,
    OUTSIDE_MAC,
    PASS,
    PORT,
    REDIRECT,
    SERVER,
    SERVER_PORT,
    SHOT,
    UNREACHABLE,
    VIRTUAL,
    XDP_PASS,
    Director,
    datagram,
    from_client,
    from_server,
    ip,
    local_port,
    pieces,
    server,
    syn,
)

NAT, DR, TUN, FULLNAT = Forwarding.NAT, Forwarding.DR, Forwarding.TUN, Forwarding.FULLNAT
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"IPv{family}")

# -- every reason ------------------------------------------------------------------------------------------------------

ENTRY_BYTES = 48
"""One of IPv4 with the ring's header, padded."""

Provocation = Callable[[Director], tuple[int, dict[Reason, int]]]


def said(director: Director, packet: Packet | bytes, interface: int = 0) -> tuple[int, dict[Reason, int]]:
    ran = director.tc(packet, interface)
    return ran.verdict, ran.reasons


def to_address(director: Director, address: str) -> tuple[int, dict[Reason, int]]:
    """A first packet to a server at an address."""
    director.forget_neighbours()
    director.serve(4, Protocol.TCP, server(address))
    return said(director, syn())


def of_a_moved_service(director: Director, address: str) -> tuple[int, dict[Reason, int]]:
    key = ServiceKey(Protocol.TCP, Endpoint(address, PORT))
    director.apply(AddService(ServiceEntry(key=key)), AddServer(key, server(SERVER[4])))
    asyncio.run(director.plane.set_local(frozenset(), frozenset((address,))))
    return said(director, from_client(ip(CLIENT[4], address) / TCP(sport=CLIENT_PORT, dport=PORT, flags="S")))


@contextlib.contextmanager
def switched_off(family: str, *interfaces: str) -> Iterator[None]:
    """Interfaces that do not forward."""
    switches = [Path(f"/proc/sys/net/{family}/conf/{interface}/forwarding") for interface in interfaces]
    for switch in switches:
        switch.write_text("0")
    try:
        yield
    finally:
        for switch in switches:
            switch.write_text("1")


def without_forwarding(director: Director) -> tuple[int, dict[Reason, int]]:
    director.serve()
    director.forget_neighbours()
    with switched_off("ipv4", "outside", "lo"):
        return said(director, syn())


def fill(director: Director, key: ServiceKey, state: TcpState = TcpState.ESTABLISHED) -> None:
    """A table of two buckets without a free slot."""
    director.settings.bucket_mask = 1
    port = 1000
    while len(director.entries()) < 16:
        director.insert(key, state, client_port=port)
        port += 1


def with_a_full_table(director: Director) -> tuple[int, dict[Reason, int]]:
    fill(director, director.serve())
    return said(director, syn())


def without_a_slot_for_a_template(director: Director) -> tuple[int, dict[Reason, int]]:
    fill(director, director.serve(persistence_timeout_s=60))
    verdict, reasons = said(director, syn())
    reasons.pop(Reason.DROP_TABLE_FULL)
    return verdict, reasons


def with_half_open_ones(director: Director) -> tuple[int, dict[Reason, int]]:
    fill(director, director.serve(), TcpState.SYN_RECV)
    return said(director, syn())


def without_a_local_port(director: Director) -> tuple[int, dict[Reason, int]]:
    director.settings.local_port_count = 1
    director.serve(4, Protocol.TCP, server(SERVER[4], forwarding=FULLNAT))
    assert director.run(syn())[0] == REDIRECT
    return said(director, syn(port=CLIENT_PORT + 1))


def orphan(director: Director, flags: int) -> tuple[int, dict[Reason, int]]:
    director.settings.flags |= flags
    key = director.serve()
    director.run(syn())
    director.apply(DeleteServer(key, server(SERVER[4]).endpoint))
    return said(director, syn(flags="A"))


def beyond_the_limit(director: Director) -> tuple[int, dict[Reason, int]]:
    director.settings.replies_per_second = 0
    director.serve()
    verdict, reasons = said(director, syn(ttl=1))
    assert reasons.pop(Reason.REFUSED_TTL) == 1
    return verdict, reasons


def with_a_full_sync_ring(director: Director) -> tuple[int, dict[Reason, int]]:
    director.settings.flags |= SettingFlag.SYNC
    director.serve()
    turn = [bytes(syn(flags=flags)) for flags in ("S", "A", "FA")]
    for _ in range(director.instance.maps["sync_ring"].max_entries // ENTRY_BYTES + 1):
        for packet in turn:
            director.run(packet)
    for packet in turn[:-1]:
        director.run(packet)
    return said(director, turn[-1])


def served(packet: Packet | bytes, **fields: str) -> Provocation:
    def provoke(director: Director) -> tuple[int, dict[Reason, int]]:
        director.serve(4, Protocol.TCP, server(**({"address": SERVER[4]} | fields)))
        return said(director, packet)

    return provoke


def refused(director: Director) -> tuple[int, dict[Reason, int]]:
    key = director.serve()
    director.apply(DeleteServer(key, server(SERVER[4]).endpoint))
    return said(director, syn())


def refused_by_reset(director: Director) -> tuple[int, dict[Reason, int]]:
    director.apply(AddService(ServiceEntry(key=ServiceKey(Protocol.TCP, Endpoint(VIRTUAL[4], PORT)), refuses_by_reset=True)))
    return said(director, syn())


def too_big_later_fragment_with_options(director: Director) -> tuple[int, dict[Reason, int]]:
    director.serve(4, Protocol.TCP, server(NARROW[4]))
    header: dict[str, Any] = {"src": CLIENT[4], "dst": VIRTUAL[4], "id": 7}
    director.run(from_client(IP(**header, flags="MF") / TCP(sport=CLIENT_PORT, dport=PORT, flags="S") / bytes(1200)))
    return said(director, from_client(IP(**header, frag=152, proto=6, options=[IPOption_NOP()] * 4) / bytes(1300)))


def first_after_later(director: Director) -> tuple[int, dict[Reason, int]]:
    director.serve(4, Protocol.UDP)
    first, later, *_ = pieces(ip(CLIENT[4], VIRTUAL[4]) / UDP(sport=CLIENT_PORT, dport=PORT) / BIG)
    director.run(from_client(later))
    return said(director, from_client(first))


PROVOCATIONS: dict[Reason, tuple[int, Provocation]] = {
    Reason.PASS_NOT_IP: (PASS, served(Ether(src=GATEWAY_MAC, dst=OUTSIDE_MAC) / ARP() / Raw(bytes(20)))),
    Reason.PASS_NOT_OURS: (PASS, served(from_client(ip(CLIENT[4], "10.1.0.9") / TCP(dport=PORT, flags="S")))),
    Reason.PASS_MALFORMED: (PASS, served(from_client(IP(src=CLIENT[4], dst=VIRTUAL[4], version=5) / TCP(dport=PORT)))),
    Reason.PASS_MARTIAN: (PASS, served(syn(client="127.0.0.2"))),
    Reason.PASS_PROTOCOL: (PASS, served(from_client(IP(src=CLIENT[4], dst=VIRTUAL[4], proto=47) / bytes(20)))),
    Reason.PASS_NO_CONNECTION: (PASS, served(syn(flags="A"))),
    Reason.PASS_CLOSED: (PASS, lambda director: of_a_moved_service(director, "10.1.0.241")),
    Reason.PASS_FTP_DATA: (PASS, served(syn(port=20))),
    Reason.PASS_LOCAL: (PASS, lambda director: to_address(director, LOCAL[4])),
    Reason.REFUSED_NO_DESTINATION: (REDIRECT, refused),
    Reason.REFUSED_TTL: (REDIRECT, served(syn(ttl=1))),
    Reason.REFUSED_TOO_BIG: (
        REDIRECT,
        served(
            from_client(
                IP(src=CLIENT[4], dst=VIRTUAL[4], flags="DF") / TCP(sport=CLIENT_PORT, dport=PORT, flags="S") / bytes(1400)
            ),
            address=NARROW[4],
        ),
    ),
    Reason.REFUSED_ORPHAN: (REDIRECT, lambda director: orphan(director, 0)),
    Reason.REFUSED_WITH_RESET: (REDIRECT, refused_by_reset),
    Reason.DROP_TABLE_FULL: (SHOT, with_a_full_table),
    Reason.DROP_NO_LOCAL_PORT: (SHOT, without_a_local_port),
    Reason.DROP_NO_ROUTE: (SHOT, lambda director: to_address(director, UNREACHABLE[4])),
    Reason.DROP_FORWARDING_OFF: (SHOT, without_forwarding),
    Reason.DROP_FRAGMENT: (SHOT, served(from_client(IP(src=CLIENT[4], dst=VIRTUAL[4], flags="MF", proto=6) / bytes(8)))),
    Reason.DROP_ORPHAN: (SHOT, lambda director: orphan(director, SettingFlag.KEEP_ORPHANS)),
    Reason.DROP_REPLY_LIMIT: (SHOT, beyond_the_limit),
    Reason.DROP_TOO_BIG: (SHOT, too_big_later_fragment_with_options),
    Reason.DROP_NOT_YET: (SHOT, lambda director: of_a_moved_service(director, VIRTUAL[4])),
    Reason.AGAIN_HELD: (SHOT, served(from_client(IP(src=CLIENT[4], dst=VIRTUAL[4], frag=3, proto=6) / bytes(20)))),
    Reason.AGAIN_RELEASED: (SHOT, first_after_later),
    Reason.AGAIN_CUT: (SHOT, served(syn() / bytes(1400), address=NARROW[4])),
    Reason.COUNT_EVICTED: (REDIRECT, with_half_open_ones),
    Reason.COUNT_SYNC_LOST: (REDIRECT, with_a_full_sync_ring),
    Reason.COUNT_TEMPLATE_FULL: (SHOT, without_a_slot_for_a_template),
}
NOT_OF_A_PACKET_AT_TC = {Reason.GO_ON, Reason.PASS_SLOW, Reason.DROP_REWRITE}


def test_every_reason_is_provoked() -> None:
    assert set(PROVOCATIONS) == set(Reason) - NOT_OF_A_PACKET_AT_TC


@pytest.mark.parametrize("reason", PROVOCATIONS, ids=lambda reason: reason.name)
def test_a_reason_is_counted_once(director: Director, reason: Reason) -> None:
    verdict, provoke = PROVOCATIONS[reason]
    assert provoke(director) == (verdict, {reason: 1})


@families
def test_packets_to_a_server_by_an_unreachable_route_are_dropped(director: Director, family: int) -> None:
    director.serve(family, Protocol.TCP, server(UNREACHABLE[family]))
    assert said(director, syn(family)) == (SHOT, {Reason.DROP_NO_ROUTE: 1})


@families
def test_a_server_on_this_node_gets_its_packets_by_the_stack(director: Director, family: int) -> None:
    director.serve(family, Protocol.TCP, server(LOCAL[family], port=PORT))
    assert director.run(syn(family)) == (PASS, bytes(syn(family)))


@families
def test_packets_to_a_server_without_a_route_are_dropped(director: Director, family: int) -> None:
    director.serve(family, Protocol.TCP, server({4: "192.0.2.1", 6: "2001:db8::1"}[family]))
    assert said(director, syn(family)) == (SHOT, {Reason.DROP_NO_ROUTE: 1})


# -- without forwarding ------------------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("method", [NAT, DR, TUN, FULLNAT], ids=lambda method: method.value)
def test_interfaces_need_not_forward_where_lo_does(director: Director, family: int, method: Forwarding) -> None:
    director.serve(family, Protocol.UDP, server(SERVER[family], forwarding=method))
    fields = {"flags": "DF"} if family == 4 else {}  # else a tunnel's header has a random identification
    packet = from_client(ip(CLIENT[family], VIRTUAL[family], **fields) / UDP(sport=CLIENT_PORT, dport=PORT) / b"datagram")
    director.forget_neighbours()
    expected = director.tc(packet)
    assert expected.verdict == REDIRECT
    client, port = (LOCAL[family], local_port(director.connection())) if method is FULLNAT else (CLIENT[family], CLIENT_PORT)
    answer = from_server(ip(SERVER[family], client) / UDP(sport=SERVER_PORT, dport=port) / b"answer")
    answered = director.tc(answer, director.inside)
    director.forget_neighbours()
    with switched_off(f"ipv{family}", "outside", "inside"):
        assert director.tc(packet) == expected
        assert director.tc(answer, director.inside) == answered


@families
def test_without_forwarding_the_kernels_routes_still_refuse(director: Director, family: int) -> None:
    director.serve(family, Protocol.TCP, server(UNREACHABLE[family]))
    director.forget_neighbours()
    with switched_off(f"ipv{family}", "outside", "inside"):
        assert said(director, syn(family)) == (SHOT, {Reason.DROP_NO_ROUTE: 1})


def test_without_forwarding_a_service_whose_address_has_just_come_waits_all_the_same(director: Director) -> None:
    director.forget_neighbours()
    with switched_off("ipv4", "outside", "inside"):
        assert of_a_moved_service(director, VIRTUAL[4]) == (SHOT, {Reason.DROP_NOT_YET: 1})


# -- frames and headers ------------------------------------------------------------------------------------------------

PASSED_UNSEEN = {
    "another machine's": Ether(src=GATEWAY_MAC, dst="02:00:00:00:09:09") / syn()[IP],
    "multicast": Ether(src=GATEWAY_MAC, dst="01:00:5e:00:00:12") / syn()[IP],
    "broadcast": Ether(src=GATEWAY_MAC, dst="ff:ff:ff:ff:ff:ff") / syn()[IP],
}


@pytest.mark.parametrize("packet", PASSED_UNSEEN.values(), ids=PASSED_UNSEEN.keys())
def test_multicast_and_broadcast_frames_are_ignored(director: Director, packet: Packet) -> None:
    director.serve()
    ran = director.tc(packet)
    assert (ran.verdict, ran.frame, ran.reasons) == (PASS, bytes(packet), {})


def test_a_tagged_frame_is_left_for_the_interface_of_its_vlan(director: Director) -> None:
    director.serve()
    packet = Ether(src=GATEWAY_MAC, dst=OUTSIDE_MAC) / Dot1Q(vlan=5) / syn()[IP]
    assert director.run(packet) == (PASS, bytes(packet))
    assert not director.entries()


MARTIANS = {4: ("0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"), 6: ("::", "::1", "ff02::1")}
HONEST = {4: ("1.0.0.1", "126.255.255.255", "128.0.0.1", "223.255.255.255"), 6: ("::2", "2001:db8::1", "fe7f::1", "::1:0:0:1")}


def of_both(addresses: dict[int, tuple[str, ...]]) -> list[tuple[int, str]]:
    return [(family, address) for family in FAMILIES for address in addresses[family]]


@pytest.mark.parametrize(("family", "client"), of_both(MARTIANS))
def test_a_source_that_no_client_can_have_is_passed_to_the_stack(director: Director, family: int, client: str) -> None:
    director.serve(family)
    assert said(director, syn(family, client=client)) == (PASS, {Reason.PASS_MARTIAN: 1})


@pytest.mark.parametrize(("family", "client"), of_both(HONEST))
def test_a_source_beside_them_is_served(director: Director, family: int, client: str) -> None:
    director.serve(family)
    assert director.run(syn(family, client=client))[0] == REDIRECT


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("method", [NAT, DR, FULLNAT], ids=lambda method: method.value)
def test_an_ipv6_packet_to_a_mapped_address_finds_no_ipv4_service(
    director: Director, protocol: Protocol, method: Forwarding
) -> None:
    director.serve(4, protocol, server(SERVER[4], forwarding=method))
    transport = TCP(sport=CLIENT_PORT, dport=PORT, flags="S") if protocol is Protocol.TCP else UDP(sport=CLIENT_PORT, dport=PORT)
    packet = from_client(IPv6(src=CLIENT[6], dst=f"::ffff:{VIRTUAL[4]}") / transport)
    assert director.run(packet) == (PASS, bytes(packet))


def test_an_ipv6_packet_from_a_mapped_address_opens_nothing(director: Director) -> None:
    director.serve(6)
    packet = from_client(IPv6(src=f"::ffff:{CLIENT[4]}", dst=VIRTUAL[6]) / TCP(sport=CLIENT_PORT, dport=PORT, flags="S"))
    assert director.run(packet) == (PASS, bytes(packet))


CROOKED = {
    "version 6 in IPv4": IP(src=CLIENT[4], dst=VIRTUAL[4], version=6) / TCP(dport=PORT, flags="S"),
    "header of 16 bytes": IP(src=CLIENT[4], dst=VIRTUAL[4], ihl=4) / TCP(dport=PORT, flags="S"),
    "longer than the frame": IP(src=CLIENT[4], dst=VIRTUAL[4], len=41) / TCP(dport=PORT, flags="S"),
    "shorter than its header": IP(src=CLIENT[4], dst=VIRTUAL[4], len=19) / TCP(dport=PORT, flags="S"),
    "version 4 in IPv6": IPv6(src=CLIENT[6], dst=VIRTUAL[6], version=4) / TCP(dport=PORT, flags="S"),
    "IPv6 longer than the frame": IPv6(src=CLIENT[6], dst=VIRTUAL[6], plen=21) / TCP(dport=PORT, flags="S"),
    "TCP header of 16 bytes": IP(src=CLIENT[4], dst=VIRTUAL[4]) / TCP(dport=PORT, flags="S", dataofs=4),
    "TCP header of 16 bytes in IPv6": IPv6(src=CLIENT[6], dst=VIRTUAL[6]) / TCP(dport=PORT, flags="S", dataofs=4),
    "extension header that never ends": IPv6(src=CLIENT[6], dst=VIRTUAL[6]) / IPv6ExtHdrHopByHop(len=255) / TCP(dport=PORT),
}


@pytest.mark.parametrize("packet", CROOKED.values(), ids=CROOKED.keys())
def test_a_malformed_packet_is_passed_to_the_stack(director: Director, packet: Packet) -> None:
    director.serve(4)
    director.serve(6)
    ran = director.tc(from_client(packet))
    assert (ran.verdict, ran.packet, ran.reasons) == (PASS, bytes(packet), {Reason.PASS_MALFORMED: 1})


def test_more_extension_headers_than_honest_traffic_has_are_passed_to_the_stack(director: Director) -> None:
    director.serve(6)
    packet = IPv6(src=CLIENT[6], dst=VIRTUAL[6])
    for _ in range(7):
        packet = packet / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))])
    packet = from_client(packet / TCP(sport=CLIENT_PORT, dport=PORT, flags="S"))
    assert director.run(packet) == (PASS, bytes(packet))


@pytest.mark.parametrize("inner", [UDP, TCP], ids=["UDP", "TCP"])
def test_extension_headers_are_not_read_from_where_they_are_not(director: Director, inner: type[Packet]) -> None:
    protocol = Protocol.TCP if inner is TCP else Protocol.UDP
    director.serve(6, protocol)
    director.serve(6, protocol, port=81)
    fields = {"flags": "S"} if inner is TCP else {}
    number = 6 if inner is TCP else 17
    decoy = bytes(inner(sport=CLIENT_PORT, dport=PORT, **fields))
    options = bytes([60, 128]) + bytes(6) + bytes([number, 0]) + bytes(6) + decoy
    options += bytes(129 * 8 - len(options))
    hidden = bytes([number, 0]) + bytes(6) + bytes(inner(sport=CLIENT_PORT, dport=22, **fields))
    packet = from_client(IPv6(src=CLIENT[6], dst=VIRTUAL[6], nh=0) / Raw(options + hidden))
    assert director.run(packet) == (PASS, bytes(packet))


@families
@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_clients_port_of_ftp_data_is_never_scheduled(director: Director, family: int, protocol: Protocol) -> None:
    director.serve(family, protocol)
    packet = syn(family, 20) if protocol is Protocol.TCP else datagram(family, 20)
    assert said(director, packet) == (PASS, {Reason.PASS_FTP_DATA: 1})


# -- truncated frames---------------------------------------------------------------------------------------------------


def error(family: int) -> Packet:
    """An error about a reply of the service."""
    header = ip("10.1.0.2" if family == 4 else "fd00:1::2", VIRTUAL[family])
    answer = ip(VIRTUAL[family], CLIENT[family]) / UDP(sport=PORT, dport=CLIENT_PORT) / b"stream"
    return from_client(header / (ICMP(type=3, code=3) if family == 4 else ICMPv6DestUnreach(code=4)) / answer)


WHOLE: dict[str, Callable[[int], Packet]] = {
    "SYN": syn,
    "segment": lambda family: syn(family, flags="A") / b"stream",
    "datagram": datagram,
    "error": error,
}
HEADERS = {"SYN": 20, "segment": 20, "datagram": 8}
cut = pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE.keys())


def with_connections(director: Director, family: int) -> None:
    director.serve(family, Protocol.UDP)
    key = director.serve(family, Protocol.TCP)
    director.run(datagram(family))
    director.insert(key)


def shortest(family: int) -> int:
    """Frames below this are refused by the kernel's test run itself."""
    return ETHERNET + (20 if family == 4 else 40)


@families
@cut
def test_a_frame_truncated_anywhere_is_passed_to_the_stack(
    director: Director, family: int, make: Callable[[int], Packet]
) -> None:
    with_connections(director, family)
    whole = bytes(make(family))
    assert director.run(whole)[0] == REDIRECT
    for length in range(ETHERNET, len(whole)):
        if length >= shortest(family):
            assert director.run(whole[:length]) == (PASS, whole[:length]), length
        ran = director.xdp(whole[:length])
        assert (ran.verdict, ran.frame) == (XDP_PASS, whole[:length]), length


def with_length(frame: bytes, family: int, length: int) -> bytes:
    """The frame whose IP header says that the packet has that many bytes."""
    packet = (IP if family == 4 else IPv6)(frame[ETHERNET:])
    if family == 4:
        packet.len = length
        packet.chksum = None
    else:
        packet.plen = length - 40
    return frame[:ETHERNET] + bytes(packet)[: 20 if family == 4 else 40] + frame[shortest(family) :]


@families
@pytest.mark.parametrize("name", HEADERS)
def test_a_packet_that_ends_within_its_transport_header_is_passed_to_the_stack(
    director: Director, family: int, name: str
) -> None:
    with_connections(director, family)
    whole = bytes(WHOLE[name](family))
    for length in range(shortest(family), len(whole)):
        frame = with_length(whole[:length], family, length - ETHERNET)
        verdict, left = director.run(frame)
        payload = length - shortest(family) - HEADERS[name]
        if payload < 0:
            assert (verdict, left) == (PASS, frame), length
        else:
            assert verdict == REDIRECT
            assert left[len(left) - payload :] == frame[len(frame) - payload :]


@families
@pytest.mark.parametrize("name", HEADERS)
def test_the_padding_of_a_frame_is_no_transport_header(director: Director, family: int, name: str) -> None:
    with_connections(director, family)
    whole = bytes(WHOLE[name](family))
    for size in range(1, HEADERS[name]):
        frame = with_length(whole, family, shortest(family) - ETHERNET + size)
        assert director.run(frame) == (PASS, frame), size


@families
def test_a_tcp_header_longer_than_its_packet_is_passed_to_the_stack(director: Director, family: int) -> None:
    with_connections(director, family)
    transport = TCP(sport=CLIENT_PORT, dport=PORT, flags="A", dataofs=6)
    packet = from_client(ip(CLIENT[family], VIRTUAL[family]) / transport)
    assert director.run(packet) == (PASS, bytes(packet))
    packet = bytes(packet) + bytes(6)
    assert director.run(packet) == (PASS, packet)


# -- slots -------------------------------------------------------------------------------------------------------------


def test_a_new_connection_takes_the_slot_of_a_half_open_one_and_its_count(director: Director) -> None:
    key = director.serve()
    fill(director, key, TcpState.SYN_RECV)
    assert director.run(syn())[0] == REDIRECT
    assert len(director.entries()) == 16
    assert (director.server(key).active, director.server(key).inactive) == (16, 0)


@pytest.mark.parametrize("state", [TcpState.ESTABLISHED, TcpState.TIME_WAIT, TcpState.CLOSE], ids=lambda state: state.name)
def test_no_other_connection_gives_its_slot(director: Director, state: TcpState) -> None:
    fill(director, director.serve(), state)
    before = {bytes(entry) for _, entry in director.entries()}
    assert said(director, syn()) == (SHOT, {Reason.DROP_TABLE_FULL: 1})
    assert {bytes(entry) for _, entry in director.entries()} == before


def test_an_expired_connection_gives_its_slot_first(director: Director) -> None:
    key = director.serve()
    director.settings.bucket_mask = 1
    port = 1000
    while len(director.entries()) < 15:
        director.insert(key, TcpState.SYN_RECV, client_port=port)
        port += 1
    while len(director.entries()) < 16:
        director.insert(key, client_port=port, expires_s=-1)
        port += 1
    assert said(director, syn()) == (REDIRECT, {})
    assert sum(entry.state == TcpState.SYN_RECV for _, entry in director.entries()) == 16
    assert director.server(key).active == 16


def test_insert_into_a_full_table_reports_no_room(director: Director) -> None:
    key = director.serve()
    fill(director, key)
    assert director.insert(key, client_port=9) == NOWHERE
    assert bytes(packed(CLIENT[4])) in {bytes(entry.client.bytes) for _, entry in director.entries()}


# -- reports to the administrator --------------------------------------------------------------------------------------


def warnings(director: Director) -> list[str]:
    asyncio.run(director.plane.observe())
    return [notice.text for notice in director.plane.events() if notice.grave]


def test_a_full_table_is_reported_once_a_minute(director: Director, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings(director)
    director.plane._reported_at = -1e9
    with_a_full_table(director)
    (line,) = warnings(director)
    assert re.fullmatch(r"ebpf: \d+ new connections dropped, the table is full: raise connection_table_size", line)
    director.run(syn(port=33_333))
    assert warnings(director) == []
    director.plane._reported_at -= 60
    assert warnings(director) == ["ebpf: 1 new connections dropped, the table is full: raise connection_table_size"]
    assert warnings(director) == []
