"""New connections: service and server, persistence, thresholds, local ports; and what is left after their end."""

from __future__ import annotations

import asyncio
import ctypes
import random
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw

from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey, Tunnel, TunnelChecksum, TunnelKind
from relevo.model.table import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    Desired,
    EditServer,
    EditService,
    ServerEntry,
    ServiceEntry,
)
from relevo.node.table import reconcile
from relevo.planes.ebpf.layout import (
    Connection,
    ConnectionFlag,
    ServiceFlag,
    SettingFlag,
    TcpState,
    address_text,
    packed,
    port_from,
)
from relevo.planes.ebpf.plane import local_address_towards
from relevo.planes.ebpf.reasons import Reason
from relevo.planes.ebpf.table import Table
from relevo.schedulers import destination_hash
from relevo.schedulers.maglev_hash import MaglevHash
from relevo.schedulers.source_hash import SourceHash, hash32
from tests.ebpf.packets import (
    CLIENT,
    CLIENT_PORT,
    ETHERNET,
    FAMILIES,
    LOCAL,
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
    server,
    syn,
)

NAT, DR, TUN, FULLNAT = Forwarding.NAT, Forwarding.DR, Forwarding.TUN, Forwarding.FULLNAT
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"IPv{family}")


def client_address(entry: Connection) -> str:
    return address_text(bytes(entry.client.bytes))


def picked(director: Director, packet: Packet | bytes) -> str:
    """The server that a packet is sent to by NAT, or an empty string."""
    verdict, frame = director.run(packet)
    if verdict != REDIRECT or (frame[ETHERNET] >> 4 == 4 and frame[ETHERNET + 9] == 1):
        return ""
    six = frame[ETHERNET] >> 4 == 6
    data = frame[ETHERNET + 24 : ETHERNET + 40] if six else frame[ETHERNET + 16 : ETHERNET + 20]
    found = str(ip_address(data))
    return found if found.startswith(("10.2.", "fd00:2:")) else ""


def destination(frame: bytes) -> str:
    """Where a frame is sent."""
    six = frame[ETHERNET] >> 4 == 6
    return str(ip_address(frame[ETHERNET + 24 : ETHERNET + 40] if six else frame[ETHERNET + 16 : ETHERNET + 20]))


# -- the entry ---------------------------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("method", list(Forwarding), ids=lambda method: method.value)
def test_the_entry_of_a_new_connection(director: Director, family: int, method: Forwarding) -> None:
    key = director.serve(family, Protocol.TCP, server(SERVER[family], forwarding=method))
    director.run(syn(family))
    entry = director.connection()
    assert (client_address(entry), port_from(entry.client_port)) == (CLIENT[family], CLIENT_PORT)
    assert (bytes(entry.virtual.bytes), port_from(entry.virtual_port)) == (packed(VIRTUAL[family]), PORT)
    assert (entry.protocol, entry.state, entry.packets, entry.master) == (6, TcpState.SYN_RECV, 1, 0)
    assert (entry.server, entry.generation) == (director.number(key), director.server(key).generation)
    wanted = ConnectionFlag.ACTIVE
    wanted |= {FULLNAT: ConnectionFlag.FULLNAT, DR: ConnectionFlag.NO_OUTPUT, TUN: ConnectionFlag.NO_OUTPUT}.get(method, 0)
    assert entry.flags == wanted
    assert director.traffic(key).connections == 1


@families
def test_a_service_is_found_by_its_protocol_address_and_port_before_every_port(director: Director, family: int) -> None:
    director.serve(family, Protocol.TCP, server(SERVER[family]), port=0, persistence_timeout_s=60)
    director.serve(family, Protocol.TCP, server(SECOND[family]))
    header = ip(CLIENT[family], VIRTUAL[family])
    to = {port: picked(director, from_client(header / TCP(sport=CLIENT_PORT, dport=port, flags="S"))) for port in (PORT, 79, 81)}
    assert to == {PORT: SECOND[family], 79: SERVER[family], 81: SERVER[family]}
    assert director.run(datagram(family))[0] == PASS


def test_one_client_may_have_a_connection_by_each_protocol(director: Director) -> None:
    director.serve(4, Protocol.TCP)
    director.serve(4, Protocol.UDP)
    assert [director.run(packet)[0] for packet in (syn(), datagram())] == [REDIRECT, REDIRECT]
    assert {entry.protocol for entry in director.connections()} == {6, 17}


def test_an_expired_connection_is_not_found(director: Director) -> None:
    key = director.serve()
    director.insert(key, expires_s=-1)
    assert director.run(syn(flags="A"))[0] == PASS
    answer = from_server(IP(src=SERVER[4], dst=CLIENT[4]) / TCP(sport=SERVER_PORT, dport=CLIENT_PORT, flags="A"))
    assert director.run(answer, director.inside) == (PASS, bytes(answer))


