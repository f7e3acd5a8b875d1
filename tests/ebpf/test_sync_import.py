"""Sync import: entries become connections of the table by IPVS's rules; those that cannot are kept or counted by reason."""

from __future__ import annotations

import random
import time
from collections import Counter
from ipaddress import ip_address
from typing import Any

import pytest

from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, DeleteServer, ServerEntry, ServiceEntry
from relevo.planes.ebpf.layout import ConnectionFlag, SettingFlag, TcpState, port_from
from relevo.planes.ebpf.sync_export import Ring
from relevo.planes.ebpf.sync_import import MAX_TARGETS, MAX_WAITING, NO_ROOM, NO_SERVER, SUPERSEDED, UNSUITABLE, SyncImport
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
from tests.ebpf.test_opening import flow, random_clients
from tests.unit.wire.test_fuzz import COUNT, corrupted

families = pytest.mark.parametrize("family", [4, 6])


def packed(address: str) -> bytes:
    return ip_address(address).packed


def entry(family: int = 4, *, to: str = "", **fields: Any) -> Entry:
    """Return an entry of an established connection to the default server, changed by ``fields``."""
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
def importer(director: Director) -> SyncImport:
    return SyncImport(director.instance, director.table)


@families
@pytest.mark.parametrize("forwarding", [Forwarding.NAT, Forwarding.DR, Forwarding.TUN])
def test_the_client_s_next_segment_matches_an_imported_connection(
    director: Director, importer: SyncImport, family: int, forwarding: Forwarding
) -> None:
    backend = server(SERVER[family], forwarding=forwarding)
    key = director.serve(family, Protocol.TCP, backend)
    importer.receive([entry(family, server_port=backend.endpoint.port)], 0.0)
    verdict, _ = director.run(syn(family, flags="PA"))
    assert verdict == REDIRECT
    found = director.connection()
    assert (found.state, found.packets, bool(found.flags & ConnectionFlag.FOREIGN)) == (TcpState.ESTABLISHED, 4, True)
    assert bool(found.flags & ConnectionFlag.NO_OUTPUT) is (forwarding is not Forwarding.NAT)
    assert (director.server(key).active, director.server(key).inactive) == (1, 0)


def test_connections_sent_by_one_director_are_the_same_at_another(director: Director, importer: SyncImport) -> None:
    """TCP, UDP, templates and a mark go through the ring and messages into an empty table."""
    ring = Ring(director.instance.maps["sync_ring"])
    ring.skip()
    director.settings.flags |= SettingFlag.SYNC
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
    director.delete_all()
    for message in messages:
        importer.receive(ipvs_sync.decode(message).entries, 0.0)
    assert sorted(map(essence, director.entries())) == before
    assert not importer.refused


def essence(found: tuple[int, Any]) -> tuple[Any, ...]:
    """Return the fields of a connection that must be the same on every director."""
    _, held = found
    ends = (bytes(held.client.bytes), bytes(held.virtual.bytes), held.client_port, held.virtual_port)
    return (*ends, held.protocol, held.state, held.flags & ~ConnectionFlag.FOREIGN, held.server)


def test_a_later_entry_updates_the_state_and_the_counters(director: Director, importer: SyncImport) -> None:
    key = director.serve()
    importer.receive([entry(), entry(state=TcpState.CLOSE_WAIT, flags=INACTIVE, seconds=60)], 0.0)
    found = director.connection()
    assert (found.state, round(director.expires_in(found), -1)) == (TcpState.CLOSE_WAIT, 60)
    assert (director.server(key).active, director.server(key).inactive) == (0, 1)


@pytest.mark.parametrize(("flags", "address"), [(0, SECOND[4]), (INACTIVE, SERVER[4])])
def test_only_an_active_connection_replaces_that_of_another_server(
    director: Director, importer: SyncImport, flags: int, address: str
) -> None:
    key = director.serve(4, Protocol.TCP, server(SERVER[4]), server(SECOND[4]))
    importer.receive([entry(), entry(to=SECOND[4], flags=flags)], 0.0)
    assert director.connection().server == director.number(key, address)
    assert importer.refused[SUPERSEDED] == (1 if flags else 0)
    assert director.server(key, address).active == 1


def test_an_imported_template_selects_the_server_of_its_client(director: Director, importer: SyncImport) -> None:
    key = director.serve(4, Protocol.TCP, server(SERVER[4]), server(SECOND[4]), persistence_timeout_s=300)
    for address in (SERVER[4], SECOND[4]):
        importer.receive([entry(to=address, client_port=0, state=1, flags=TEMPLATE | INACTIVE, seconds=300)], 0.0)
        director.run(syn(port=2000))
        assert director.connection().server == director.number(key, address)
        assert director.server(key, address).templates == 1
        director.delete_all()


