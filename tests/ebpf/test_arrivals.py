"""What other directors announce, in the table: IPVS's rules for what is there already, and everything that may not come in."""

from __future__ import annotations

import random
import time
from collections import Counter
from ipaddress import ip_address
from typing import Any

import pytest

from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, DeleteServer, ServerEntry, ServiceEntry
from relevo.planes.ebpf.announcements import Ring
from relevo.planes.ebpf.arrivals import MAX_PLACES, MAX_WAITING, NO_ROOM, NO_SERVER, SUPERSEDED, UNSUITABLE, Arrivals
from relevo.planes.ebpf.layout import ConnectionFlag, SettingFlag, TcpState, port_from
from relevo.wire import ipvs_sync
from relevo.wire.ipvs_sync import INACTIVE, TEMPLATE, Entry
from tests.ebpf.packets import (
    CLIENT,
    CLIENT_PORT,
    PORT,
    REDIRECT,
    SECOND,
    SERVER,
    SERVER_PORT,
    VIRTUAL,
    Director,
    datagram,
    server,
    syn,
)
from tests.unit.wire.test_fuzz import COUNT, spoilt

families = pytest.mark.parametrize("family", [4, 6])


def packed(address: str) -> bytes:
    return ip_address(address).packed


def entry(family: int = 4, *, to: str = "", **fields: Any) -> Entry:
    """An established connection to the usual server, or what ``fields`` make of it."""
    usual: dict[str, Any] = {
        "protocol": 6,
        "client": packed(CLIENT[family]),
        "client_port": CLIENT_PORT,
        "virtual": packed(VIRTUAL[family]),
        "virtual_port": PORT,
        "server": packed(to or SERVER[family]),
        "server_port": SERVER_PORT,
        "state": TcpState.ESTABLISHED,
        "seconds": 900,
    }
    return Entry(**(usual | fields))


@pytest.fixture
def arrivals(director: Director) -> Arrivals:
    return Arrivals(director.instance, director.table)


@families
@pytest.mark.parametrize("forwarding", [Forwarding.NAT, Forwarding.DR, Forwarding.TUN])
def test_a_connection_that_came_carries_its_client_s_next_segment(
    director: Director, arrivals: Arrivals, family: int, forwarding: Forwarding
) -> None:
    behind = server(SERVER[family], forwarding=forwarding)
    key = director.serve(family, Protocol.TCP, behind)
    arrivals.take([entry(family, server_port=behind.endpoint.port)], 0.0)
    verdict, _ = director.run(syn(family, flags="PA"))
    assert verdict == REDIRECT
    found = director.connection()
    assert (found.state, found.packets, bool(found.flags & ConnectionFlag.FOREIGN)) == (TcpState.ESTABLISHED, 4, True)
    assert bool(found.flags & ConnectionFlag.NO_OUTPUT) is (forwarding is not Forwarding.NAT)
    assert (director.server(key).active, director.server(key).inactive) == (1, 0)


def test_what_is_announced_by_one_director_is_the_same_at_another(director: Director, arrivals: Arrivals) -> None:
    """Segments, datagrams, templates, a mark: through the ring, over the wire, into an empty table."""
    ring = Ring(director.instance.maps["announcements"])
    ring.skip()
    director.settings.flags |= SettingFlag.ANNOUNCE
    director.serve(persistence_timeout_s=50)
    director.serve(4, Protocol.UDP)
    key = ServiceKey.of_mark(7)
    director.apply(
        AddService(ServiceEntry(key=key, persistence_timeout_s=60)),
        AddServer(key, ServerEntry(endpoint=Endpoint(SECOND[4], 0), forwarding=Forwarding.NAT)),
    )
    for flags in ("S", "A", "PA"):
        director.run(syn(flags=flags))
        director.run(datagram())
        director.run(syn(port=7, client="10.7.0.7", flags=flags), mark=7)
    before = sorted(map(essence, director.entries()))
    assert len(before) == 5
    messages = list(ipvs_sync.assemble(1, ring.read(100)))
    ring.close()
    director.take_out_all()
    for message in messages:
        arrivals.take(ipvs_sync.decode(message).entries, 0.0)
    assert sorted(map(essence, director.entries())) == before
    assert not arrivals.refused


def essence(found: tuple[int, Any]) -> tuple[Any, ...]:
    """What of a connection must be the same on every director."""
    _, held = found
    ends = (bytes(held.client.octets), bytes(held.virtual.octets), held.client_port, held.virtual_port)
    return (*ends, held.protocol, held.state, held.flags & ~ConnectionFlag.FOREIGN, held.server)


def test_a_later_word_moves_the_state_and_the_count(director: Director, arrivals: Arrivals) -> None:
    key = director.serve()
    arrivals.take([entry(), entry(state=TcpState.CLOSE_WAIT, flags=INACTIVE, seconds=60)], 0.0)
    found = director.connection()
    assert (found.state, round(director.expires_in(found), -1)) == (TcpState.CLOSE_WAIT, 60)
    assert (director.server(key).active, director.server(key).inactive) == (0, 1)