def test_an_expired_fullnat_connection_is_not_found_by_a_reply(director: Director) -> None:
    director.serve(4, Protocol.TCP, server(SERVER[4], forwarding=FULLNAT))
    director.settings.timeout[TcpState.SYN_RECV] = 0
    director.run(syn())
    port = local_port(director.connection())
    answer = from_server(IP(src=SERVER[4], dst=LOCAL[4]) / TCP(sport=SERVER_PORT, dport=port, flags="SA"))
    assert director.run(answer, director.inside) == (PASS, bytes(answer))


# -- one-packet scheduling ---------------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("method", [NAT, DR], ids=lambda method: method.value)
def test_one_packet_scheduling_makes_no_connection(director: Director, family: int, method: Forwarding) -> None:
    key = director.serve(
        family,
        Protocol.UDP,
        server(SERVER[family], forwarding=method),
        server(SECOND[family], forwarding=method),
        scheduler="rr",
        one_packet=True,
    )
    assert director.service(key).flags & ServiceFlag.ONE_PACKET
    seen = [director.run(datagram(family)) for _ in range(4)]
    assert [verdict for verdict, _ in seen] == [REDIRECT] * 4
    assert not director.entries()
    if method is NAT:
        assert Counter(picked(director, datagram(family)) for _ in range(4)) == {SERVER[family]: 2, SECOND[family]: 2}


def test_one_packet_scheduling_does_not_hold_a_template(director: Director) -> None:
    director.serve(4, Protocol.UDP, persistence_timeout_s=60, one_packet=True)
    director.run(datagram())
    director.run(datagram())
    (template,) = director.templates()
    assert template.master == 0


# -- firewall marks ----------------------------------------------------------------------------------------------------


def serve_mark(director: Director, family: int, *servers: ServerEntry, mark: int = 7, **fields: Any) -> ServiceKey:
    key = ServiceKey.of_mark(mark, ipv6=family == 6)
    entries = servers or (server(SERVER[family]),)
    director.apply(AddService(ServiceEntry(key=key, **fields)), *(AddServer(key, entry) for entry in entries))
    return key


@families
def test_a_service_is_found_by_mark_before_address(director: Director, family: int) -> None:
    serve_mark(director, family)
    director.serve(family, Protocol.TCP, server(SECOND[family]))
    for mark, expected in ((7, SERVER), (0, SECOND), (8, SECOND)):
        verdict, frame = director.run(syn(family, port=1000 + mark), mark=mark)
        assert (verdict, destination(frame)) == (REDIRECT, expected[family])


@families
def test_a_firewall_mark_service_has_one_family(director: Director, family: int) -> None:
    serve_mark(director, 10 - family)
    assert director.run(syn(family), mark=7)[0] == PASS


def test_a_firewall_mark_service_serves_any_address_port_and_protocol(director: Director) -> None:
    serve_mark(director, 4, server(SERVER[4], port=0))
    for packet in (syn(), from_client(ip(CLIENT[4], "10.9.9.9") / TCP(sport=77, dport=88, flags="S")), datagram()):
        verdict, frame = director.run(packet, mark=7)
        assert (verdict, destination(frame)) == (REDIRECT, SERVER[4])
    assert sorted(port_from(entry.virtual_port) for entry in director.connections()) == [PORT, PORT, 88]


def test_a_marks_server_may_have_a_port_of_its_own(director: Director) -> None:
    serve_mark(director, 4)
    _, frame = director.run(syn(), mark=7)
    assert int.from_bytes(frame[ETHERNET + 22 : ETHERNET + 24], "big") == SERVER_PORT


def test_later_packets_of_a_marks_connection_need_no_mark(director: Director) -> None:
    serve_mark(director, 4)
    director.run(syn(), mark=7)
    assert director.run(syn(flags="A"))[0] == REDIRECT
    assert len(director.connections()) == 1


@families
def test_a_marks_template_holds_for_every_port(director: Director, family: int) -> None:
    both = (server(SERVER[family], port=0), server(SECOND[family], port=0))
    serve_mark(director, family, *both, scheduler="rr", persistence_timeout_s=60)
    seen = set()
    for port in (80, 443, 8080):
        frame = director.run(from_client(ip(CLIENT[family], VIRTUAL[family]) / TCP(sport=port, dport=port, flags="S")), mark=7)[1]
        seen.add(destination(frame))
    assert len(seen) == 1
    (template,) = director.templates()
    assert (address_text(bytes(template.virtual.bytes)), template.virtual_port, template.protocol) == ("0.0.0.7", 0, 0)
    (shown,) = [each for each in asyncio.run(director.plane.connections()) if each.template]
    assert (shown.mark, shown.state) == (7, "NONE")


