import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.model import Endpoint, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, DeleteServer, DeleteService, EditServer, EditService
from relevo.planes import table as module
from relevo.planes.port import PickRefusal
from relevo.planes.table import address_number
from relevo.schedulers import SCHEDULERS
from relevo.schedulers.base import fold
from tests.unit.planes.tables import KEY, OTHER, Table, at, entry, named, server

ONE, TWO, THREE = "198.51.100.1", "198.51.100.2", "203.0.113.3"


def counters(table):
    [state] = table.table.observe()
    return {named(s.server.endpoint): (s.active, s.inactive, s.traffic.connections) for s in state.servers}


# -- operations -------------------------------------------------------------------------------------------------------


def test_servers_are_held_newest_first_and_observed_in_the_order_added():
    table = Table(server("A"), server("B"), server("C"))
    assert [named(s.entry.endpoint) for s in table.service.servers] == ["C", "B", "A"]
    assert list(counters(table)) == ["A", "B", "C"]


def test_a_server_that_is_added_again_is_first_and_counts_from_0():
    table = Table(server("A"), server("B"))
    table.picks(ONE, ONE)
    table.delete("A")
    table.add("A")
    assert counters(table) == {"B": (1, 0, 1), "A": (0, 0, 0)}


def test_an_edited_server_stays_where_it_is_with_its_connections():
    table = Table(server("A"), server("B"))
    table.picks(ONE, ONE)
    table.edit("A", 7)
    assert counters(table) == {"A": (1, 0, 1), "B": (1, 0, 1)}
    assert table.server("A").weight == 7


PORT_0 = ServiceKey(Protocol.TCP, Endpoint("192.0.2.10", 0))


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (AddService(entry()), "service already exists"),
        (AddService(entry(PORT_0)), "a service of every port needs plane ipvs or ebpf"),
        (EditService(entry(OTHER)), "no such service"),
        (DeleteService(OTHER), "no such service"),
        (AddServer(OTHER, server("A")), "service not defined"),
        (AddServer(KEY, server("A", 9)), "destination already exists"),
        (EditServer(OTHER, server("A", 9)), "no such destination"),
        (EditServer(KEY, server("B")), "no such destination"),
        (DeleteServer(OTHER, at("A")), "no such destination"),
        (DeleteServer(KEY, at("B")), "no such destination"),
    ],
)
def test_an_impossible_operation_is_refused_with_its_reason_and_changes_nothing(operation, reason):
    table = Table(server("A"))
    before = table.table.observe()
    assert table.apply(operation) == [reason]
    assert table.table.observe() == before
    assert table.removed == []


def test_operations_after_a_refused_one_are_carried_out():
    table = Table()
    assert table.apply(DeleteServer(KEY, at("A")), AddServer(KEY, server("A"))) == ["no such destination"]
    assert list(counters(table)) == ["A"]


def test_an_unknown_operation_is_ignored():
    assert Table().apply(object()) == []


def test_removed_servers_are_reported_with_their_service_too():
    table = Table(server("A"), server("B"))
    table.delete("A")
    assert table.removed == ["A"]
    table.delete_service()
    assert table.removed == ["A", "B"]
    assert table.table.observe() == []


def test_a_table_works_without_a_callback_for_removed_servers():
    table = module.ServiceTable()
    assert table.apply([AddService(entry()), AddServer(KEY, server("A")), DeleteService(KEY)]) == []


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_service_gets_the_scheduler_it_names(scheduler):
    table = Table(scheduler=scheduler, scheduler_flags=("sh-port",))
    assert type(table.service.scheduler) is SCHEDULERS[scheduler]
    assert table.service.scheduler.flags == {"sh-port"}


def test_a_scheduler_that_user_space_lacks_is_replaced_by_wlc():
    assert type(Table(scheduler="dh").service.scheduler) is SCHEDULERS["wlc"]


def test_an_exchanged_scheduler_has_the_servers():
    table = Table(server("A", 1), server("B", 2), server("C", 3))
    table.edit_service(scheduler="wrr")
    assert table.picks(*[ONE] * 6) == "CCBCBA"
    table.edit_service(scheduler="sh")
    assert table.picks("192.0.2.1", "192.0.2.2") == "CB"