def test_a_connection_waits_for_its_server_but_a_closed_one_does_not(director: Director, importer: SyncImport) -> None:
    key = director.serve()
    importer.receive([entry(to=SECOND[4]), entry(to=SECOND[4], client_port=9)], 0.0)
    importer.receive([entry(to=SECOND[4], client_port=9, state=TcpState.CLOSE, flags=INACTIVE)], 0.0)
    assert (importer.waiting(0.0), importer.refused[NO_SERVER], director.connections()) == (1, 3, [])
    director.apply(AddServer(key, server(SECOND[4])))
    importer.table_changed(1.0)
    assert (importer.waiting(0.0), director.connection().server) == (0, director.number(key, SECOND[4]))


def test_entries_go_to_a_server_that_was_deleted_and_added_again(director: Director, importer: SyncImport) -> None:
    key = director.serve()
    importer.receive([entry()], 0.0)
    director.apply(DeleteServer(key, server(SERVER[4]).endpoint), AddServer(key, server(SERVER[4])))
    importer.receive([entry(seconds=100)], 0.0)
    assert director.connection().generation == director.server(key).generation


def test_the_number_of_waiting_entries_is_limited(director: Director, importer: SyncImport) -> None:
    director.serve()
    importer.receive(
        [entry(to=SECOND[4], client_port=n & 0xFFFF, client=packed(f"10.9.{n >> 16}.1")) for n in range(MAX_WAITING + 5)],
        0.0,
    )
    assert importer.waiting(0.0) == MAX_WAITING


def test_a_waiting_entry_expires_after_its_time_out(director: Director, importer: SyncImport) -> None:
    director.serve()
    importer.receive([entry(to=SECOND[4], client_port=1, seconds=60), entry(to=SECOND[4], client_port=2, seconds=900)], 0.0)
    assert [importer.waiting(now) for now in (59.0, 60.0, 900.0)] == [2, 1, 0]


@pytest.mark.parametrize("fields", [{"protocol": 132, "state": 3}, {"engine": "sip"}, {"engine_data": b"call"}], ids=str)
def test_entries_that_this_plane_cannot_continue_are_counted(
    director: Director, importer: SyncImport, fields: dict[str, Any]
) -> None:
    director.serve()
    importer.receive([entry(**fields)], 0.0)
    assert (dict(importer.refused), director.connections()) == ({UNSUITABLE: 1}, [])


def test_nothing_is_imported_for_a_fullnat_server(director: Director, importer: SyncImport) -> None:
    director.serve(4, Protocol.TCP, server(SERVER[4], forwarding=Forwarding.FULLNAT))
    importer.receive([entry()], 0.0)
    assert (dict(importer.refused), director.connections()) == ({UNSUITABLE: 1}, [])


def test_entries_for_which_the_table_has_no_room_are_counted(director: Director, importer: SyncImport) -> None:
    key = director.serve()
    number = director.instance.maps["buckets"].max_entries * 8 * 2
    importer.receive(
        [entry(client=packed("10.7.1.1") if n >> 16 else packed("10.7.1.2"), client_port=n & 0xFFFF) for n in range(number)],
        0.0,
    )
    held = director.connections()
    assert importer.refused[NO_ROOM] == number - len(held) > 0
    assert director.server(key).active == len(held)


@pytest.mark.parametrize("seconds", [ipvs_sync.MAX_SECONDS, 901])
def test_no_entry_lives_longer_than_a_connection_of_this_node(director: Director, importer: SyncImport, seconds: int) -> None:
    director.serve()
    importer.receive([entry(seconds=seconds)], 0.0)
    assert director.expires_in(director.connection()) == pytest.approx(900, abs=1)
    assert port_from(director.connection().client_port) == CLIENT_PORT


@pytest.mark.parametrize("seconds", [ipvs_sync.MAX_SECONDS, 0, 40])
def test_no_template_lives_longer_than_the_service_s(director: Director, importer: SyncImport, seconds: int) -> None:
    director.serve(4, Protocol.TCP, persistence_timeout_s=60)
    importer.receive([entry(client_port=0, state=1, flags=TEMPLATE | INACTIVE, seconds=seconds)], 0.0)
    (template,) = director.templates()
    assert director.expires_in(template) == pytest.approx(min(seconds or 60, 60), abs=1)


def forged(director: Director) -> list[Entry]:
    """Entries of a sender that knows the service and a server: twice as many as the table has room for."""
    count = director.instance.maps["buckets"].max_entries * 8 * 2
    return [entry(client=packed(f"10.7.{n >> 16}.1"), client_port=n & 0xFFFF) for n in range(count)]


