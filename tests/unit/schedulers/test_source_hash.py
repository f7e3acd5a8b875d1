from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.schedulers.source_hash import BITS, BUCKETS, hash32
from tests.unit.schedulers.fleet import Fleet

# reference kernel: A 10.2.1.11 w1, B 10.2.2.12 w2, C 10.2.2.13 w3; client, bucket and server, the same with port 40000
VECTORS = [
    ("192.0.2.1", 50, "C", 214, "B"),
    ("192.0.2.2", 148, "B", 56, "C"),
    ("198.51.100.7", 171, "B", 79, "C"),
    ("203.0.113.99", 160, "B", 68, "C"),
    ("10.1.0.2", 15, "B", 179, "A"),
]


@pytest.mark.parametrize(("address", "bucket", "server", "port_bucket", "port_server"), VECTORS)
def test_the_vectors_of_a_real_kernel(address, bucket, server, port_bucket, port_server):
    client = int(ip_address(address))
    assert hash32(client, BITS) == bucket
    assert Fleet("sh", 1, 2, 3).pick(client, 40000) == server
    assert hash32(client + 40000, BITS) == port_bucket
    assert Fleet("sh", 1, 2, 3, flags=("sh-port",)).pick(client, 40000) == port_server


def test_the_port_counts_only_with_sh_port():
    fleet = Fleet("sh", 1, 1, 1)
    assert len({fleet.pick(7, port) for port in range(100)}) == 1
    fleet = Fleet("sh", 1, 1, 1, flags=("sh-port",))
    assert {fleet.pick(7, port) for port in range(100)} == set("ABC")


def test_address_and_port_are_added_within_32_bits():
    fleet = Fleet("sh", 1, 2, 3, flags=("sh-port",))
    assert fleet.pick(0xFFFFFFFF, 3) == fleet.pick(2, 0)


def test_servers_fill_the_buckets_by_weight_in_list_order():
    fleet = Fleet("sh", 1, 2, 3)
    filled = "".join(server.name for server in fleet.scheduler._buckets)
    assert filled == ("CCCBBA" * 43)[:BUCKETS]


def test_a_server_of_weight_0_still_fills_a_bucket_and_refuses_its_clients():
    fleet = Fleet("sh", 1, 0)
    picks = [fleet.pick(client) for client in range(1000)]
    assert set(picks) == {"A", "-"}
    assert 400 < picks.count("-") < 600


def test_beyond_256_in_all_the_last_of_the_list_get_no_bucket():
    fleet = Fleet("sh", 1, 1, 300)
    assert {fleet.pick(client) for client in range(2000)} == {"C"}


def test_an_overloaded_server_refuses_its_clients():
    fleet = Fleet("sh", 1, 2, 3)
    fleet["C"].overloaded = True
    assert fleet.pick(int(ip_address("192.0.2.1"))) == "-"
    assert fleet.pick(int(ip_address("192.0.2.2"))) == "B"


def test_with_sh_fallback_its_clients_go_elsewhere_and_the_others_stay():
    before, fleet = Fleet("sh", 1, 2, 3), Fleet("sh", 1, 2, 3, flags=("sh-fallback",))
    fleet["C"].overloaded = True
    for client in range(1000):
        assert fleet.pick(client) == before.pick(client) if before.pick(client) != "C" else fleet.pick(client) in "AB"


def test_with_sh_fallback_and_no_server_left_clients_are_refused():
    fleet = Fleet("sh", 1, 1, flags=("sh-fallback",))
    fleet["A"].overloaded = fleet["B"].overloaded = True
    assert fleet.pick(7) == "-"


@pytest.mark.parametrize("change", [lambda f: f.add("D", 2), lambda f: f.edit("A", 4), lambda f: f.remove("B")])
def test_the_table_is_filled_again_on_every_change(change):
    fleet = Fleet("sh", 1, 2, 3)
    change(fleet)
    assert [s.name for s in fleet.scheduler._buckets] == model([(s.name, s.weight) for s in fleet.servers])


def model(servers):
    """The fill as the kernel does it: bucket by bucket, staying with a server until its weight is used up."""
    buckets, at, used = [], 0, 0
    for _ in range(256):
        name, weight = servers[at]
        buckets.append(name)
        used += 1
        if used >= weight:
            at, used = (at + 1) % len(servers), 0
    return buckets


def walk(first, fallback):
    """Buckets looked at, in order."""
    return [first, *((2 * first + k) % 256 for k in range(256))] if fallback else [first]


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("weights", [(1, 0, 2, 3), (0, 0, 1, 5, 0, 2), (4, 0, 90, 0, 7), (0, 0)])
def test_every_bucket_of_an_unavailable_server_goes_where_the_kernel_looks_next(weights, fallback):
    fleet = Fleet("sh", *weights, flags=("sh-fallback",) if fallback else ())
    buckets = model([(s.name, s.weight) for s in fleet.servers])
    for client in range(600):
        tried = walk(hash32(client, BITS), fallback)
        assert fleet.pick(client) == next((buckets[at] for at in tried if fleet[buckets[at]].weight), "-")


@given(st.lists(st.integers(0, 90), min_size=1, max_size=8), st.integers(0, 2**32 - 1), st.integers(0, 65535), st.booleans())
def test_picks_agree_with_a_model_of_the_kernel(weights, client, port, fallback):
    fleet = Fleet("sh", *weights, flags=("sh-port", "sh-fallback") if fallback else ("sh-port",))
    buckets = model([(s.name, s.weight) for s in fleet.servers])
    first = (((client + port) * 0x61C88647) % 2**32) // 2**24
    expected = next((buckets[at] for at in walk(first, fallback) if fleet[buckets[at]].weight), "-")
    assert fleet.pick(client, port) == expected