def test_templates_of_a_firewall_mark_are_deleted_when_persistence_ends(director: Director) -> None:
    key = serve_mark(director, 4, persistence_timeout_s=60)
    director.run(syn(), mark=7)
    director.delete_all_but_templates()
    director.apply(EditService(ServiceEntry(key=key)))
    assert not director.templates()


def test_without_a_firewall_mark_service_marks_are_ignored(director: Director) -> None:
    key = serve_mark(director, 4)
    other = serve_mark(director, 4, mark=9)
    director.apply(DeleteService(key))
    assert director.settings.flags & SettingFlag.MARKS
    assert director.run(syn(), mark=7)[0] == PASS
    director.apply(DeleteService(other))
    assert not director.settings.flags & SettingFlag.MARKS


# -- persistence -------------------------------------------------------------------------------------------------------

MASKS = {
    4: [
        (32, "10.7.3.129", "10.7.3.129"),
        (24, "10.7.3.129", "10.7.3.0"),
        (25, "10.7.3.129", "10.7.3.128"),
        (8, "10.7.3.129", "10.0.0.0"),
    ],
    6: [
        (128, "fd00:7::abcd:1", "fd00:7::abcd:1"),
        (112, "fd00:7::abcd:1", "fd00:7::abcd:0"),
        (64, "fd00:7::1", "fd00:7::"),
        (1, "fd00::1", "8000::"),
    ],
}


@pytest.mark.parametrize(
    ("family", "prefix", "client", "masked"),
    [(family, *mask) for family in FAMILIES for mask in MASKS[family]],
    ids=[f"{mask[1]}/{mask[0]}" for family in FAMILIES for mask in MASKS[family]],
)
@pytest.mark.parametrize("port", [PORT, 0], ids=["one-port", "every-port"])
@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_template_is_kept_by_masked_client_and_service(
    director: Director, family: int, prefix: int, client: str, masked: str, port: int, protocol: Protocol
) -> None:
    key = director.serve(family, protocol, port=port, persistence_timeout_s=77, persistence_granularity=prefix)
    director.run(syn(family, client=client) if protocol is Protocol.TCP else datagram(family, client=client))
    (template,) = director.templates()
    assert client_address(template) == masked
    assert (template.client_port, template.protocol) == (0, 6 if protocol is Protocol.TCP else 17)
    assert (bytes(template.virtual.bytes), port_from(template.virtual_port)) == (packed(VIRTUAL[family]), port)
    assert template.master == 1
    assert director.connection().master != 0
    assert director.server(key).templates == 1
    assert director.expires_in(template) == pytest.approx(77, abs=0.5)


@families
def test_a_network_of_clients_stays_with_one_server(director: Director, family: int) -> None:
    prefix, clients, others = {
        4: (24, [f"10.7.1.{i}" for i in range(1, 9)], [f"10.7.{i}.1" for i in range(2, 10)]),
        6: (64, [f"fd00:7:0:1::{i}" for i in range(1, 9)], [f"fd00:7:0:{i}::1" for i in range(2, 10)]),
    }[family]
    director.serve(
        family,
        Protocol.TCP,
        server(SERVER[family]),
        server(SECOND[family]),
        scheduler="rr",
        persistence_timeout_s=60,
        persistence_granularity=prefix,
    )
    assert len({picked(director, syn(family, client=client)) for client in clients}) == 1
    assert len(director.templates()) == 1
    assert Counter(picked(director, syn(family, client=client)) for client in others) == {SERVER[family]: 4, SECOND[family]: 4}


def persistent(director: Director) -> ServiceKey:
    return director.serve(4, Protocol.TCP, server(SERVER[4]), server(SECOND[4]), scheduler="rr", persistence_timeout_s=60)


def other(address: str) -> str:
    return SECOND[4] if address == SERVER[4] else SERVER[4]


@pytest.mark.parametrize("expire", [False, True], ids=["keeps", "expire-quiescent"])
def test_a_template_of_a_server_of_no_weight(director: Director, expire: bool) -> None:
    director.settings.flags |= SettingFlag.EXPIRE_QUIESCENT if expire else 0
    key = persistent(director)
    first = picked(director, syn(port=1001))
    director.apply(EditServer(key, server(first, weight=0)))
    assert picked(director, syn(port=1002)) == (other(first) if expire else first)


def test_a_template_of_a_removed_server_is_replaced(director: Director) -> None:
    key = persistent(director)
    first = picked(director, syn(port=1001))
    director.apply(DeleteServer(key, server(first).endpoint))
    assert picked(director, syn(port=1002)) == other(first)
    (template,) = director.templates()
    assert template.server == director.number(key)


