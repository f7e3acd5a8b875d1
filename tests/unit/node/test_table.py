from hypothesis import given
from hypothesis import strategies as st

from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
from relevo.model.table import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    Desired,
    EditServer,
    EditService,
    ServerEntry,
    ServerState,
    ServiceEntry,
    ServiceState,
    Traffic,
)
from relevo.node.table import reconcile
from relevo.planes.table import ServiceTable
from tests.unit.planes.tables import KEY, OTHER, at, entry, named, server


def observed(*servers, key=KEY, **changes):
    states = tuple(ServerState(server=s, active=7, traffic=Traffic(connections=9)) for s in servers)
    return ServiceState(service=entry(key, **changes), servers=states, refused={"no_destination": 3})


def test_nothing_to_nothing_is_nothing():
    assert reconcile([], []) == []


def test_equal_tables_give_no_operations_whatever_their_counters():
    assert reconcile([Desired(entry(), (server("A"), server("B", 3)))], [observed(server("A"), server("B", 3))]) == []


def test_the_order_of_servers_alone_is_no_difference():
    assert reconcile([Desired(entry(), (server("B"), server("A")))], [observed(server("A"), server("B"))]) == []


def test_a_new_service_is_made_before_its_servers_in_the_declared_order():
    assert reconcile([Desired(entry(), (server("B"), server("A")))], []) == [
        AddService(entry()),
        AddServer(KEY, server("B")),
        AddServer(KEY, server("A")),
    ]


def test_a_service_that_is_not_wanted_goes_with_its_servers():
    assert reconcile([], [observed(server("A"), server("B"))]) == [DeleteService(KEY)]


def test_removals_of_services_come_first():
    assert reconcile([Desired(entry(OTHER))], [observed()]) == [DeleteService(KEY), AddService(entry(OTHER))]


def test_a_changed_service_is_edited_and_its_servers_stay():
    assert reconcile([Desired(entry(scheduler="wlc"), (server("A"),))], [observed(server("A"))]) == [
        EditService(entry(scheduler="wlc")),
    ]


def test_within_a_service_removals_come_before_additions_and_edits():
    wanted = Desired(entry(persistence_timeout_s=50), (server("C"), server("B", 5)))
    assert reconcile([wanted], [observed(server("A"), server("B"))]) == [
        EditService(entry(persistence_timeout_s=50)),
        DeleteServer(KEY, at("A")),
        AddServer(KEY, server("C")),
        EditServer(KEY, server("B", 5)),
    ]


WEIGHTS = st.integers(0, 3)
SERVERS = st.dictionaries(
    st.sampled_from("ABCDE"), st.tuples(WEIGHTS, st.sampled_from((0, 4)), st.sampled_from(Forwarding)), max_size=5
).map(
    lambda found: tuple(
        ServerEntry(endpoint=at(name), weight=w, upper_threshold=u, forwarding=f) for name, (w, u, f) in found.items()
    )
)
SERVICES = st.dictionaries(
    st.builds(ServiceKey, st.sampled_from(Protocol), st.builds(Endpoint, st.just("192.0.2.1"), st.integers(1, 3))),
    st.tuples(st.sampled_from(("rr", "wlc", "sh")), st.sampled_from((0, 50)), SERVERS),
    max_size=4,
).map(
    lambda found: [
        Desired(ServiceEntry(key=key, scheduler=s, persistence_timeout_s=p), servers) for key, (s, p, servers) in found.items()
    ]
)


def contents(table):
    return {
        state.service.key: (state.service, {held.server.endpoint: held.server for held in state.servers})
        for state in table.observe()
    }


@given(SERVICES, SERVICES)
def test_the_operations_turn_any_table_into_the_desired_one(before, after):
    table = ServiceTable()
    for desired in (before, after):
        assert table.apply(reconcile(desired, table.observe())) == []
        assert contents(table) == {d.service.key: (d.service, {s.endpoint: s for s in d.servers}) for d in desired}
        assert reconcile(desired, table.observe()) == []


@given(SERVICES)
def test_a_table_made_from_nothing_lists_servers_newest_first(desired):
    table = ServiceTable()
    table.apply(reconcile(desired, []))
    for item in desired:
        held = [named(s.entry.endpoint) for s in table.services[item.service.key].servers]
        assert held[::-1] == [named(s.endpoint) for s in item.servers]


@given(SERVICES, SERVICES)
def test_servers_that_stay_are_not_removed_and_added_again(before, after):
    table = ServiceTable()
    table.apply(reconcile(before, []))
    held = {(key, s.entry.endpoint): s for key, service in table.services.items() for s in service.servers}
    table.apply(reconcile(after, table.observe()))
    for key, service in table.services.items():
        for present in service.servers:
            assert held.get((key, present.entry.endpoint), present) is present
