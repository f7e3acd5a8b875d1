"""What the programs tell of connections, read from the ring."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relevo.planes.ebpf.events import Ring
from relevo.planes.ebpf.layout import EventKind, SettingFlag, TcpState, port_from
from relevo.planes.ebpf.reasons import Reason
from tests.ebpf.packets import CLIENT_PORT, Director, syn

ALL = 1 << 30


@pytest.fixture
def ring(director: Director) -> Iterator[Ring]:
    opened = Ring(director.instance.maps["events"])
    opened.read(ALL)
    director.settings.flags |= SettingFlag.EVENTS
    yield opened
    opened.close()


def told(ring: Ring) -> list[tuple[EventKind, TcpState]]:
    return [(EventKind(event.kind), TcpState(event.connection.state)) for event in ring.read(ALL)]


def test_beginning_change_and_end_are_told_in_order(director: Director, ring: Ring) -> None:
    director.serve()
    for flags in ("S", "A", "FA"):
        director.run(syn(flags=flags))
    ((place, entry),) = director.entries()
    assert director.instance.take_out(place, entry.client_port)
    assert told(ring) == [
        (EventKind.NEW, TcpState.SYN_RECV),
        (EventKind.STATE, TcpState.ESTABLISHED),
        (EventKind.STATE, TcpState.CLOSE_WAIT),
        (EventKind.ENDED, TcpState.CLOSE_WAIT),
    ]


def test_an_event_says_where_the_entry_is_and_what_it_holds(director: Director, ring: Ring) -> None:
    director.serve()
    director.run(syn())
    ((place, entry),) = director.entries()
    (event,) = ring.read(ALL)
    assert (event.place, port_from(event.connection.client_port)) == (place, CLIENT_PORT)
    assert bytes(event.connection) == bytes(entry)


def test_a_packet_that_changes_nothing_is_not_told_of(director: Director, ring: Ring) -> None:
    director.serve()
    director.run(syn())
    director.run(syn(flags="A"))
    ring.read(ALL)
    for _ in range(5):
        director.run(syn(flags="A"))
    assert ring.read(ALL) == []


def test_nothing_is_told_when_nobody_reads(director: Director, ring: Ring) -> None:
    director.settings.flags &= ~SettingFlag.EVENTS
    director.serve()
    director.run(syn())
    assert ring.read(ALL) == []


def test_no_more_is_read_than_asked_for_and_the_rest_stays(director: Director, ring: Ring) -> None:
    director.serve()
    for number in range(5):
        director.run(syn(port=2000 + number))
    ports = [[port_from(event.connection.client_port) for event in ring.read(limit)] for limit in (2, 0, 2, 2)]
    assert ports == [[2000, 2001], [], [2002, 2003], [2004]]


def test_events_are_whole_wherever_in_the_ring_they_stand(director: Director, ring: Ring) -> None:
    """Round it several times, with records that stand across its end."""
    director.serve()
    packets = [bytes(syn(flags=flags)) for flags in ("S", "A", "FA")]
    rounds = 2 * director.instance.maps["events"].max_entries // 80 // 3
    for _ in range(rounds):
        for packet in packets:
            director.run(packet)
        assert all(port_from(event.connection.client_port) == CLIENT_PORT for event in ring.read(ALL))


def test_a_full_ring_loses_the_newest_and_goes_on_when_it_was_read(director: Director, ring: Ring) -> None:
    director.serve()
    director.run(syn(port=9))
    packets = [bytes(syn(flags=flags)) for flags in ("S", "A", "FA")]
    lost = 0
    before = director.instance.reasons()[Reason.COUNT_EVENT_LOST]
    while not lost:
        for packet in packets:
            director.run(packet)
        lost = director.instance.reasons()[Reason.COUNT_EVENT_LOST] - before
    kept = ring.read(ALL)
    assert port_from(kept[0].connection.client_port) == 9
    assert len(kept) >= director.instance.maps["events"].max_entries // 80 - 1
    director.run(syn(port=10))
    assert [port_from(event.connection.client_port) for event in ring.read(ALL)] == [10]