@pytest.mark.parametrize("scheduler", sorted(set(SCHEDULERS) - {"fo", "ovf"}))
def test_the_scheduler_is_updated_when_a_server_is_added_edited_or_deleted(scheduler):
    table = Table(server("A"), server("B"), scheduler=scheduler)
    clients = [f"198.51.100.{number}" for number in range(40)]
    assert set(table.picks(*clients)) == {"A", "B"}
    table.delete("B")
    assert set(table.picks(*clients)) == {"A"}
    table.add("C", 0)
    assert "C" not in table.picks(*clients)
    table.edit("C", 1)
    assert "C" in table.picks(*clients)


def test_an_edit_that_keeps_the_scheduler_keeps_its_place():
    table = Table(server("A"), server("B"), server("C"))
    assert table.pick() == "C"
    table.edit_service(persistence_timeout_s=0)
    assert table.pick() == "B"


# -- scheduling -------------------------------------------------------------------------------------------------------


def test_no_destination_is_refused_and_counted():
    table = Table(server("A", 0))
    assert table.open() is PickRefusal.NO_DESTINATION
    assert table.open() is PickRefusal.NO_DESTINATION
    assert table.table.observe()[0].refused == {"no_destination": 2}


def test_servers_that_were_tried_are_skipped_and_not_marked():
    table = Table(server("A"), server("B"), server("C"))
    tried = [table.server("C")]
    assert table.pick(tried=iter(tried)) == "B"
    tried = [table.server("A"), table.server("C")]
    assert table.pick(tried=tried) == "B"
    assert table.pick(tried=[*tried, table.server("B")]) == "-"
    assert not any(s.overloaded for s in table.service.servers)


def test_a_tried_server_that_is_overloaded_stays_so():
    table = Table(server("A"), server("B", upper_threshold=1))
    assert table.pick() == "B"
    table.pick(tried=[table.server("B")])
    assert table.server("B").overloaded


def test_the_address_of_an_ipv6_client_is_folded_by_xor():
    assert address_number("10.0.0.1") == (0x0A000001, 32)
    assert address_number("::1") == (1, 128)
    assert fold(0x0A000001) == 0x0A000001
    assert fold(int.from_bytes(bytes(range(16)), "big")) == 0x00010203 ^ 0x04050607 ^ 0x08090A0B ^ 0x0C0D0E0F


# -- counters ---------------------------------------------------------------------------------------------------------


def test_a_connection_is_active_then_inactive_then_gone():
    table = Table(server("A"))
    assignment = table.open()
    assert counters(table) == {"A": (1, 0, 1)}
    table.table.half_close(assignment)
    table.table.half_close(assignment)
    assert counters(table) == {"A": (0, 1, 1)}
    table.table.close(assignment)
    assert counters(table) == {"A": (0, 0, 1)}


def test_a_datagram_flow_is_never_active():
    table = Table(server("A"), key=OTHER)
    assignment = table.open(active=False)
    assert counters(table) == {"A": (0, 1, 1)}
    table.table.half_close(assignment)
    table.table.close(assignment)
    assert counters(table) == {"A": (0, 0, 1)}


def test_traffic_of_a_service_is_that_of_its_servers_and_connections_outlive_them():
    table = Table(server("A"), server("B"))
    table.picks(ONE, TWO, THREE)
    table.server("A").bytes_in, table.server("B").bytes_in, table.server("B").bytes_out = 10, 5, 7
    traffic = table.table.observe()[0].traffic
    assert (traffic.connections, traffic.bytes_in, traffic.bytes_out) == (3, 15, 7)
    table.delete("B")
    assert table.table.observe()[0].traffic.connections == 3


def test_why_a_service_does_not_listen_is_shown():
    table = Table()
    table.service.listening = "address in use"
    assert table.table.observe()[0].listening == "address in use"


# -- thresholds -------------------------------------------------------------------------------------------------------


def closing(table, assignments):
    """Close connections one by one; return after each whether another would be accepted, by the number open."""
    accepted = {}
    while assignments:
        table.table.close(assignments.pop())
        accepted[len(assignments)] = not table.server("A").overloaded
    return accepted


def test_upper_4_lower_2_refuses_the_fifth_and_accepts_again_at_1():
    table = Table(server("A", upper_threshold=4, lower_threshold=2))
    assignments = [table.open() for _ in range(4)]
    assert table.pick() == "-"
    assert closing(table, assignments) == {3: False, 2: False, 1: True, 0: True}


def test_upper_8_alone_accepts_again_below_three_quarters():
    table = Table(server("A", upper_threshold=8))
    assignments = [table.open() for _ in range(8)]
    assert table.pick() == "-"
    assert closing(table, assignments) == {7: False, 6: False, 5: True, 4: True, 3: True, 2: True, 1: True, 0: True}