@pytest.mark.parametrize(("flags", "address"), [(0, SECOND[4]), (INACTIVE, SERVER[4])])
def test_another_server_s_connection_gives_way_to_one_in_use_alone(
    director: Director, arrivals: Arrivals, flags: int, address: str
) -> None:
    key = director.serve(4, Protocol.TCP, server(SERVER[4]), server(SECOND[4]))
    arrivals.take([entry(), entry(to=SECOND[4], flags=flags)], 0.0)
    assert director.connection().server == director.number(key, address)
    assert arrivals.refused[SUPERSEDED] == (1 if flags else 0)
    assert director.server(key, address).active == 1


def test_a_template_holds_its_client_to_its_server(director: Director, arrivals: Arrivals) -> None:
    key = director.serve(4, Protocol.TCP, server(SERVER[4]), server(SECOND[4]), persistence_timeout_s=300)
    for address in (SERVER[4], SECOND[4]):
        arrivals.take([entry(to=address, client_port=0, state=1, flags=TEMPLATE | INACTIVE, seconds=300)], 0.0)
        director.run(syn(port=2000))
        assert director.connection().server == director.number(key, address)
        assert director.server(key, address).templates == 1
        director.take_out_all()


def test_a_connection_waits_for_its_server_and_a_closed_one_does_not(director: Director, arrivals: Arrivals) -> None:
    key = director.serve()
    arrivals.take([entry(to=SECOND[4]), entry(to=SECOND[4], client_port=9)], 0.0)
    arrivals.take([entry(to=SECOND[4], client_port=9, state=TcpState.CLOSE, flags=INACTIVE)], 0.0)
    assert (arrivals.waiting(0.0), arrivals.refused[NO_SERVER], director.connections()) == (1, 3, [])
    director.apply(AddServer(key, server(SECOND[4])))
    arrivals.table_changed(1.0)
    assert (arrivals.waiting(0.0), director.connection().server) == (0, director.number(key, SECOND[4]))


def test_a_server_that_left_and_came_again_takes_new_connections_in(director: Director, arrivals: Arrivals) -> None:
    key = director.serve()
    arrivals.take([entry()], 0.0)
    director.apply(DeleteServer(key, server(SERVER[4]).endpoint), AddServer(key, server(SERVER[4])))
    arrivals.take([entry(seconds=100)], 0.0)
    assert director.connection().generation == director.server(key).generation


def test_no_more_wait_than_there_is_room_for(director: Director, arrivals: Arrivals) -> None:
    director.serve()
    arrivals.take(
        [entry(to=SECOND[4], client_port=n & 0xFFFF, client=packed(f"10.9.{n >> 16}.1")) for n in range(MAX_WAITING + 5)],
        0.0,
    )
    assert arrivals.waiting(0.0) == MAX_WAITING


def test_who_has_waited_as_long_as_its_time_waits_no_more(director: Director, arrivals: Arrivals) -> None:
    director.serve()
    arrivals.take([entry(to=SECOND[4], client_port=1, seconds=60), entry(to=SECOND[4], client_port=2, seconds=900)], 0.0)
    assert [arrivals.waiting(now) for now in (59.0, 60.0, 900.0)] == [2, 1, 0]


@pytest.mark.parametrize("fields", [{"protocol": 132, "state": 3}, {"engine": "sip"}, {"engine_data": b"call"}], ids=str)
def test_what_this_plane_cannot_carry_on_is_counted(director: Director, arrivals: Arrivals, fields: dict[str, Any]) -> None:
    director.serve()
    arrivals.take([entry(**fields)], 0.0)
    assert (dict(arrivals.refused), director.connections()) == ({UNSUITABLE: 1}, [])


def test_fullnat_here_takes_nothing_in(director: Director, arrivals: Arrivals) -> None:
    director.serve(4, Protocol.TCP, server(SERVER[4], forwarding=Forwarding.FULLNAT))
    arrivals.take([entry()], 0.0)
    assert (dict(arrivals.refused), director.connections()) == ({UNSUITABLE: 1}, [])


def test_a_full_table_counts_what_it_cannot_take_in(director: Director, arrivals: Arrivals) -> None:
    key = director.serve()
    number = director.instance.maps["buckets"].max_entries * 8 * 2
    arrivals.take(
        [entry(client=packed("10.7.1.1") if n >> 16 else packed("10.7.1.2"), client_port=n & 0xFFFF) for n in range(number)],
        0.0,
    )
    held = director.connections()
    assert arrivals.refused[NO_ROOM] == number - len(held) > 0
    assert director.server(key).active == len(held)