def test_a_template_counts_its_connections_and_is_freed_with_the_last(director: Director) -> None:
    persistent(director)
    for port in (1001, 1002, 1003):
        director.run(syn(port=port))
    assert [template.master for template in director.templates()] == [3]
    for port, flags, held in ((1001, "A", 3), (1001, "R", 2), (1002, "A", 2), (1002, "FA", 2), (1003, "R", 2)):
        director.run(syn(port=port, flags=flags))
        (template,) = director.templates()
        assert template.master == held, (port, flags)
    (shown,) = [each for each in asyncio.run(director.plane.connections()) if each.template]
    assert shown.state == "ASSURED"


def test_a_template_of_datagrams_is_assured_by_a_reply(director: Director) -> None:
    director.serve(4, Protocol.UDP, server(SERVER[4]), persistence_timeout_s=60)
    answer = from_server(ip(SERVER[4], CLIENT[4]) / UDP(sport=SERVER_PORT, dport=CLIENT_PORT) / Raw(b"answer"))
    for packet, interface, assured in ((datagram(), director.outside, 0), (answer, director.inside, ConnectionFlag.ASSURED)):
        director.run(packet, interface)
        (template,) = director.templates()
        assert template.flags & ConnectionFlag.ASSURED == assured


def test_only_a_new_connection_restarts_a_templates_time_out(director: Director) -> None:
    key = persistent(director)
    director.run(syn(port=1001))
    director.service(key).persistence = 500 * director.settings.hz
    director.run(syn(port=1001, flags="A"))
    assert director.expires_in(director.templates()[0]) == pytest.approx(60, abs=0.5)
    director.run(syn(port=1002))
    assert director.expires_in(director.templates()[0]) == pytest.approx(500, abs=0.5)


def test_a_connection_that_found_no_slot_is_not_counted_at_its_template(director: Director) -> None:
    key = director.serve(persistence_timeout_s=60)
    director.settings.bucket_mask = 1
    director.run(syn(port=999))
    director.run(syn(port=999, flags="A"))
    port = 1000
    while len(director.entries()) < 16:
        director.insert(key, client_port=port)
        port += 1
    assert director.run(syn())[0] == SHOT
    assert [template.master for template in director.templates()] == [1]


# -- thresholds --------------------------------------------------------------------------------------------------------

THRESHOLDS = [(4, 0, 3), (4, 1, 1), (4, 2, 2), (8, 0, 6), (1, 0, 1)]


@pytest.mark.parametrize(("upper", "lower", "limit"), THRESHOLDS, ids=[f"{upper}-{lower}" for upper, lower, _ in THRESHOLDS])
def test_a_server_takes_connections_up_to_the_upper_and_again_below_the_lower_threshold(
    director: Director, upper: int, lower: int, limit: int
) -> None:
    key = director.serve(4, Protocol.TCP, server(SERVER[4], upper_threshold=upper, lower_threshold=lower))
    for port in range(1000, 1000 + upper):
        assert director.run(syn(port=port))[0] == REDIRECT
    assert director.server(key).overloaded
    assert picked(director, syn(port=999)) == ""
    assert director.service(key).refused == 1
    assert director.run(syn(port=1000, flags="A"))[0] == REDIRECT
    held = upper
    for place, entry in director.entries():
        assert bool(director.server(key).overloaded) == (held >= limit)
        director.instance.delete(place, entry.client_port)
        held -= 1
    assert not director.server(key).overloaded
    assert picked(director, syn(port=999)) == SERVER[4]


def test_a_client_with_a_template_may_pass_the_threshold(director: Director) -> None:
    director.serve(4, Protocol.TCP, server(SERVER[4], upper_threshold=1), persistence_timeout_s=60)
    assert [picked(director, syn(port=port)) for port in (1001, 1002)] == [SERVER[4]] * 2
    assert picked(director, syn(client="10.7.0.3")) == ""


# -- long lists --------------------------------------------------------------------------------------------------------

LONG = 150
"""Servers: the programs walk a list in parts of 64."""


def long_list(director: Director, scheduler: str, heavier: int = -1) -> tuple[list[str], ServiceKey]:
    """Serve with many servers of weight 1, one heavier than the rest; return them newest first."""
    addresses = [f"10.2.0.{11 + i}" for i in range(LONG)]
    entries = [server(address, weight=3 if i == heavier else 1) for i, address in enumerate(addresses)]
    key = director.serve(4, Protocol.TCP, *entries, scheduler=scheduler)
    return addresses[::-1], key


def many_picked(director: Director, number: int) -> list[str]:
    template = bytearray(bytes(syn()))
    return [picked(director, flow(template, client, port)) for client, port in random_clients(4, number, 5)]


def test_rr_goes_round_a_long_list(director: Director) -> None:
    servers, _ = long_list(director, "rr")
    assert many_picked(director, 2 * LONG) == servers * 2