@pytest.mark.parametrize(("upper", "again"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (100, 74)])
def test_without_a_lower_threshold_it_is_the_upper_one_less_its_quarter(upper, again):
    table = Table(server("A", upper_threshold=upper))
    accepted = closing(table, [table.open() for _ in range(upper)])
    assert max(held for held, yes in accepted.items() if yes) == again


def test_inactive_connections_count_towards_the_threshold():
    table = Table(server("A", upper_threshold=2), key=OTHER)
    assert table.picks(ONE, TWO, THREE, active=False) == "AA-"


def test_without_a_threshold_nothing_overloads():
    assert Table(server("A")).picks(*[ONE] * 300) == "A" * 300


@pytest.mark.parametrize(
    ("upper", "lower", "overloaded"), [(3, 0, True), (2, 0, True), (0, 0, False), (9, 0, False), (5, 2, True), (5, 4, False)]
)
def test_edited_thresholds_take_effect_at_once(upper, lower, overloaded):
    table = Table(server("A", upper_threshold=3))
    table.picks(ONE, ONE, ONE)
    table.edit("A", upper_threshold=upper, lower_threshold=lower)
    assert table.server("A").overloaded is overloaded


def test_overload_does_not_touch_a_client_with_a_template():
    table = Table(server("A", upper_threshold=1), persistence_timeout_s=50)
    assert table.picks(ONE, TWO, ONE) == "A-A"


# -- persistence ------------------------------------------------------------------------------------------------------


def persistent(*names, **changes):
    return Table(*map(server, names), **{"persistence_timeout_s": 50, **changes})


def test_a_persistent_client_keeps_its_server():
    table = persistent("A", "B", "C")
    assert table.picks(ONE, TWO, ONE, TWO, THREE, ONE) == "CBCBAC"


def test_without_persistence_there_are_no_templates():
    table = Table(server("A"))
    table.pick()
    assert table.service.templates == {}
    assert table.table.templates(0.0) == []


@pytest.mark.parametrize(("granularity", "picks"), [(32, "CBAC"), (24, "CCBC"), (8, "CCBC"), (1, "CCCC")])
def test_granularity_makes_a_network_one_client(granularity, picks):
    assert persistent("A", "B", "C", persistence_granularity=granularity).picks(ONE, TWO, THREE, ONE) == picks


@pytest.mark.parametrize(("granularity", "picks"), [(128, "BAB"), (64, "BBB")])
def test_granularity_of_ipv6_clients(granularity, picks):
    key = ServiceKey(Protocol.TCP, Endpoint("2001:db8::10", 80))
    table = persistent("A", "B", key=key, persistence_granularity=granularity)
    assert table.picks("2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::1") == picks
    [template, *_] = table.table.templates(0.0)
    assert template.client == Endpoint("2001:db8:1::1" if granularity == 128 else "2001:db8:1::", 0)


def test_a_template_is_a_connection_from_port_0():
    table = persistent("A", persistence_granularity=24)
    assignment = table.open()
    table.now = 20.0
    [template] = table.table.templates(20.0)
    assert (template.client, template.virtual, template.server) == (Endpoint("198.51.100.0", 0), KEY.endpoint, at("A"))
    assert (template.state, template.expires_s, template.template) == ("ASSURED", 30.0, True)
    table.table.close(assignment)
    assert table.table.templates(60.0)[0].state == "ASSURED"
    assert table.table.templates(60.0)[0].expires_s == 0.0


def test_templates_are_counted_with_their_server():
    table = persistent("A", "B")
    table.picks(ONE, TWO, THREE)
    assert [s.persistent for s in table.table.observe()[0].servers] == [1, 2]


def test_a_template_lives_for_the_timeout_from_the_last_new_connection():
    table = persistent("A", "B")
    table.table.close(table.open())
    table.now = 49.0
    assignment = table.open()
    assert named(assignment.server.entry.endpoint) == "B"
    table.table.close(assignment)
    table.now = 98.9
    assert table.pick() == "B"


def test_an_expired_template_is_replaced():
    table = persistent("A", "B")
    table.table.close(table.open())
    table.now = 50.0
    assert table.pick() == "A"
    assert [s.templates for s in table.service.servers] == [0, 1]


