"""The conformance suite of data planes: picks, persistence, thresholds, draining, counters, refusals.

An ``Adapter`` connects a plane to it. The expected sequences were recorded from the kernel's IPVS.
"""

from __future__ import annotations

import enum
import random
import time
from collections.abc import Callable
from itertools import islice
from typing import Protocol

import pytest

from relevo.model import Endpoint, ServiceKey
from relevo.model import Protocol as Transport
from relevo.model.table import (
    AddServer,
    AddService,
    Connection,
    DeleteServer,
    DeleteService,
    Desired,
    EditServer,
    EditService,
    Operation,
    ServerEntry,
    ServerState,
    ServiceEntry,
    ServiceState,
)
from relevo.node.table import reconcile
from relevo.planes.port import Refused

TCP, UDP = Transport.TCP, Transport.UDP
REFUSED = "refused"
"""The port is closed: ECONNREFUSED."""
RESET = "reset"
"""Reset before the first byte."""


class Link(Protocol):
    """A client's connection. ``server`` is the name of the server that answered, or ``REFUSED`` or ``RESET``."""

    server: str

    def alive(self) -> bool:
        """Whether bytes still go to the server and back."""

    def was_reset(self) -> bool:
        """Whether the other side has reset it."""

    def finish(self) -> None:
        """Half-close: the server may go on sending."""

    def close(self) -> None:
        """Close it; returns when the plane has counted it out."""


class Lack(enum.Enum):
    """A feature that a plane may lack."""

    REFUSAL_COUNTS = "a count of refusals"
    OVERLOAD_FLAG = "a report of a server's overload, and thresholds that take effect at once"
    BRIEF_TEMPLATES = "a way to end a connection without changing the lifetime of its template"
    FORGETTING = "removal of templates when persistence is turned off"


class Adapter(Protocol):
    """How the suite drives a plane. Servers are called A, B, C … and exist already."""

    carries_bytes: bool
    counts_headers: bool
    """Whether packet headers are included in byte counts, as in IPVS."""
    turned_away: str
    """What a client gets when no server of the service can take it: ``REFUSED`` or ``RESET``."""
    any_port_refusal: str
    lacks: dict[Lack, str]
    """Features of the suite that this plane lacks, and why."""

    def key(self, protocol: Transport = TCP) -> ServiceKey:
        """Return an unused address and port for a service."""

    def endpoint(self, name: str, protocol: Transport = TCP) -> Endpoint:
        """Return the endpoint of server ``name``."""

    def client(self, network: int, host: int) -> str:
        """A client's address; equal ``network`` means the same /24."""

    def apply(self, *operations: Operation) -> list[Refused]:
        """Apply operations to the plane."""

    def observe(self) -> list[ServiceState]:
        """Return the plane's table."""

    def connections(self) -> list[Connection]:
        """Return the plane's connections."""

    def connect(self, key: ServiceKey, client: str) -> Link:
        """Connect, and wait until a server has answered or the connection has failed."""

    def send_many(self, link: Link, size: int) -> int:
        """Send ``size`` bytes and read the echo; return the bytes that the server sent on this connection."""

    def elapse(self, seconds: float) -> None:
        """Wait, or advance the plane's clock."""

    def settle(self) -> None:
        """Wait until the counters are up to date."""


def source_hash(client: str, servers: list[tuple[str, int]]) -> str:
    """Return the server of ``client`` by the kernel's sh, computed from its description. ``servers`` are in the order added."""
    newest_first = servers[::-1]
    buckets: list[str] = []
    while len(buckets) < 256:
        for name, weight in newest_first:
            buckets.extend(name for _ in range(weight or 1))
    parts = [int(part) for part in client.split(".")]
    number = parts[0] << 24 | parts[1] << 16 | parts[2] << 8 | parts[3]
    return buckets[number * 0x61C88647 % 2**32 >> 24]