@pytest.mark.parametrize("heavier", [0, 70, LONG - 1])
def test_wrr_goes_round_a_long_list_by_weight(director: Director, heavier: int) -> None:
    _, key = long_list(director, "wrr", heavier)
    counted = Counter(many_picked(director, LONG + 2))
    assert counted.pop(f"10.2.0.{11 + heavier}") == 3
    assert set(counted.values()) == {1}
    assert len(counted) == LONG - 1
    assert director.service(key).threshold in (1, 2, 3)


@pytest.mark.parametrize("scheduler", ["lc", "wlc", "sed", "nq"])
@pytest.mark.parametrize("idle", [0, 21, 22, 85, 86, LONG - 1])
def test_the_idlest_of_a_long_list_is_found(director: Director, scheduler: str, idle: int) -> None:
    _, key = long_list(director, scheduler)
    for i in range(LONG):
        director.server(key, f"10.2.0.{11 + i}").active = 0 if i == idle else 5
    assert picked(director, syn()) == f"10.2.0.{11 + idle}"
    for i in range(LONG):
        director.server(key, f"10.2.0.{11 + i}").active -= 0 if i == idle else 5


@pytest.mark.parametrize("scheduler", ["fo", "ovf"])
def test_the_heaviest_of_a_long_list_is_found(director: Director, scheduler: str) -> None:
    long_list(director, scheduler, 3)
    assert picked(director, syn()) == "10.2.0.14"


# -- hash schedulers ---------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Candidate:
    """A server as `relevo.schedulers` sees it."""

    address: str
    weight: int
    last_weight: int
    active: int = 0
    inactive: int = 0
    overloaded: bool = False

    @property
    def place(self) -> tuple[int, int]:
        return folded(self.address), SERVER_PORT


def folded(address: str) -> int:
    data = ip_address(address).packed
    words = [int.from_bytes(data[i : i + 4], "big") for i in range(0, len(data), 4)]
    total = 0
    for word in words:
        total ^= word
    return total


def flow(template: bytearray, client: bytes, port: int) -> bytes:
    """The SYN of another client, with a wrong checksum, which the programs do not check."""
    at = ETHERNET + (8 if len(client) == 16 else 12)
    template[at : at + len(client)] = client
    transport = ETHERNET + (40 if len(client) == 16 else 20)
    template[transport : transport + 2] = port.to_bytes(2, "big")
    return bytes(template)


def random_clients(family: int, number: int, seed: int) -> list[tuple[bytes, int]]:
    chance = random.Random(seed)
    prefix = bytes([0x20, 0x01]) if family == 6 else b""
    return [
        (prefix + chance.randbytes(14) if family == 6 else bytes([chance.randint(1, 126)]) + chance.randbytes(3), port)
        for port in (chance.randint(1024, 65535) for _ in range(number))
    ]


WEIGHTS = {"one": [1], "equal": [1, 1, 1], "uneven": [5, 1, 3, 7], "one-quiet": [5, 0, 3, 7], "all-quiet": [0, 0]}
OPTIONS: dict[str, tuple[str, ...]] = {"plain": (), "port": ("port",), "fallback": ("fallback",), "both": ("port", "fallback")}
SMALL_TABLE = 251
HASHES = [
    pytest.param(
        name,
        kind,
        options,
        weights,
        id=f"{name}-{option}-{which}",
    )
    for name, kind in (("sh", SourceHash), ("mh", MaglevHash))
    for option, options in OPTIONS.items()
    for which, weights in WEIGHTS.items()
]


@families
@pytest.mark.parametrize(("name", "kind", "options", "weights"), HASHES)
def test_hash_schedulers_pick_as_relevo_schedulers_does(
    director: Director,
    monkeypatch: pytest.MonkeyPatch,
    family: int,
    name: str,
    kind: type[SourceHash] | type[MaglevHash],
    options: tuple[str, ...],
    weights: list[int],
) -> None:
    monkeypatch.setattr(director.table, "_maglev_size", SMALL_TABLE)
    monkeypatch.setattr(MaglevHash, "size", SMALL_TABLE)
    flags = tuple(f"{name}-{option}" for option in options)
    addresses = [f"{SERVER[family][:-2]}{21 + i}" for i in range(len(weights))]
    full = [server(address, weight=max(weight, 2)) for address, weight in zip(addresses, weights, strict=True)]
    key = director.serve(family, Protocol.TCP, *full, scheduler=name, scheduler_flags=flags)
    director.apply(*(EditServer(key, server(address, weight=weight)) for address, weight in zip(addresses, weights, strict=True)))
    newest_first = [
        Candidate(address, max(weight, 2), weight) for address, weight in reversed([*zip(addresses, weights, strict=True)])
    ]
    scheduler = kind(flags)
    scheduler.changed(newest_first)
    for candidate in newest_first:
        candidate.weight = candidate.last_weight
    scheduler.changed(newest_first)
    template = bytearray(bytes(syn(family)))
    for client, port in random_clients(family, 100, 7):
        pick = scheduler.pick(newest_first, folded(str(ip_address(client))), port)
        assert picked(director, flow(template, client, port)) == (pick.address if pick else ""), (ip_address(client), port)