def test_a_template_is_kept_while_a_connection_of_the_client_is_open():
    table = persistent("A", "B")
    assignment = table.open()
    table.now = 1000.0
    table.table.expire(1000.0)
    again = table.open()
    assert again.server is assignment.server
    table.table.close(assignment)
    table.table.close(again)
    table.table.expire(1049.0)
    assert len(table.service.templates) == 1
    table.table.expire(1050.0)
    assert table.service.templates == {}
    assert table.server("B").templates == 0


def test_a_quiesced_server_keeps_its_clients_and_gets_no_others():
    table = persistent("A", "B")
    assert table.pick(ONE) == "B"
    table.edit("B", 0)
    assert table.picks(ONE, TWO, THREE, ONE) == "BAAB"


def test_removing_a_server_drops_its_templates_alone():
    table = persistent("A", "B")
    table.picks(ONE, TWO)
    table.delete("B")
    assert [named(t.server.entry.endpoint) for t in table.service.templates.values()] == ["A"]
    assert table.pick(ONE) == "A"


def test_a_connection_of_a_removed_server_may_still_be_closed():
    table = persistent("A", "B")
    assignment = table.open()
    table.delete("B")
    table.add("B")
    table.table.close(assignment)
    assert counters(table) == {"A": (0, 0, 0), "B": (0, 0, 0)}


def test_a_client_whose_server_is_dead_is_scheduled_again():
    table = persistent("A", "B")
    assignment = table.open(ONE)
    table.table.close(assignment)
    assert table.pick(ONE, tried=[assignment.server]) == "A"
    assert table.pick(ONE) == "A"
    assert assignment.server.templates == 0


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"persistence_timeout_s": 90}, True),
        ({"persistence_timeout_s": 50, "scheduler": "wlc"}, True),
        ({"persistence_timeout_s": 50, "persistence_granularity": 24}, False),
        ({"persistence_timeout_s": 0}, False),
    ],
)
def test_templates_survive_an_edit_that_leaves_their_meaning(changes, kept):
    table = persistent("A", "B")
    assignment = table.open()
    table.edit_service(**changes)
    assert len(table.service.templates) == kept
    assert assignment.server.templates == kept
    table.table.close(assignment)
    assert assignment.server.active == 0


def test_beyond_the_limit_clients_are_scheduled_without_a_template(monkeypatch):
    monkeypatch.setattr(module, "MAX_TEMPLATES", 1)
    table = persistent("A", "B", "C")
    assert table.picks(ONE, TWO, TWO, ONE) == "CBAC"
    table.table.close(table.open(TWO))
    assert len(table.service.templates) == 1


def test_a_refused_client_gets_no_template():
    table = persistent()
    assert table.pick() == "-"
    assert table.service.templates == {}


# -- everything together ----------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("open", "open", "open", "udp", "half", "close", "close", "add", "edit", "delete", "expire", "persist")),
        st.sampled_from("ABC"),
        st.integers(0, 3),
        st.sampled_from((0.0, 5.0, 60.0)),
    ),
    max_size=60,
)


@given(st.sampled_from(sorted(SCHEDULERS)), STEPS)
def test_counters_are_those_of_the_open_connections(scheduler, steps):
    table, assignments = Table(scheduler=scheduler, persistence_timeout_s=50), []
    for step, name, number, pause in steps:
        table.now += pause
        if step in ("open", "udp"):
            assignment = table.open(f"198.51.100.{number}", active=step == "open")
            assignments += [] if isinstance(assignment, PickRefusal) else [assignment]
        elif step in ("half", "close") and assignments:
            getattr(table.table, "half_close" if step == "half" else "close")(assignments[number % len(assignments)])
            assignments = assignments[: number % len(assignments)] + assignments[number % len(assignments) + (step == "close") :]
        elif step in ("add", "edit", "delete"):
            getattr(table, step)(
                *((name, number) if step != "delete" else name), **({"upper_threshold": 2} if step != "delete" else {})
            )
        elif step == "expire":
            table.table.expire(table.now)
        elif step == "persist":
            table.edit_service(scheduler=scheduler, persistence_timeout_s=50, persistence_granularity=32 - 8 * number)
        templates = list(table.service.templates.values())
        for held in table.service.servers:
            own = [assignment for assignment in assignments if assignment.server is held]
            assert (held.active, held.inactive) == (sum(not x.inactive for x in own), sum(x.inactive for x in own))
            assert held.templates == sum(t.server is held for t in templates)
            assert held.active + held.inactive < 2 or held.overloaded
        for template in templates:
            assert template.server in table.service.servers
            assert template.controlled == sum(assignment.template is template for assignment in assignments)