PICKS = [
    ("rr", (1, 1, 1), "CBACBACBA"),
    ("rr", (1, 2, 3), "CBACBA"),
    ("wrr", (1, 2, 3), "CBACCBCBACCB"),
    ("wrr", (4, 3, 2), "CBAABACBACBAABACBA"),
    ("lc", (1, 1, 1), "CBACBA"),
    ("lc", (1, 2, 3), "CBACBA"),
    ("wlc", (1, 2, 3), "CBACBCCBACBC"),
    ("sed", (1, 2, 3), "CBCCBACBCCBA"),
    ("nq", (1, 2, 3), "CBACCBCBCCBACBCCBACB"),
    ("fo", (1, 2, 3), "CCCCCC"),
    ("fo", (2, 2, 1), "BBBB"),
    ("ovf", (1, 2, 3), "CCCCBBBAA-"),
]


class PlaneSuite:
    """The suite. A plane's test class inherits it and has a fixture ``plane`` that returns an ``Adapter``."""

    def make(
        self,
        plane: Adapter,
        servers: str | tuple[tuple[str, int], ...] = "ABC",
        *,
        scheduler: str = "rr",
        flags: tuple[str, ...] = (),
        protocol: Transport = TCP,
        persistence: int = 0,
        granularity: int = 32,
        upper: int = 0,
        lower: int = 0,
    ) -> ServiceKey:
        key = plane.key(protocol)
        entry = ServiceEntry(
            key=key,
            scheduler=scheduler,
            scheduler_flags=flags,
            persistence_timeout_s=persistence,
            persistence_granularity=granularity,
        )
        weighted = [(name, 1) for name in servers] if isinstance(servers, str) else servers
        added = [
            AddServer(
                key,
                ServerEntry(endpoint=plane.endpoint(name, protocol), weight=weight, upper_threshold=upper, lower_threshold=lower),
            )
            for name, weight in weighted
        ]
        assert plane.apply(AddService(entry), *added) == []
        return key

    def service(self, plane: Adapter, key: ServiceKey) -> ServiceState:
        return next(state for state in plane.observe() if state.service.key == key)

    def server(self, plane: Adapter, key: ServiceKey, name: str) -> ServerState:
        endpoint = plane.endpoint(name, key.protocol)
        return next(server for server in self.service(plane, key).servers if server.server.endpoint == endpoint)

    def edit(self, plane: Adapter, key: ServiceKey, name: str, **changes: int) -> None:
        entry = ServerEntry(endpoint=plane.endpoint(name, key.protocol), **changes)  # type: ignore[arg-type]
        assert plane.apply(EditServer(key, entry)) == []

    def open(self, plane: Adapter, key: ServiceKey, count: int, client: str | None = None) -> list[Link]:
        return [plane.connect(key, client or plane.client(i // 200, 1 + i % 200)) for i in range(count)]

    def names(self, links: list[Link]) -> str:
        return "".join(link.server for link in links)

    def need(self, plane: Adapter, feature: Lack) -> None:
        """Skip with the reason where the plane lacks a feature."""
        if feature in plane.lacks:
            pytest.skip(f"it lacks {feature.value}: {plane.lacks[feature]}")

    def until(self, check: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + 5
        while not check():
            assert time.monotonic() < ends, f"not in time: {what}"
            time.sleep(0.005)

    # -- picks -------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("scheduler", "weights", "expected"), PICKS)
    def test_servers_added_as_A_B_C_are_picked_as_the_kernel_picks_them(
        self, plane: Adapter, scheduler: str, weights: tuple[int, ...], expected: str
    ) -> None:
        key = self.make(plane, tuple(zip("ABC", weights, strict=True)), scheduler=scheduler)
        links = self.open(plane, key, len(expected))
        assert "".join("-" if link.server == plane.turned_away else link.server for link in links) == expected

    def test_wlc_counts_datagram_sessions_as_inactive_like_the_kernel(self, plane: Adapter) -> None:
        key = self.make(plane, (("A", 1), ("B", 2), ("C", 3)), scheduler="wlc", protocol=UDP)
        assert self.names(self.open(plane, key, 12)) == "CBACBCCBACBC"
        assert self.server(plane, key, "C").active == 0
        assert self.server(plane, key, "C").inactive == 6

    def test_rr_gives_datagram_clients_their_turns(self, plane: Adapter) -> None:
        key = self.make(plane, protocol=UDP)
        assert self.names(self.open(plane, key, 6)) == "CBACBA"

    def test_lc_fills_the_gap_that_a_closed_connection_leaves(self, plane: Adapter) -> None:
        key = self.make(plane, scheduler="lc")
        links = self.open(plane, key, 6)
        links[1].close()
        links[4].close()
        assert self.names(self.open(plane, key, 3)) == "BBC"

    def test_sh_sends_every_client_where_the_kernel_does(self, plane: Adapter) -> None:
        servers = [("A", 1), ("B", 2), ("C", 3)]
        key = self.make(plane, tuple(servers), scheduler="sh")
        clients = [plane.client(i * 7 % 250, 1 + i * 37 % 250) for i in range(24)]
        expected = [source_hash(client, servers) for client in clients]
        assert set(expected) == {"A", "B", "C"}
        assert [plane.connect(key, client).server for client in clients] == expected

    def test_sh_refuses_the_clients_of_a_quiesced_server_and_with_fallback_sends_them_elsewhere(self, plane: Adapter) -> None:
        servers = [("A", 0), ("B", 1)]
        clients = [plane.client(1, 1 + i) for i in range(40)]
        unlucky = next(c for c in clients if source_hash(c, servers) == "A")
        plain = self.make(plane, tuple(servers), scheduler="sh")
        assert plane.connect(plain, unlucky).server == plane.turned_away
        falling_back = self.make(plane, tuple(servers), scheduler="sh", flags=("sh-fallback",))
        assert plane.connect(falling_back, unlucky).server == "B"

    def test_sh_port_spreads_one_client_over_servers_and_without_it_the_client_stays(self, plane: Adapter) -> None:
        client = plane.client(3, 3)
        with_port = self.make(plane, scheduler="sh", flags=("sh-port",))
        assert len(set(self.names(self.open(plane, with_port, 24, client)))) > 1
        without = self.make(plane, scheduler="sh")
        assert len(set(self.names(self.open(plane, without, 6, client)))) == 1

    def test_an_unknown_scheduler_behaves_as_wlc(self, plane: Adapter) -> None:
        key = self.make(plane, (("A", 1), ("B", 2), ("C", 3)), scheduler="nonesuch")
        assert self.names(self.open(plane, key, 6)) == "CBACBC"

    def test_rr_goes_on_from_the_predecessor_of_a_removed_server(self, plane: Adapter) -> None:
        key = self.make(plane, "ABCD")
        assert self.names(self.open(plane, key, 2)) == "DC"
        assert plane.apply(DeleteServer(key, plane.endpoint("C"))) == []
        assert self.names(self.open(plane, key, 4)) == "BADB"

    def test_a_server_that_is_removed_and_added_again_stands_first(self, plane: Adapter) -> None:
        key = self.make(plane, scheduler="lc")
        entry = ServerEntry(endpoint=plane.endpoint("A"))
        assert plane.apply(DeleteServer(key, entry.endpoint), AddServer(key, entry)) == []
        assert self.names(self.open(plane, key, 3)) == "ACB"

    # -- refusal -----------------------------------------------------------------------------------------------

    def test_a_service_without_servers_refuses(self, plane: Adapter) -> None:
        key = self.make(plane, "")
        assert plane.connect(key, plane.client(0, 1)).server == REFUSED

    def test_a_service_that_lost_its_last_server_refuses_and_accepts_when_one_comes(self, plane: Adapter) -> None:
        key = self.make(plane, "A")
        assert plane.connect(key, plane.client(0, 1)).server == "A"
        assert plane.apply(DeleteServer(key, plane.endpoint("A"))) == []
        assert plane.connect(key, plane.client(0, 1)).server == REFUSED
        assert plane.apply(AddServer(key, ServerEntry(endpoint=plane.endpoint("B")))) == []
        assert plane.connect(key, plane.client(0, 1)).server == "B"

    def test_a_deleted_service_refuses_and_its_connections_are_reset(self, plane: Adapter) -> None:
        key = self.make(plane)
        links = self.open(plane, key, 3)
        assert plane.apply(DeleteService(key)) == []
        assert [link.was_reset() for link in links] == [True] * 3
        assert plane.connect(key, plane.client(0, 1)).server == REFUSED
        self.until(lambda: plane.connections() == [], "no connection is left")

    def test_a_service_of_servers_of_weight_0_refuses_clients_and_counts_them(self, plane: Adapter) -> None:
        key = self.make(plane, (("A", 0), ("B", 0)))
        assert [link.server for link in self.open(plane, key, 3)] == [plane.turned_away] * 3
        self.need(plane, Lack.REFUSAL_COUNTS)
        assert self.service(plane, key).refused == {"no_destination": 3}

    # -- draining ----------------------------------------------------------------------------------------------

    def test_weight_0_keeps_old_connections_and_takes_no_new_ones(self, plane: Adapter) -> None:
        key = self.make(plane, "AB")
        old = self.open(plane, key, 2)
        assert self.names(old) == "BA"
        self.edit(plane, key, "B", weight=0)
        assert self.names(self.open(plane, key, 3)) == "AAA"
        assert old[0].alive()
        assert self.server(plane, key, "B").active == 1
        self.edit(plane, key, "B", weight=1)
        assert "B" in self.names(self.open(plane, key, 2))

    def test_a_client_with_a_template_stays_on_a_server_of_weight_0(self, plane: Adapter) -> None:
        key = self.make(plane, "AB", persistence=60)
        old, new = plane.client(0, 1), plane.client(0, 2)
        assert plane.connect(key, old).server == "B"
        self.edit(plane, key, "B", weight=0)
        assert self.names(self.open(plane, key, 3, old)) == "BBB"
        assert self.names(self.open(plane, key, 3, new)) == "AAA"

    def test_connections_of_a_removed_server_are_reset_and_others_live(self, plane: Adapter) -> None:
        key = self.make(plane, "AB")
        links = self.open(plane, key, 4)
        assert self.names(links) == "BABA"
        assert plane.apply(DeleteServer(key, plane.endpoint("B"))) == []
        assert [link.was_reset() for link in links[::2]] == [True, True]
        assert [link.alive() for link in links[1::2]] == [True, True]
        assert self.names(self.open(plane, key, 2)) == "AA"

    def test_a_client_of_a_removed_server_is_scheduled_again(self, plane: Adapter) -> None:
        key = self.make(plane, "AB", persistence=60)
        client = plane.client(0, 1)
        assert plane.connect(key, client).server == "B"
        assert plane.apply(DeleteServer(key, plane.endpoint("B"))) == []
        assert self.names(self.open(plane, key, 2, client)) == "AA"

    def test_datagram_sessions_of_a_removed_server_move_at_once(self, plane: Adapter) -> None:
        key = self.make(plane, "AB", protocol=UDP)
        links = self.open(plane, key, 2)
        assert self.names(links) == "BA"
        assert plane.apply(DeleteServer(key, plane.endpoint("B", UDP))) == []
        assert links[1].alive()
        self.until(lambda: {c.server for c in plane.connections()} == {plane.endpoint("A", UDP)}, "A has all")

    # -- persistence -------------------------------------------------------------------------------------------

    def test_a_client_stays_with_its_server_and_another_gets_the_next(self, plane: Adapter) -> None:
        key = self.make(plane, persistence=60)
        first, second = plane.client(0, 1), plane.client(0, 2)
        assert self.names(self.open(plane, key, 3, first)) == "CCC"
        assert self.names(self.open(plane, key, 3, second)) == "BBB"
        assert plane.connect(key, first).server == "C"

    def test_clients_of_one_network_share_a_server_where_the_granularity_says_so(self, plane: Adapter) -> None:
        key = self.make(plane, persistence=60, granularity=24)
        picks = [plane.connect(key, plane.client(n, h)).server for n, h in ((0, 1), (0, 200), (1, 1), (1, 77), (2, 9), (0, 3))]
        assert picks == ["C", "C", "B", "B", "A", "C"]
        assert [self.server(plane, key, name).persistent for name in "ABC"] == [1, 1, 1]

    def test_a_template_expires_after_its_time_out(self, plane: Adapter) -> None:
        self.need(plane, Lack.BRIEF_TEMPLATES)
        key = self.make(plane, persistence=1)
        client = plane.client(0, 1)
        link = plane.connect(key, client)
        assert link.server == "C"
        link.close()
        plane.elapse(1.05)
        assert self.server(plane, key, "C").persistent == 0
        assert plane.connect(key, client).server == "B"

    def test_a_template_does_not_expire_while_a_connection_is_open(self, plane: Adapter) -> None:
        key = self.make(plane, persistence=1)
        client = plane.client(0, 1)
        link = plane.connect(key, client)
        assert link.server == "C"
        plane.elapse(1.05)
        assert plane.connect(key, client).server == "C"

    def test_a_new_connection_restarts_the_time_out_of_the_template(self, plane: Adapter) -> None:
        self.need(plane, Lack.BRIEF_TEMPLATES)
        key = self.make(plane, persistence=1)
        client = plane.client(0, 1)
        for _ in range(3):
            link = plane.connect(key, client)
            assert link.server == "C"
            link.close()
            plane.elapse(0.6)
        assert plane.connect(key, client).server == "C"

    def test_a_persistent_client_is_listed_as_a_template_of_its_network(self, plane: Adapter) -> None:
        key = self.make(plane, "A", persistence=60, granularity=24)
        client = plane.client(5, 9)
        link = plane.connect(key, client)
        (template,) = [c for c in plane.connections() if c.template]
        assert template.client == Endpoint(client.rsplit(".", 1)[0] + ".0", 0)
        assert (template.virtual, template.server, template.state) == (key.endpoint, plane.endpoint("A"), "ASSURED")
        assert template.expires_s is not None
        assert 50 < template.expires_s <= 60
        self.need(plane, Lack.BRIEF_TEMPLATES)
        link.close()
        assert [c.state for c in plane.connections()] == ["ASSURED"]

    def test_persistence_holds_datagram_clients_too(self, plane: Adapter) -> None:
        key = self.make(plane, protocol=UDP, persistence=60)
        client = plane.client(0, 1)
        assert self.names(self.open(plane, key, 3, client)) == "CCC"

    def test_turning_persistence_off_removes_templates_and_keeps_connections(self, plane: Adapter) -> None:
        key = self.make(plane, persistence=60)
        client = plane.client(0, 1)
        link = plane.connect(key, client)
        assert plane.apply(EditService(ServiceEntry(key=key, scheduler="rr"))) == []
        self.need(plane, Lack.FORGETTING)
        assert self.server(plane, key, "C").persistent == 0
        assert link.alive()
        assert self.names(self.open(plane, key, 2, client)) == "BA"

    # -- thresholds --------------------------------------------------------------------------------------------

    def test_a_full_server_refuses_until_it_is_below_its_lower_threshold(self, plane: Adapter) -> None:
        key = self.make(plane, "A", upper=4, lower=2)
        links = self.open(plane, key, 5)
        assert [link.server for link in links] == ["A"] * 4 + [plane.turned_away]
        assert self.server(plane, key, "A").overloaded
        for still_refused in (3, 2):
            links.pop(0).close()
            assert plane.connect(key, plane.client(9, 1)).server == plane.turned_away, still_refused
        links.pop(0).close()
        assert plane.connect(key, plane.client(9, 1)).server == "A"

    def test_without_a_lower_threshold_three_quarters_of_the_upper_one_count(self, plane: Adapter) -> None:
        key = self.make(plane, "A", upper=8)
        links = self.open(plane, key, 9)
        assert [link.server for link in links] == ["A"] * 8 + [plane.turned_away]
        for link in islice(links, 2):
            link.close()
        assert plane.connect(key, plane.client(9, 1)).server == plane.turned_away
        links[2].close()
        assert plane.connect(key, plane.client(9, 1)).server == "A"

    def test_a_full_server_is_skipped_and_keeps_its_connections_and_persistent_clients(self, plane: Adapter) -> None:
        key = self.make(plane, "AB", persistence=60, upper=1)
        client = plane.client(0, 1)
        first = plane.connect(key, client)
        assert first.server == "B"
        assert plane.connect(key, plane.client(0, 2)).server == "A"
        assert plane.connect(key, plane.client(0, 3)).server == plane.turned_away
        assert plane.connect(key, client).server == "B"
        assert first.alive()

    def test_edited_thresholds_take_effect_at_once(self, plane: Adapter) -> None:
        self.need(plane, Lack.OVERLOAD_FLAG)
        key = self.make(plane, "A")
        self.open(plane, key, 3)
        self.edit(plane, key, "A", upper_threshold=3)
        assert plane.connect(key, plane.client(9, 1)).server == plane.turned_away
        self.edit(plane, key, "A", upper_threshold=4)
        assert self.server(plane, key, "A").overloaded  # 3 held are not below 4 - 4 // 4
        self.edit(plane, key, "A", upper_threshold=5)
        assert not self.server(plane, key, "A").overloaded
        self.edit(plane, key, "A", upper_threshold=3)
        self.edit(plane, key, "A")
        assert plane.connect(key, plane.client(9, 1)).server == "A"

    # -- counters ----------------------------------------------------------------------------------------------

    def test_connections_are_counted_active_then_inactive_at_half_close_then_not_at_all(self, plane: Adapter) -> None:
        key = self.make(plane, "AB")
        links = self.open(plane, key, 4)
        plane.settle()
        before = [(s.active, s.inactive, s.traffic.connections) for s in self.service(plane, key).servers]
        assert before == [(2, 0, 2), (2, 0, 2)]
        assert self.service(plane, key).traffic.connections == 4
        links[0].finish()
        self.until(lambda: self.server(plane, key, "B").inactive == 1, "one inactive connection")
        assert self.server(plane, key, "B").active == 1
        for link in links:
            link.close()
        after = [(s.active, s.inactive, s.traffic.connections) for s in self.service(plane, key).servers]
        assert after == [(0, 0, 2), (0, 0, 2)]

    def test_bytes_are_counted_both_ways_while_the_connection_is_open(self, plane: Adapter) -> None:
        if not plane.carries_bytes:
            pytest.skip("this plane carries no bytes")
        key = self.make(plane, "AB")
        links = self.open(plane, key, 2)
        sent_back = plane.send_many(links[0], 300_000)
        plane.settle()
        time.sleep(0.1)  # the last acknowledgement is delayed
        seen = self.service(plane, key)  # one observation, so that the counters are consistent
        held = {server.server.endpoint: server.traffic for server in seen.servers}
        traffic, idle = (held[plane.endpoint(link.server)] for link in links)
        if plane.counts_headers:
            assert 300_000 < traffic.bytes_in < 330_000
            assert sent_back < traffic.bytes_out < sent_back * 1.1
        else:
            assert (traffic.bytes_in, traffic.bytes_out) == (300_000, sent_back)
        total = seen.traffic
        assert total.bytes_in == traffic.bytes_in + (idle.bytes_in if plane.counts_headers else 0)
        assert total.bytes_out == traffic.bytes_out + idle.bytes_out
        links[0].close()
        after = self.server(plane, key, links[0].server).traffic
        assert after.bytes_out - traffic.bytes_out <= (500 if plane.counts_headers else 0)  # closing packets have headers too

    def test_every_connection_is_listed_with_its_ends(self, plane: Adapter) -> None:
        key = self.make(plane, "AB")
        clients = [plane.client(0, 1), plane.client(0, 2)]
        for client in clients:
            plane.connect(key, client)
        found = {c.client.address: c for c in plane.connections()}
        assert set(found) == set(clients)
        assert {c.server for c in found.values()} == {plane.endpoint("A"), plane.endpoint("B")}
        assert {(c.protocol, c.virtual, c.state, c.template) for c in found.values()} == {
            (TCP, key.endpoint, "ESTABLISHED", False)
        }

    # -- editing -----------------------------------------------------------------------------------------------

    def test_a_new_weight_counts_for_the_next_connection_and_moves_none(self, plane: Adapter) -> None:
        key = self.make(plane, "AB", scheduler="wlc")
        old = self.open(plane, key, 2)
        self.edit(plane, key, "A", weight=10)
        assert self.names(self.open(plane, key, 6)) == "AAAAAA"
        assert [link.alive() for link in old] == [True, True]
        assert [s.server.endpoint for s in self.service(plane, key).servers] == [plane.endpoint("A"), plane.endpoint("B")]

    def test_a_new_scheduler_takes_over_with_connections_in_place(self, plane: Adapter) -> None:
        key = self.make(plane, "AB", scheduler="rr")
        old = self.open(plane, key, 1)
        assert plane.apply(EditService(ServiceEntry(key=key, scheduler="lc"))) == []
        assert self.names(self.open(plane, key, 3)) == "ABA"
        assert old[0].alive()
        assert self.service(plane, key).service.scheduler == "lc"

    def test_wrr_does_not_restart_its_cycle_when_a_weight_is_edited_to_itself(self, plane: Adapter) -> None:
        key = self.make(plane, (("A", 1), ("B", 2), ("C", 3)), scheduler="wrr")
        assert self.names(self.open(plane, key, 4)) == "CBAC"
        self.edit(plane, key, "B", weight=2)
        assert self.names(self.open(plane, key, 2)) == "CC"

    # -- reconciling -------------------------------------------------------------------------------------------

    def test_reconciling_reaches_any_desired_table_in_one_step(self, plane: Adapter) -> None:
        chance = random.Random(20)
        keys = [plane.key(), plane.key(), plane.key(UDP)]
        for _ in range(25):
            desired = [self.some_service(plane, chance, key) for key in keys if chance.random() < 0.7]
            operations = reconcile(desired, plane.observe())
            assert plane.apply(*operations) == []
            observed = plane.observe()
            assert reconcile(desired, observed) == []
            assert {s.service.key: s.service for s in observed} == {d.service.key: d.service for d in desired}
            for item in desired:
                held = next(s for s in observed if s.service.key == item.service.key)
                assert {s.server for s in held.servers} == set(item.servers)

    def some_service(self, plane: Adapter, chance: random.Random, key: ServiceKey) -> Desired:
        names = chance.sample("ABCD", chance.randint(0, 4))
        servers = tuple(
            ServerEntry(
                endpoint=plane.endpoint(name, key.protocol),
                weight=chance.randint(0, 3),
                upper_threshold=chance.choice((0, 5)),
                proxy_protocol=chance.choice((0, 1, 2)),
            )
            for name in names
        )
        return Desired(
            ServiceEntry(
                key=key, scheduler=chance.choice(("rr", "wrr", "lc", "wlc", "sh")), persistence_timeout_s=chance.choice((0, 50))
            ),
            servers,
        )

    def test_reconciling_an_equal_table_touches_no_connection(self, plane: Adapter) -> None:
        key = self.make(plane, "AB")
        links = self.open(plane, key, 2)
        entries = tuple(ServerEntry(endpoint=plane.endpoint(name)) for name in "AB")
        desired = [Desired(ServiceEntry(key=key, scheduler="rr"), (*entries, ServerEntry(endpoint=plane.endpoint("C"))))]
        operations = reconcile(desired, plane.observe())
        assert operations == [AddServer(key, desired[0].servers[2])]
        assert plane.apply(*operations) == []
        assert [link.alive() for link in links] == [True, True]

    # -- refused operations ------------------------------------------------------------------------------------

    def test_impossible_operations_are_refused_with_their_reason_and_the_others_are_applied(self, plane: Adapter) -> None:
        key, absent = self.make(plane, "A"), plane.key()
        here, there = ServerEntry(endpoint=plane.endpoint("A")), ServerEntry(endpoint=plane.endpoint("B"))
        before = self.service(plane, key)
        any_port = ServiceEntry(key=ServiceKey(TCP, Endpoint(key.endpoint.address, 0)))
        wrong: list[tuple[Operation, str]] = [
            (AddService(ServiceEntry(key=key)), "service already exists"),
            (EditService(ServiceEntry(key=absent)), "no such service"),
            (DeleteService(absent), "no such service"),
            (AddServer(key, here), "destination already exists"),
            (AddServer(absent, here), "service not defined"),
            (EditServer(key, there), "no such destination"),
            (EditServer(absent, here), "no such destination"),
            (DeleteServer(key, there.endpoint), "no such destination"),
            (DeleteServer(absent, here.endpoint), "no such destination"),
            (AddService(any_port), plane.any_port_refusal),
        ]
        assert plane.apply(*(operation for operation, _ in wrong)) == [Refused(o, reason) for o, reason in wrong]
        assert self.service(plane, key) == before
        assert plane.apply(wrong[0][0], AddServer(key, there), wrong[1][0]) == [Refused(*wrong[0]), Refused(*wrong[1])]
        assert self.names(self.open(plane, key, 2)) == "BA"