def test_mh_picks_alike_from_a_table_of_the_usual_size(director: Director) -> None:
    addresses = [SERVER[4], SECOND[4]]
    director.serve(4, Protocol.TCP, *(server(address) for address in addresses), scheduler="mh")
    newest_first = [Candidate(address, 1, 1) for address in reversed(addresses)]
    scheduler = MaglevHash()
    scheduler.changed(newest_first)
    template = bytearray(bytes(syn()))
    for client, port in random_clients(4, 300, 11):
        pick = scheduler.pick(newest_first, folded(str(ip_address(client))), port)
        assert picked(director, flow(template, client, port)) == (pick.address if pick else "")


@families
def test_dh_picks_by_the_virtual_address(director: Director, family: int) -> None:
    addresses = [f"{SERVER[family][:-2]}{21 + i}" for i in range(5)]
    director.serve(family, Protocol.TCP, *(server(address) for address in addresses), scheduler="dh")
    wanted = destination_hash.fill(addresses[::-1])[hash32(folded(VIRTUAL[family]), 8)]
    template = bytearray(bytes(syn(family)))
    assert {picked(director, flow(template, client, port)) for client, port in random_clients(family, 20, 3)} == {wanted}


# -- FULLNAT -----------------------------------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("protocol", list(Protocol))
def test_fullnat_gives_every_connection_a_local_port_of_its_own(director: Director, family: int, protocol: Protocol) -> None:
    director.serve(family, protocol, server(SERVER[family], forwarding=FULLNAT))
    for port in range(2000, 2100):
        director.run(syn(family, port) if protocol is Protocol.TCP else datagram(family, port))
    ports = {local_port(entry) for entry in director.connections()}
    assert len(ports) == 100
    first, count = director.settings.local_port_first, director.settings.local_port_count
    assert min(ports) >= first
    assert max(ports) < first + count


def test_fullnat_uses_every_port_that_it_was_given_and_no_other(director: Director) -> None:
    director.settings.local_port_first, director.settings.local_port_count = 30_000, 4
    key = director.serve(4, Protocol.TCP, server(SERVER[4], forwarding=FULLNAT))
    verdicts = [director.tc(syn(port=port)) for port in range(2000, 2060)]
    assert {local_port(entry) for entry in director.connections()} == {30_000, 30_001, 30_002, 30_003}
    assert all(ran.reasons == ({} if ran.verdict == REDIRECT else {Reason.DROP_NO_LOCAL_PORT: 1}) for ran in verdicts)
    assert director.server(key).active == 4


def test_fullnat_may_use_a_port_towards_each_server(director: Director) -> None:
    director.settings.local_port_first, director.settings.local_port_count = 30_000, 1
    servers = [server(address, forwarding=FULLNAT) for address in (SERVER[4], SECOND[4])]
    director.serve(4, Protocol.TCP, *servers, scheduler="rr")
    assert [director.run(syn(port=port))[0] for port in (2000, 2001, 2002)] == [REDIRECT, REDIRECT, SHOT]
    director.delete_all()
    assert director.run(syn(port=2003))[0] == REDIRECT


def test_fullnat_spreads_over_its_local_addresses(director: Director) -> None:
    key = director.serve(4, Protocol.TCP, server(SERVER[4], forwarding=FULLNAT))
    value = director.server(key)
    memory = director.table._snat_memory
    before, at = bytes(memory[: 16 * 8]), value.snat_first * 16
    addresses = [f"10.2.0.{i}" for i in (1, 2, 3)]
    try:
        memory[at : at + 48] = b"".join(packed(address) for address in addresses)
        value.snat_count = 3
        used = Counter(IP(director.run(syn(port=port))[1][ETHERNET:]).src for port in range(2000, 2090))
        assert set(used) == set(addresses)
        director.delete_all()
    finally:
        memory[: 16 * 8] = before
        value.snat_count = 1


def test_a_local_port_is_free_again_when_a_table_without_room_refused_the_connection(director: Director) -> None:
    key = director.serve(4, Protocol.TCP, server(SERVER[4], forwarding=FULLNAT))
    director.settings.bucket_mask = 1
    port = 1000
    while len(director.entries()) < 16:
        director.insert(key, client_port=port)
        port += 1
    assert director.tc(syn()).reasons == {Reason.DROP_TABLE_FULL: 1}
    assert not director._keys("translations")