def test_a_time_out_beyond_the_clock_s_reach_is_cut(director: Director, arrivals: Arrivals) -> None:
    director.serve()
    arrivals.take([entry(seconds=ipvs_sync.MAX_SECONDS)], 0.0)
    assert director.expires_in(director.connection()) > 20 * 86_400
    assert port_from(director.connection().client_port) == CLIENT_PORT


def test_spoilt_messages_enter_or_are_counted_and_the_table_stays_sound(director: Director, arrivals: Arrivals) -> None:
    """Messages for services that are here, spoilt: what each entry came to is known, and servers hold what the table holds."""
    key = director.serve(4, Protocol.TCP, server(SERVER[4]), server(SECOND[4]), persistence_timeout_s=60)
    director.serve(6, Protocol.TCP)
    director.serve(4, Protocol.UDP)
    seeds = list(
        ipvs_sync.assemble(
            1,
            [
                ipvs_sync.encode(each)
                for each in (
                    entry(),
                    entry(6),
                    entry(to=SECOND[4], state=TcpState.FIN_WAIT, flags=INACTIVE, seconds=0),
                    entry(protocol=17, state=0, flags=INACTIVE),
                    entry(client_port=0, state=1, flags=TEMPLATE | INACTIVE),
                    entry(client_port=0, protocol=0, state=0, flags=TEMPLATE, mark=7),
                )
            ],
        )
    )
    chance, refused, read = random.Random(9), 0, 0
    for _ in range(COUNT):
        data = bytearray(spoilt(chance, seeds))
        data[2:4] = len(data).to_bytes(2, "big")  # a size that fits makes what is behind it count
        found = ipvs_sync.decode(bytes(data))
        refused += len(found.refused)
        read += len(found.entries)
        arrivals.take(found.entries, 0.0)
    assert refused > COUNT // 10 < read
    assert arrivals.entered + sum(arrivals.refused.values()) == read
    assert arrivals.refused[NO_SERVER] and arrivals.refused[SUPERSEDED]
    held = Counter(each.server for each in director.connections())
    templates = Counter(each.server for each in director.templates())
    for address in (SERVER[4], SECOND[4]):
        number, value = director.number(key, address), director.server(key, address)
        assert (value.active + value.inactive, value.templates) == (held[number], templates[number])


def test_what_waits_gives_way_to_what_came_later(director: Director, arrivals: Arrivals) -> None:
    """The client went to another server meanwhile: the one that is back must not have it again."""
    key = director.serve(4, Protocol.TCP, server(SERVER[4]))
    arrivals.take([entry(to=SECOND[4])], 0.0)
    arrivals.take([entry()], 1.0)
    director.apply(AddServer(key, server(SECOND[4])))
    arrivals.table_changed(2.0)
    assert (arrivals.waiting(0.0), director.connection().server) == (0, director.number(key, SERVER[4]))


def test_what_waited_enters_with_the_time_that_it_has_left_or_not_at_all(director: Director, arrivals: Arrivals) -> None:
    key = director.serve()
    arrivals.take([entry(to=SECOND[4], seconds=900), entry(to=SECOND[4], client_port=9, seconds=100)], 0.0)
    director.apply(AddServer(key, server(SECOND[4])))
    arrivals.table_changed(300.0)
    assert round(director.expires_in(director.connection()), -1) == 600
    assert (arrivals.waiting(0.0), arrivals.refused[NO_SERVER]) == (0, 2), "trying again is not counted again"


def test_ever_new_ends_cost_no_memory(director: Director, arrivals: Arrivals) -> None:
    key = ServiceKey(Protocol.TCP, Endpoint(VIRTUAL[4], 0))
    director.apply(
        AddService(ServiceEntry(key=key, persistence_timeout_s=60)),
        AddServer(key, ServerEntry(endpoint=Endpoint(SERVER[4], 0), forwarding=Forwarding.NAT)),
    )
    for port in (range(65_536), range(10)):
        arrivals.take([entry(virtual_port=n, server_port=n, client_port=1) for n in port], 0.0)
    assert len(arrivals._places) <= MAX_PLACES


def test_the_slot_of_a_mark_s_template_is_counted_out_when_another_takes_it(director: Director, arrivals: Arrivals) -> None:
    key = ServiceKey.of_mark(7)
    director.apply(
        AddService(ServiceEntry(key=key, persistence_timeout_s=60)),
        AddServer(key, ServerEntry(endpoint=Endpoint(SERVER[4], 0), forwarding=Forwarding.NAT)),
    )
    clients = [packed(f"10.7.{n >> 8}.{n & 255}") for n in range(6000)]
    for seconds in (1, 60):
        template = {
            "client_port": 0,
            "virtual_port": 0,
            "server_port": 0,
            "protocol": 0,
            "state": 0,
            "flags": TEMPLATE,
            "mark": 7,
        }
        arrivals.take([entry(client=client, seconds=seconds, **template) for client in clients], 0.0)
        time.sleep(1.1 if seconds == 1 else 0.0)
    assert director.server(key).templates == len(director.templates())
