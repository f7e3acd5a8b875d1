"""The TCP states of connections, cell by cell, with their time-outs and what they count as."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Packet, Raw

from relevo.model import Forwarding, Protocol, ServiceKey
from relevo.model.table import AddServer, EditServer
from relevo.planes.ebpf.layout import Connection, ConnectionFlag, SettingFlag, TcpState
from tests.ebpf.packets import (
    ACTIVE,
    CLIENT,
    CLIENT_PORT,
    PASS,
    PORT,
    REDIRECT,
    SERVER,
    SERVER_PORT,
    VIRTUAL,
    Director,
    datagram,
    from_client,
    from_server,
    ip,
    server,
    syn,
)

CODES = {
    "NO": TcpState.NONE,
    "ES": TcpState.ESTABLISHED,
    "SS": TcpState.SYN_SENT,
    "SR": TcpState.SYN_RECV,
    "FW": TcpState.FIN_WAIT,
    "TW": TcpState.TIME_WAIT,
    "CL": TcpState.CLOSE,
    "CW": TcpState.CLOSE_WAIT,
    "LA": TcpState.LAST_ACK,
    "LI": TcpState.LISTEN,
    "SA": TcpState.SYNACK,
}
TIMEOUT_S = {
    TcpState.NONE: 2,
    TcpState.ESTABLISHED: 900,
    TcpState.SYN_SENT: 120,
    TcpState.SYN_RECV: 60,
    TcpState.FIN_WAIT: 120,
    TcpState.TIME_WAIT: 120,
    TcpState.CLOSE: 10,
    TcpState.CLOSE_WAIT: 60,
    TcpState.LAST_ACK: 30,
    TcpState.LISTEN: 120,
    TcpState.SYNACK: 120,
}
EVENTS = ("S", "F", "A", "R")
INPUT, OUTPUT, INPUT_ONLY = "input", "output", "input-only"
VIEWS = (INPUT, OUTPUT, INPUT_ONLY)

# state | next state on SYN FIN ACK RST, as seen from the client, from the server, and from the client when no answers pass
ORDINARY = """
NO | SR CL ES CL | SS TW ES CL | SR CL ES CL
ES | ES CW ES CL | ES FW ES CL | ES FW ES CL
SS | ES SS SS CL | SS SS SS SS | ES SS SS CL
SR | SR TW ES SR | SR TW ES CL | SR TW ES SR
FW | SR TW FW CL | SS FW FW CL | SR FW FW CL
TW | SR TW TW CL | SS TW TW TW | SR TW TW CL
CL | SR CL CL CL | SS CL CL CL | SR CL CL CL
CW | SR CW CW CL | SS TW CW CL | SR CW CW CL
LA | SR LA CL LA | SS LA LA CL | SR LA CL LA
LI | SR LI LI LI | LI LI ES CL | SR LI LI LI
SA | SR TW ES SR | SR TW ES CL | SR TW ES CL
"""
SECURE = """
NO | SR CL ES CL | SS TW ES CL | SA CL ES CL
ES | ES CW ES CL | ES FW ES CL | ES FW ES CL
SS | ES SS SS CL | SS SS SS SS | ES SS SS CL
SR | SR TW SR SR | SA TW ES CL | SR TW ES SR
FW | SR TW FW CL | SS FW FW CL | SA FW FW CL
TW | SR TW TW CL | SS TW TW TW | SA TW TW CL
CL | SR CL CL CL | SS CL CL CL | SA CL CL CL
CW | SR CW CW CL | SS TW CW CL | SA CW CW CL
LA | SR LA CL LA | SS LA LA CL | SA LA CL LA
LI | SR LI LI LI | LI LI ES CL | SA LI LI LI
SA | SA SA SA CL | SA TW ES CL | SA TW ES CL
"""


def cells() -> Iterator[tuple[bool, str, TcpState, str, TcpState]]:
    for secure, table in ((False, ORDINARY), (True, SECURE)):
        for line in table.strip().splitlines():
            code, *columns = line.split(" | ")
            for view, column in zip(VIEWS, columns, strict=True):
                for event, following in zip(EVENTS, column.split(), strict=True):
                    yield secure, view, CODES[code], event, CODES[following]


def cell_name(cell: tuple[bool, str, TcpState, str, TcpState]) -> str:
    secure, view, state, event, following = cell
    return f"{'secure-' if secure else ''}{view}-{state.name}-{event}-{following.name}"


def segment(view: str, flags: str, family: int = 4) -> Packet:
    if view is OUTPUT:
        return from_server(ip(SERVER[family], CLIENT[family]) / TCP(sport=SERVER_PORT, dport=CLIENT_PORT, flags=flags))
    return syn(family, flags=flags)


def serve(director: Director, view: str, family: int = 4) -> ServiceKey:
    method = Forwarding.DR if view is INPUT_ONLY else Forwarding.NAT
    return director.serve(family, Protocol.TCP, server(SERVER[family], forwarding=method))


def see(director: Director, view: str, flags: str, family: int = 4) -> Connection:
    """The connection after a segment."""
    assert director.run(segment(view, flags, family), director.inside if view is OUTPUT else 0)[0] == REDIRECT
    return director.connection()


def holds(director: Director, key: ServiceKey) -> tuple[int, int]:
    return director.server(key).active, director.server(key).inactive


def in_state(director: Director, view: str, state: TcpState) -> ServiceKey:
    key = serve(director, view)
    director.insert(key, state, flags=ConnectionFlag.NO_OUTPUT if view is INPUT_ONLY else 0)
    assert holds(director, key) == ((1, 0) if state in ACTIVE else (0, 1))
    return key


@pytest.mark.parametrize("cell", [*cells()], ids=cell_name)
def test_a_segment_moves_the_state(director: Director, cell: tuple[bool, str, TcpState, str, TcpState]) -> None:
    secure, view, state, event, following = cell
    director.settings.flags |= SettingFlag.SECURE_TCP if secure else 0
    key = in_state(director, view, state)
    entry = see(director, view, event)
    assert TcpState(entry.state) is following
    assert bool(entry.flags & ConnectionFlag.ACTIVE) == (following in ACTIVE)
    assert holds(director, key) == ((1, 0) if following in ACTIVE else (0, 1))
    assert director.expires_in(entry) == pytest.approx(TIMEOUT_S[following], abs=0.5)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("state", CODES.values(), ids=lambda state: state.name)
@pytest.mark.parametrize("flags", ["", "P", "U"], ids=["no-flags", "PSH", "URG"])
def test_a_segment_of_no_event_closes(director: Director, view: str, state: TcpState, flags: str) -> None:
    key = in_state(director, view, state)
    entry = see(director, view, flags)
    assert TcpState(entry.state) is TcpState.CLOSE
    assert holds(director, key) == (0, 1)


PRECEDENCE = ("R", "S", "F", "A")


@pytest.mark.parametrize("flags", ["".join(some) for some in product(*(("", flag) for flag in PRECEDENCE)) if "".join(some)])
@pytest.mark.parametrize("view", VIEWS)
def test_of_several_flags_the_first_of_rst_syn_fin_ack_is_the_event(director: Director, view: str, flags: str) -> None:
    in_state(director, view, TcpState.SYN_RECV)
    following = {(cell[3]): cell[4] for cell in cells() if cell[:3] == (False, view, TcpState.SYN_RECV)}
    assert TcpState(see(director, view, flags).state) is following[flags[0]]


WALKS = {
    "NAT": (
        Forwarding.NAT,
        [
            (INPUT, "S", "SR"),
            (OUTPUT, "SA", "SR"),
            (INPUT, "A", "ES"),
            (OUTPUT, "PA", "ES"),
            (INPUT, "FA", "CW"),
            (OUTPUT, "FA", "TW"),
            (INPUT, "A", "TW"),
        ],
    ),
    "NAT, the server ends": (Forwarding.NAT, [(INPUT, "S", "SR"), (INPUT, "A", "ES"), (OUTPUT, "FA", "FW"), (INPUT, "FA", "TW")]),
    "NAT, refused": (Forwarding.NAT, [(INPUT, "S", "SR"), (OUTPUT, "RA", "CL")]),
    "DR": (Forwarding.DR, [(INPUT, "S", "SR"), (INPUT, "A", "ES"), (INPUT, "FA", "FW"), (INPUT, "A", "FW")]),
    "TUN": (Forwarding.TUN, [(INPUT, "S", "SR"), (INPUT, "A", "ES"), (INPUT, "R", "CL")]),
}


@pytest.mark.parametrize(("method", "walk"), WALKS.values(), ids=WALKS.keys())
@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_a_sequence_of_segments(director: Director, family: int, method: Forwarding, walk: list[tuple[str, str, str]]) -> None:
    director.serve(family, Protocol.TCP, server(SERVER[family], forwarding=method))
    assert [TcpState(see(director, view, flags, family).state) for view, flags, _ in walk] == [CODES[code] for *_, code in walk]


def test_secure_tcp_establishes_only_after_the_servers_segment(director: Director) -> None:
    director.settings.flags |= SettingFlag.SECURE_TCP
    serve(director, INPUT)
    seen = [
        TcpState(see(director, view, flags).state).name
        for view, flags in ((INPUT, "S"), (INPUT, "A"), (OUTPUT, "SA"), (OUTPUT, "A"))
    ]
    assert seen == ["SYN_RECV", "SYN_RECV", "SYNACK", "ESTABLISHED"]


@pytest.mark.parametrize("state", [TcpState.ESTABLISHED, TcpState.SYN_RECV, TcpState.FIN_WAIT], ids=lambda state: state.name)
def test_a_time_out_that_was_set_holds(director: Director, state: TcpState) -> None:
    director.settings.timeout[state] = 33 * director.settings.hz
    in_state(director, INPUT, state)
    entry = see(director, INPUT, "S" if state is TcpState.SYN_RECV else "A")
    assert director.expires_in(entry) == pytest.approx(33, abs=0.5)


def test_every_packet_restarts_the_time_out(director: Director) -> None:
    key = serve(director, INPUT)
    director.insert(key, TcpState.ESTABLISHED, expires_s=1)
    assert director.expires_in(director.connection()) == pytest.approx(1, abs=0.5)
    assert director.expires_in(see(director, OUTPUT, "A")) == pytest.approx(900, abs=0.5)


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_datagrams_have_one_state_that_is_never_active(director: Director, family: int) -> None:
    key = director.serve(family, Protocol.UDP)
    for _ in range(2):
        assert director.run(datagram(family))[0] == REDIRECT
        assert director.connection().state == TcpState.UDP
        assert director.expires_in(director.connection()) == pytest.approx(300, abs=0.5)
        assert holds(director, key) == (0, 1)


def test_a_later_fragment_moves_no_state(director: Director) -> None:
    key = serve(director, INPUT)
    director.insert(key, TcpState.ESTABLISHED)
    header = {"src": CLIENT[4], "dst": VIRTUAL[4], "id": 77}
    first = from_client(IP(**header, flags="MF") / TCP(sport=CLIENT_PORT, dport=PORT, flags="A") / bytes(20))
    later = from_client(IP(**header, frag=5, proto=6) / Raw(b"\xff" * 20))
    assert [director.run(packet)[0] for packet in (first, later)] == [REDIRECT, REDIRECT]
    assert director.connection().state == TcpState.ESTABLISHED


# -- beginnings --------------------------------------------------------------------------------------------------------

OPENERS = {"S": "SR", "SA": "SR", "SF": "SR", "SFA": "SR"}


@pytest.mark.parametrize(("flags", "code"), OPENERS.items(), ids=OPENERS.keys())
def test_a_segment_with_syn_opens(director: Director, flags: str, code: str) -> None:
    serve(director, INPUT)
    assert TcpState(see(director, INPUT, flags).state) is CODES[code]


@pytest.mark.parametrize("flags", ["A", "F", "FA", "R", "RA", "SR", "PA", ""])
def test_a_segment_without_syn_or_with_rst_opens_nothing(director: Director, flags: str) -> None:
    serve(director, INPUT)
    assert director.run(syn(flags=flags))[0] == PASS
    assert not director.entries()


@pytest.mark.parametrize(("flags", "code"), [("A", "ES"), ("PA", "ES"), ("FA", "CL"), ("S", "SR"), ("", "CL")])
def test_sloppy_tcp_opens_with_any_segment(director: Director, flags: str, code: str) -> None:
    director.settings.flags |= SettingFlag.SLOPPY_TCP
    serve(director, INPUT)
    assert TcpState(see(director, INPUT, flags).state) is CODES[code]


def test_sloppy_tcp_does_not_open_with_a_reset(director: Director) -> None:
    director.settings.flags |= SettingFlag.SLOPPY_TCP
    serve(director, INPUT)
    assert director.run(syn(flags="RA"))[0] == PASS
    assert not director.entries()


@pytest.mark.parametrize("state", [TcpState.TIME_WAIT, TcpState.CLOSE], ids=lambda state: state.name)
@pytest.mark.parametrize("view", [INPUT, INPUT_ONLY])
def test_a_clients_port_is_used_again_at_once(director: Director, state: TcpState, view: str) -> None:
    key = in_state(director, view, state)
    newer = "10.2.0.12"

    method = Forwarding.DR if view is INPUT_ONLY else Forwarding.NAT
    director.apply(
        EditServer(key, server(SERVER[4], weight=0, forwarding=method)), AddServer(key, server(newer, forwarding=method))
    )
    entry = see(director, view, "S")
    assert entry.server == director.number(key, newer)
    assert TcpState(entry.state) is TcpState.SYN_RECV
    assert (director.server(key, SERVER[4]).active, director.server(key, SERVER[4]).inactive) == (0, 0)


@pytest.mark.parametrize(
    "state", sorted(set(CODES.values()) - {TcpState.TIME_WAIT, TcpState.CLOSE}), ids=lambda state: state.name
)
def test_a_syn_on_any_other_state_stays_with_its_server(director: Director, state: TcpState) -> None:

    key = in_state(director, INPUT, state)
    number = director.number(key)
    director.apply(AddServer(key, server("10.2.0.12", weight=100)))
    assert see(director, INPUT, "S").server == number


@pytest.mark.parametrize("state", [TcpState.TIME_WAIT, TcpState.CLOSE], ids=lambda state: state.name)
@pytest.mark.parametrize("flags", ["A", "FA", "R"])
def test_a_stray_segment_does_not_use_a_port_again(director: Director, state: TcpState, flags: str) -> None:
    in_state(director, INPUT, state)
    assert see(director, INPUT, flags).state != TcpState.SYN_RECV
