"""Sync export: when a connection is synced (the kernel's rule), and every byte of the entry."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, ServerEntry, ServiceEntry
from relevo.planes.ebpf.layout import ConnectionFlag, SettingFlag, SyncExport, TcpState, port_from
from relevo.planes.ebpf.reasons import Reason
from relevo.planes.ebpf.sync_export import Ring
from relevo.wire import ipvs_sync
from relevo.wire.ipvs_sync import INACTIVE, NO_OUTPUT, TEMPLATE, Entry
from tests.ebpf.packets import CLIENT, CLIENT_PORT, PORT, SERVER, SERVER_PORT, VIRTUAL, Director, datagram, server, syn

ALL = 1 << 30
RECORD = 48
"""Bytes of an IPv4 record with its header, padded."""
NONE = SyncExport(0)
UNSYNCED = SyncExport.UNSYNCED | SyncExport.HALF_OPEN
ES, CLOSE_WAIT, TIME_WAIT = TcpState.ESTABLISHED, TcpState.CLOSE_WAIT, TcpState.TIME_WAIT


@pytest.fixture
def ring(director: Director) -> Iterator[Ring]:
    opened = Ring(director.instance.maps["sync_ring"])
    opened.skip()
    director.settings.flags |= SettingFlag.SYNC
    yield opened
    opened.close()


def entries(records: list[bytes]) -> list[Entry]:
    """Records as the wire codec decodes them."""
    found = [ipvs_sync.decode(message) for message in ipvs_sync.assemble(1, records)]
    assert not any(each.refused for each in found)
    return [entry for each in found for entry in each.entries]


def exported(ring: Ring) -> list[Entry]:
    return entries(ring.read(ALL))


def packed(address: str) -> bytes:
    return ip_address(address).packed


def test_a_connection_is_synced_at_its_third_packet_and_then_at_every_fiftieth(director: Director, ring: Ring) -> None:
    director.serve()
    director.run(syn())
    counts = [0]
    for _ in range(105):
        director.run(syn(flags="A"))
        counts.append(len(exported(ring)))
    assert [number for number, count in enumerate(counts, 1) if count] == [3, 53, 103]


def test_with_a_period_of_0_a_connection_is_synced_once(director: Director, ring: Ring) -> None:
    director.settings.sync_threshold, director.settings.sync_period = 2, 0
    director.serve()
    director.run(syn())
    for _ in range(60):
        director.run(syn(flags="A"))
    assert len(exported(ring)) == 1


def test_a_close_is_synced_at_once_and_a_reopening_by_count(director: Director, ring: Ring) -> None:
    director.serve()
    for flags in ("S", "A", "FA"):
        director.run(syn(flags=flags))
    assert [(entry.state, entry.flags, entry.seconds) for entry in exported(ring)] == [(CLOSE_WAIT, INACTIVE, 60)]


@pytest.mark.parametrize("family", [4, 6])
def test_an_entry_is_the_same_as_the_kernels(director: Director, ring: Ring, family: int) -> None:
    director.serve(family)
    for flags in ("S", "A", "PA"):
        director.run(syn(family=family, flags=flags))
    assert exported(ring) == [
        Entry(
            protocol=6,
            client=packed(CLIENT[family]),
            client_port=CLIENT_PORT,
            virtual=packed(VIRTUAL[family]),
            virtual_port=PORT,
            server=packed(SERVER[family]),
            server_port=SERVER_PORT,
            state=ES,
            seconds=900,
        )
    ]


@pytest.mark.parametrize(("forwarding", "flags"), [(Forwarding.DR, 3 | NO_OUTPUT), (Forwarding.TUN, 2 | NO_OUTPUT)])
def test_an_entry_has_the_forwarding_method(director: Director, ring: Ring, forwarding: Forwarding, flags: int) -> None:
    director.serve(4, Protocol.TCP, server(SERVER[4], forwarding=forwarding))
    for segment in ("S", "A", "PA"):
        director.run(syn(flags=segment))
    assert [entry.flags for entry in exported(ring)] == [flags]


def test_udp_is_synced_by_count_and_never_active(director: Director, ring: Ring) -> None:
    director.serve(4, Protocol.UDP)
    for _ in range(4):
        director.run(datagram())
    assert [(entry.protocol, entry.state, entry.flags, entry.seconds) for entry in exported(ring)] == [(17, 0, INACTIVE, 300)]


def test_fullnat_is_not_synced_because_no_other_node_has_its_ports(director: Director, ring: Ring) -> None:
    director.serve(4, Protocol.TCP, server(SERVER[4], forwarding=Forwarding.FULLNAT))
    for flags in ("S", "A", "PA", "FA"):
        director.run(syn(flags=flags))
    assert exported(ring) == []


def test_a_template_is_synced_with_its_first_connection_only(director: Director, ring: Ring) -> None:
    director.serve(persistence_timeout_s=30, persistence_granularity=24)
    for port in range(2000, 2005):
        for flags in ("S", "A", "PA"):
            director.run(syn(port=port, flags=flags))
    found = exported(ring)
    (template,) = [entry for entry in found if entry.is_template]
    assert [entry.client_port for entry in found if not entry.is_template] == list(range(2000, 2005))
    network = packed(CLIENT[4])[:3] + b"\0"
    assert (template.client, template.client_port, template.virtual_port, template.server_port) == (network, 0, PORT, SERVER_PORT)
    assert (template.state, template.flags, template.seconds) == (1, TEMPLATE | INACTIVE, 30)


def test_the_template_of_a_firewall_mark_has_the_mark(director: Director, ring: Ring) -> None:
    key = ServiceKey.of_mark(7)
    director.apply(
        AddService(ServiceEntry(key=key, persistence_timeout_s=60)),
        AddServer(key, ServerEntry(endpoint=Endpoint(SERVER[4], 0), forwarding=Forwarding.NAT)),
    )
    for flags in ("S", "A", "PA"):
        director.run(syn(flags=flags), mark=7)
    template, connection = exported(ring)
    assert (connection.mark, connection.virtual, connection.server_port) == (7, packed(VIRTUAL[4]), PORT)
    assert (template.protocol, template.mark, template.virtual, template.virtual_port) == (0, 7, bytes((0, 0, 0, 7)), 0)
    assert (template.client, template.server_port) == (packed(CLIENT[4]), 0)


def test_a_connection_in_use_is_synced_again_at_the_first_packet_after_half_of_its_time_out(
    director: Director, ring: Ring
) -> None:
    director.serve()
    for flags in ("S", "A", "PA"):
        director.run(syn(flags=flags))
    assert len(exported(ring)) == 1
    for passed, count in ((440, 0), (20, 1), (0, 0), (440, 0), (20, 1)):
        director.let_pass(passed)
        director.run(syn(flags="A"))
        assert len(exported(ring)) == count


def test_a_time_out_beyond_the_range_of_last_sync_is_cut_to_it(director: Director, ring: Ring) -> None:
    director.settings.timeout[ES] = 86_400 * director.settings.hz
    director.serve()
    for flags in ("S", "A", "PA"):
        director.run(syn(flags=flags))
    assert len(exported(ring)) == 1
    for passed, count in ((1000, 0), (1200, 1)):
        director.let_pass(passed)
        director.run(syn(flags="A"))
        assert len(exported(ring)) == count


def refresh(director: Director, period: int, *, retries: int = 0, threshold: tuple[int, int] = (3, 0)) -> None:
    director.settings.sync_refresh, director.settings.sync_retries = period * director.settings.hz, retries
    director.settings.sync_threshold, director.settings.sync_period = threshold


def counts(director: Director, ring: Ring, pauses: tuple[float, ...], **of: Any) -> list[int]:
    """The number of entries that each packet exports, after a pause of so many seconds."""
    found = []
    for seconds in pauses:
        director.let_pass(seconds)
        director.run(syn(flags="A", **of))
        found.append(len(exported(ring)))
    return found


def test_with_a_refresh_period_alone_a_connection_is_synced_when_established_and_after_each_period(
    director: Director, ring: Ring
) -> None:
    refresh(director, 100)
    director.serve()
    director.run(syn())
    assert counts(director, ring, (0, 0, 20, 60, 25, 0, 80, 25)) == [1, 0, 0, 0, 1, 0, 0, 1]


def test_a_refresh_period_longer_than_half_of_the_time_out_is_cut_to_that(director: Director, ring: Ring) -> None:
    refresh(director, 400)
    director.settings.timeout[ES] = 100 * director.settings.hz
    director.serve()
    director.run(syn())
    assert counts(director, ring, (0, 40, 15)) == [1, 0, 1]


def test_with_a_refresh_period_and_a_count_both_must_be_met(director: Director, ring: Ring) -> None:
    refresh(director, 20, threshold=(0, 4))
    director.serve()
    director.run(syn())
    assert counts(director, ring, (0, 0, 0, 0, 0, 0, 0, 25, 0, 0, 0)) == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]


def test_sync_retries_repeat_a_sync_within_the_period(director: Director, ring: Ring) -> None:
    refresh(director, 160, retries=2)
    director.serve()
    director.run(syn())
    assert counts(director, ring, (0, 15, 10, 15, 10, 25, 25, 120, 25)) == [1, 0, 1, 0, 1, 0, 0, 1, 1]


def test_every_change_of_state_is_synced(director: Director, ring: Ring) -> None:
    refresh(director, 100)
    director.serve()
    for flags in ("S", "A", "FA", "S", "A"):
        director.run(syn(flags=flags))
    assert [entry.state for entry in exported(ring)] == [ES, CLOSE_WAIT, ES]


def test_a_refresh_period_applies_to_templates_too(director: Director, ring: Ring) -> None:
    refresh(director, 20, threshold=(3, 50))
    director.serve(persistence_timeout_s=60)
    director.run(syn())
    director.run(syn(flags="A"))
    assert [entry.is_template for entry in exported(ring)] == [True]
    assert counts(director, ring, (0, 15, 10, 0)) == [1, 0, 1, 0]


def test_sync_persist_mode_syncs_only_the_templates_of_persistent_connections(director: Director, ring: Ring) -> None:
    director.settings.flags |= SettingFlag.SYNC_TEMPLATES_ONLY
    director.serve(persistence_timeout_s=60)
    for flags in ("S", "A", "PA", "FA", "R"):
        director.run(syn(flags=flags))
    assert [entry.is_template for entry in exported(ring)] == [True]
    director.run(syn(port=9))
    director.run(syn(port=9, flags="A"))
    assert [entry.is_template for entry in export_all(director, ring)] == [True]
    assert {entry.client_port for entry in export_all(director, ring, which=SyncExport.HALF_OPEN)} == {0, CLIENT_PORT, 9}
    assert {entry.client_port for entry in export_all(director, ring, which=UNSYNCED)} == {CLIENT_PORT, 9}
    director.delete_all()
    director.run(syn())
    assert counts(director, ring, (0, 2, 2, *[0] * 48, 2)) == [1, 1, *[0] * 49, 1], (
        "the template is synced as often as the connection would be"
    )


def test_sync_persist_mode_syncs_connections_without_persistence(director: Director, ring: Ring) -> None:
    director.settings.flags |= SettingFlag.SYNC_TEMPLATES_ONLY
    director.serve()
    for flags in ("S", "A", "PA"):
        director.run(syn(flags=flags))
    assert [entry.is_template for entry in exported(ring)] == [False]


def test_the_template_of_a_quiet_connection_is_synced_before_half_of_its_time_out(director: Director, ring: Ring) -> None:
    director.serve(persistence_timeout_s=60)
    director.run(syn())
    director.run(syn(flags="A"))
    assert [entry.is_template for entry in exported(ring)] == [True]
    director.run(syn(flags="A"))
    assert [entry.is_template for entry in exported(ring)] == [False]
    assert counts(director, ring, (22, 12, 0, 22, 12)) == [0, 1, 0, 0, 1]


def test_nothing_is_exported_while_sync_is_off(director: Director, ring: Ring) -> None:
    director.settings.flags &= ~SettingFlag.SYNC
    director.serve()
    for flags in ("S", "A", "PA", "FA"):
        director.run(syn(flags=flags))
    assert exported(ring) == []


# -- the whole table ---------------------------------------------------------------------------------------------------


def export_all(director: Director, ring: Ring, limit: int = 10_000, which: SyncExport = NONE) -> list[Entry]:
    """Export the whole table, at most about ``limit`` entries per call."""
    found: list[Entry] = []
    place: int | None = 0
    while place is not None:
        place = director.instance.export_connections(place, limit, which)
        found += exported(ring)
    return found


@pytest.mark.parametrize("limit", [1, 40, 10_000])
def test_the_whole_table_is_exported_once_with_any_limit(director: Director, ring: Ring, limit: int) -> None:
    key = director.serve()
    ports = range(3000, 3500)
    for port in ports:
        director.insert(key, client_port=port)
    found = export_all(director, ring, limit)
    assert sorted(entry.client_port for entry in found) == list(ports)


@pytest.mark.parametrize(("which", "states"), [(NONE, [ES]), (SyncExport.HALF_OPEN, [ES, TcpState.SYN_RECV])])
def test_half_open_connections_are_exported_only_for_a_takeover(
    director: Director, ring: Ring, which: SyncExport, states: list[int]
) -> None:
    key = director.serve()
    director.insert(key, client_port=1)
    director.run(syn(port=2))
    director.insert(key, client_port=3, expires_s=-1)
    assert sorted(entry.state for entry in export_all(director, ring, which=which)) == sorted(states)


def test_a_full_ring_loses_no_entry_of_a_table_export(director: Director, ring: Ring) -> None:
    key = director.serve()
    ports = range(3000, 3000 + 2 * director.instance.maps["sync_ring"].max_entries // RECORD)
    for port in ports:
        director.insert(key, client_port=port)
    held = {port_from(entry.client_port) for entry in director.connections()}
    assert len(held) > director.instance.maps["sync_ring"].max_entries // RECORD
    assert {entry.client_port for entry in export_all(director, ring, limit=ALL)} == held


def test_an_unsynced_export_skips_entries_that_were_synced(director: Director, ring: Ring) -> None:
    director.serve()
    for port, segments in ((1, "S"), (2, ("S", "A")), (3, ("S", "A", "PA"))):
        for flags in segments:
            director.run(syn(port=port, flags=flags))
    assert [entry.client_port for entry in exported(ring)] == [3]
    assert sorted(entry.client_port for entry in export_all(director, ring, which=UNSYNCED)) == [1, 2]
    assert export_all(director, ring, which=UNSYNCED) == []


@pytest.mark.parametrize(("used_since", "again"), [(0, 0), (60, 0), (200, 1)])
def test_an_unsynced_export_has_connections_used_long_after_their_sync(
    director: Director, ring: Ring, used_since: float, again: int
) -> None:
    """The peers would expire it that much earlier."""
    director.serve()
    for flags in ("S", "A", "PA"):
        director.run(syn(flags=flags))
    director.let_pass(used_since)
    director.run(syn(flags="A"))
    assert len(exported(ring)) == 1
    assert len(export_all(director, ring, which=UNSYNCED)) == again


def test_an_unsynced_export_skips_idle_connections_however_old_their_sync(director: Director, ring: Ring) -> None:
    director.serve()
    for flags in ("S", "A", "PA"):
        director.run(syn(flags=flags))
    exported(ring)
    director.let_pass(600, idle=True)
    assert export_all(director, ring, which=UNSYNCED) == []


def test_a_connection_from_another_director_is_unsynced_only_after_a_packet_and_then_synced_at_once(
    director: Director, ring: Ring
) -> None:
    key = director.serve()
    for port in (1, 2):
        director.insert(key, client_port=port, flags=ConnectionFlag.FOREIGN, packets=3)
    assert export_all(director, ring, which=UNSYNCED) == []
    director.run(syn(port=2, flags="A"))
    assert [entry.client_port for entry in exported(ring)] == [2]
    director.insert(key, client_port=2, flags=ConnectionFlag.FOREIGN)
    assert export_all(director, ring, which=UNSYNCED) == [], "the peer has it again"
    assert len(export_all(director, ring)) == 2


def test_a_connection_that_found_the_ring_full_is_synced_at_its_next_packet(director: Director, ring: Ring) -> None:
    director.serve()
    director.run(syn())
    director.run(syn(flags="A"))
    port = fill(director)
    director.run(syn(flags="PA"))
    exported(ring)
    assert port
    director.run(syn(flags="A"))
    assert [entry.client_port for entry in exported(ring)] == [CLIENT_PORT]


# -- the ring ----------------------------------------------------------------------------------------------------------


def close(director: Director, port: int) -> None:
    """Open and close a connection: one export, at its FIN."""
    for flags in ("S", "FA"):
        director.run(syn(port=port, flags=flags))


def fill(director: Director) -> int:
    """Open and close connections until the ring is full; return the next port."""
    port = 2000
    before = director.instance.reasons()[Reason.COUNT_SYNC_LOST]
    while director.instance.reasons()[Reason.COUNT_SYNC_LOST] == before:
        close(director, port)
        ((place, entry),) = [each for each in director.entries() if port_from(each[1].client_port) == port]
        assert director.instance.delete(place, entry.client_port)
        port += 1
    return port


def test_read_returns_at_most_limit_records_and_leaves_the_rest(director: Director, ring: Ring) -> None:
    director.serve()
    for number in range(5):
        close(director, 2000 + number)
    ports = [[entry.client_port for entry in entries(ring.read(limit))] for limit in (2, 0, 2, 2)]
    assert ports == [[2000, 2001], [], [2002, 2003], [2004]]


def test_records_that_wrap_at_the_end_of_the_ring_are_whole(director: Director, ring: Ring) -> None:
    """The test wraps several times, with records across the end of the ring."""
    director.serve()
    for port in range(2000, 2000 + 2 * director.instance.maps["sync_ring"].max_entries // RECORD):
        close(director, port)
        assert [entry.client_port for entry in exported(ring)] == [port]
        director.delete_all()


def test_a_full_ring_loses_the_newest_and_continues_after_a_read(director: Director, ring: Ring) -> None:
    director.serve()
    port = fill(director)
    kept = exported(ring)
    assert kept[0].client_port == 2000
    assert len(kept) >= director.instance.maps["sync_ring"].max_entries // RECORD - 1
    close(director, port)
    assert [entry.client_port for entry in exported(ring)] == [port]