def test_an_evicted_connection_gives_its_local_port_back(director: Director) -> None:
    director.serve(4, Protocol.TCP, server(SERVER[4], forwarding=FULLNAT))
    director.settings.bucket_mask = 1
    for port in range(1000, 1040):
        assert director.run(syn(port=port))[0] == REDIRECT
    assert len(director._keys("translations")) == len(director.entries()) == 16


def test_a_local_port_is_free_again_when_another_server_has_the_slot(director: Director) -> None:
    key = director.serve(4, Protocol.TCP, server(SERVER[4], forwarding=FULLNAT))
    director.run(syn())
    number = director.number(key)
    director.apply(DeleteServer(key, server(SERVER[4]).endpoint))
    last, added = "10.2.1.0", 0
    while number not in {each.number for each in director.table.services[key].servers}:
        added += 1
        last = f"10.2.1.{added}"
        director.apply(AddServer(key, server(last, forwarding=FULLNAT)))
    director.delete_all()
    assert not director._keys("translations")


# -- ends --------------------------------------------------------------------------------------------------------------


def test_the_sweep_deletes_expired_entries_only(director: Director) -> None:
    key = director.serve()
    for port in range(1000, 1100):
        director.insert(key, client_port=port, expires_s=-1 if port % 2 else 60)
    assert director.instance.sweep() == 50
    assert {port_from(entry.client_port) % 2 for entry in director.connections()} == {0}
    assert director.server(key).active == 50


@pytest.mark.parametrize("held", [0, 1])
def test_the_sweep_leaves_a_template_that_controls_a_connection(director: Director, held: int) -> None:
    director.serve(persistence_timeout_s=60)
    director.run(syn(port=1001))
    if not held:
        director.run(syn(port=1001, flags="R"))
        director.run(syn(port=1001, flags="A"))
        director.run(syn(port=1001, flags="R"))
    place, template = next(each for each in director.entries() if each[1].flags & ConnectionFlag.TEMPLATE)
    assert template.master == held
    buckets = director.instance.maps["buckets"]
    number, slot = divmod(place, 8)
    data = bytearray(buckets.lookup(number.to_bytes(4, "little")) or b"")
    at = 16 + slot * ctypes.sizeof(Connection) + Connection.expires.offset
    data[at : at + 4] = (director.instance.jiffies() - 1 & 0xFFFFFFFF).to_bytes(4, "little")
    buckets.update(number.to_bytes(4, "little"), bytes(data))
    assert director.instance.sweep() == 1 - held
    assert len(director.templates()) == held


def test_spilled_connections_are_found_and_deleted(director: Director) -> None:
    key = director.serve()
    director.settings.bucket_mask = 1
    ports = []
    port = 1000
    while len(director.entries()) < 16:
        if director.insert(key, client_port=port) != 0xFFFFFFFF:
            ports.append(port)
        port += 1
    assert [director.run(syn(port=port, flags="A"))[0] for port in ports] == [REDIRECT] * 16
    answers = (IP(src=SERVER[4], dst=CLIENT[4]) / TCP(sport=SERVER_PORT, dport=port, flags="A") for port in ports)
    assert [director.run(from_server(answer), director.inside)[0] for answer in answers] == [REDIRECT] * 16


def test_an_edit_that_ends_persistence_deletes_templates(director: Director) -> None:
    key = director.serve(persistence_timeout_s=60)
    director.run(syn(port=1001))
    director.apply(EditService(ServiceEntry(key=key)))
    assert not director.templates()
    director.run(syn(port=1002))
    assert not director.templates()
    assert director.server(key).templates == 0


def test_the_connections_of_a_server_that_returns_go_on(director: Director) -> None:
    key = director.serve()
    director.run(syn(port=1001))
    director.run(syn(port=1002))
    removed, returned = DeleteServer(key, server(SERVER[4]).endpoint), AddServer(key, server(SERVER[4]))
    director.apply(removed, returned)
    assert director.server(key).active == 2
    assert director.run(syn(port=1001, flags="A"))[0] == REDIRECT
    director.apply(removed)
    assert director.tc(syn(port=1001, flags="A")).reasons == {Reason.REFUSED_ORPHAN: 1}  # its packet came meanwhile
    director.apply(returned)
    assert director.server(key).active == 1
    assert director.run(syn(port=1002, flags="A"))[0] == REDIRECT


def test_a_server_that_returns_with_another_method_starts_anew(director: Director) -> None:
    key = director.serve()
    director.run(syn())
    again = server(SERVER[4], forwarding=Forwarding.FULLNAT)
    director.apply(DeleteServer(key, again.endpoint), AddServer(key, again))
    assert director.server(key).generation % 2 == 0
    assert director.server(key).active == 0
    assert director.tc(syn(flags="A")).reasons == {Reason.REFUSED_ORPHAN: 1}
    director.apply(DeleteServer(key, again.endpoint), AddServer(key, server(SERVER[4])))
    assert director.server(key).active == 0