def test_new_clients_take_the_place_of_imports_that_fill_the_table(director: Director, importer: SyncImport) -> None:
    director.serve()
    importer.receive(forged(director), 0.0)
    assert importer.refused[NO_ROOM] > 0
    template = bytearray(bytes(syn()))
    clients = random_clients(4, 1000, 7)
    # A few at first: on a slow machine the handshakes of many become older than a second, and yield before imports do.
    assert {director.run(flow(template, client, port))[0] for client, port in clients[:20]} == {REDIRECT}
    assert sum(not each.flags & ConnectionFlag.FOREIGN for each in director.connections()) == 20
    assert {director.run(flow(template, client, port))[0] for client, port in clients[20:]} == {REDIRECT}


def test_imports_take_no_place_of_this_node_s_connections_and_used_ones_stay(director: Director, importer: SyncImport) -> None:
    """The connections of new clients are half-open here: others of theirs may replace them, but no import."""
    director.serve()
    importer.receive([entry()], 0.0)
    assert director.run(syn(flags="PA"))[0] == REDIRECT  # the peer's connection goes on here
    template = bytearray(bytes(syn()))
    clients = list(random_clients(4, 500, 9))
    for client, port in clients:
        assert director.run(flow(template, client, port))[0] == REDIRECT
    before = {(bytes(each.client), each.client_port) for each in director.connections()}
    importer.receive(forged(director), 0.0)
    present = {(bytes(each.client), each.client_port) for each in director.connections()}
    assert before <= present
    for client, port in random_clients(4, 1000, 11):
        director.run(flow(template, client, port))
    used = [each for each in director.connections() if port_from(each.client_port) == CLIENT_PORT and each.packets > 3]
    assert len(used) == 1


def test_corrupt_messages_are_imported_or_counted_and_the_table_stays_consistent(
    director: Director, importer: SyncImport
) -> None:
    """Every entry of a corrupt message is inserted or counted, and the counters of servers agree with the table."""
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
    chance, refused, decoded = random.Random(9), 0, 0
    for _ in range(COUNT):
        data = bytearray(corrupted(chance, seeds))
        data[2:4] = len(data).to_bytes(2, "big")  # with the right size, the entries are read
        found = ipvs_sync.decode(bytes(data))
        refused += len(found.refused)
        decoded += len(found.entries)
        importer.receive(found.entries, 0.0)
    assert refused > COUNT // 10 < decoded
    assert importer.inserted + sum(importer.refused.values()) == decoded
    assert importer.refused[NO_SERVER] and importer.refused[SUPERSEDED]
    held = Counter(each.server for each in director.connections())
    templates = Counter(each.server for each in director.templates())
    for address in (SERVER[4], SECOND[4]):
        number, value = director.number(key, address), director.server(key, address)
        assert (value.active + value.inactive, value.templates) == (held[number], templates[number])


def test_a_later_entry_replaces_a_waiting_one(director: Director, importer: SyncImport) -> None:
    """The client has moved to another server: the connection must not go back when the first server is added."""
    key = director.serve(4, Protocol.TCP, server(SERVER[4]))
    importer.receive([entry(to=SECOND[4])], 0.0)
    importer.receive([entry()], 1.0)
    director.apply(AddServer(key, server(SECOND[4])))
    importer.table_changed(2.0)
    assert (importer.waiting(0.0), director.connection().server) == (0, director.number(key, SERVER[4]))


def test_a_waiting_entry_is_inserted_with_the_rest_of_its_time_out_unless_expired(
    director: Director, importer: SyncImport
) -> None:
    key = director.serve()
    importer.receive([entry(to=SECOND[4], seconds=900), entry(to=SECOND[4], client_port=9, seconds=100)], 0.0)
    director.apply(AddServer(key, server(SECOND[4])))
    importer.table_changed(300.0)
    assert round(director.expires_in(director.connection()), -1) == 600
    assert (importer.waiting(0.0), importer.refused[NO_SERVER]) == (0, 2), "a retry is not counted again"


def test_the_cache_of_targets_is_limited(director: Director, importer: SyncImport) -> None:
    key = ServiceKey(Protocol.TCP, Endpoint(VIRTUAL[4], 0))
    director.apply(
        AddService(ServiceEntry(key=key, persistence_timeout_s=60)),
        AddServer(key, ServerEntry(endpoint=Endpoint(SERVER[4], 0), forwarding=Forwarding.NAT)),
    )
    for port in (range(65_536), range(10)):
        importer.receive([entry(virtual_port=n, server_port=n, client_port=1) for n in port], 0.0)
    assert len(importer._targets) <= MAX_TARGETS


def test_a_replaced_template_of_a_mark_is_removed_from_its_server_s_counter(director: Director, importer: SyncImport) -> None:
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
        importer.receive([entry(client=client, seconds=seconds, **template) for client in clients], 0.0)
        time.sleep(1.1 if seconds == 1 else 0.0)
    assert director.server(key).templates == len(director.templates())