# -- what is declared --------------------------------------------------------------------------------------------------

GUE = Tunnel(TunnelKind.GUE, 6080)
EVERYTHING = [
    (ServiceEntry(key=ServiceKey(Protocol.TCP, Endpoint(VIRTUAL[4], 1)), scheduler="wrr"), [server(SERVER[4], weight=9)]),
    (
        ServiceEntry(
            key=ServiceKey(Protocol.UDP, Endpoint(VIRTUAL[6], 2)),
            scheduler="mh",
            scheduler_flags=("mh-fallback", "mh-port"),
            persistence_granularity=128,
        ),
        [server(SERVER[6], upper_threshold=9, lower_threshold=3), server(SECOND[6], weight=0)],
    ),
    (
        ServiceEntry(key=ServiceKey(Protocol.TCP, Endpoint(VIRTUAL[4], 0)), persistence_timeout_s=60, persistence_granularity=24),
        [server(SERVER[4], port=0, forwarding=DR)],
    ),
    (
        ServiceEntry(key=ServiceKey(Protocol.UDP, Endpoint(VIRTUAL[4], 3)), one_packet=True, refuses_by_reset=True),
        [server(SERVER[4], forwarding=TUN, tunnel=GUE), server(SECOND[4], forwarding=TUN)],
    ),
    (
        ServiceEntry(key=ServiceKey(Protocol.TCP, Endpoint(VIRTUAL[4], 4))),
        [
            server(SERVER[4], forwarding=FULLNAT, local_addresses=("10.2.0.200", "10.2.0.201")),
            server(SECOND[4], forwarding=FULLNAT),
        ],
    ),
    (ServiceEntry(key=ServiceKey.of_mark(7)), [server(SERVER[4])]),
    (ServiceEntry(key=ServiceKey.of_mark(0xFFFFFFFF, ipv6=True), persistence_timeout_s=9, persistence_granularity=64), []),
]


def declare(director: Director) -> None:
    for service, servers in EVERYTHING:
        director.apply(AddService(service), *(AddServer(service.key, entry) for entry in servers))


def test_what_is_declared_is_read_back_and_adopted(director: Director) -> None:
    declare(director)
    shown = asyncio.run(director.plane.observe())
    assert [[each.server for each in state.servers] for state in shown] == [servers for _, servers in EVERYTHING]
    assert reconcile([Desired(state.service, tuple(s.server for s in state.servers)) for state in shown], shown) == []
    adopted = Table(director.instance, local_address_towards).observe()
    assert sorted(adopted, key=str) == sorted(shown, key=str)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (server(SERVER[4], forwarding=TUN, tunnel=Tunnel(TunnelKind.GRE)), "no tunnels of type gre on the ebpf plane"),
        (
            server(SERVER[4], forwarding=TUN, tunnel=Tunnel(TunnelKind.GUE, 1, TunnelChecksum.PLAIN)),
            "no checksums in tunnels on the ebpf plane",
        ),
        (
            server(SECOND[4], forwarding=FULLNAT, local_addresses=tuple(f"10.9.{i // 256}.{i % 256}" for i in range(300))),
            "no room for more than 256 local addresses",
        ),
    ],
)
def test_a_server_that_cannot_be_reached_as_declared_is_refused(director: Director, entry: ServerEntry, reason: str) -> None:
    key = director.serve()
    (refused,) = asyncio.run(director.plane.apply([AddServer(key, entry)]))
    assert refused.reason == reason
    present = director.table.services[key].servers[0].entry
    edited = msgspec.structs.replace(entry, endpoint=present.endpoint)
    (refused,) = asyncio.run(director.plane.apply([EditServer(key, edited)]))
    assert refused.reason == reason
    assert director.table.services[key].servers[0].entry == present


def test_servers_with_the_same_source_addresses_share_them(director: Director) -> None:
    pool = ("10.2.0.200", "10.2.0.201")
    entries = [server(address, forwarding=FULLNAT, local_addresses=pool) for address in (SERVER[4], SECOND[4])]
    key = director.serve(4, Protocol.TCP, *entries)
    first, second = (director.server(key, address) for address in (SERVER[4], SECOND[4]))
    assert (first.snat_first, first.snat_count) == (second.snat_first, second.snat_count)
    assert first.snat_count == 2
    template = bytearray(bytes(syn()))
    frames = [director.run(flow(template, client, port))[1] for client, port in random_clients(4, 60, 3)]
    assert {str(ip_address(frame[ETHERNET + 12 : ETHERNET + 16])) for frame in frames} == set(pool)
