from ipaddress import ip_address

import pytest

from relevo.schedulers import maglev

NEWEST_FIRST = [(int(ip_address(a)), 80) for a in ("10.2.2.13", "10.2.2.12", "10.2.1.11")]
"""C, B and A, as a kernel had them."""


@pytest.mark.parametrize(("data", "expected"), [(bytes(4), 0x5C3613531D5A77C2), (bytes((1, 2, 3, 4)), 0xE36AEB2EBAA73C99)])
def test_the_hash_is_the_kernels(data, expected):
    assert maglev.siphash13(maglev.KEY_1, maglev.KEY_1, data) == expected


def test_the_table_is_the_kernels():
    table = maglev.fill(NEWEST_FIRST, [3, 2, 1], maglev.KERNEL_SIZE)
    assert [table.count(server) for server in range(3)] == [2047, 1364, 682]
    assert "".join("CBA"[server] for server in table[:12]) == "BAACCCBBBBCC"


@pytest.mark.parametrize(
    ("client", "slot", "server", "slot_with_port", "server_with_port"),
    [
        ("192.0.2.1", 2891, "C", 3651, "A"),
        ("192.0.2.2", 746, "B", 3058, "C"),
        ("198.51.100.7", 924, "B", 1707, "A"),
        ("203.0.113.99", 845, "B", 1578, "C"),
        ("10.1.0.2", 1900, "C", 1528, "C"),
    ],
)
def test_clients_find_the_slots_that_a_kernel_recorded(client, slot, server, slot_with_port, server_with_port):
    table = maglev.fill(NEWEST_FIRST, [3, 2, 1], maglev.KERNEL_SIZE)
    number = int(ip_address(client))
    found = maglev.hashed(maglev.KEY_1, number) % maglev.KERNEL_SIZE
    with_port = maglev.hashed(maglev.KEY_1, number + 40_000) % maglev.KERNEL_SIZE
    assert (found, "CBA"[table[found]]) == (slot, server)
    assert (with_port, "CBA"[table[with_port]]) == (slot_with_port, server_with_port)


def test_removing_one_of_a_hundred_servers_moves_few_other_clients_and_the_load_is_even():
    places = [(int(ip_address(f"10.0.0.{n}")), 80) for n in range(1, 101)]
    before = maglev.fill(places, [1] * 100)
    share = maglev.DEFAULT_SIZE / 100
    assert max(abs(before.count(server) - share) for server in range(100)) / share <= 0.01
    for leaver in (0, 50, 99):
        after = maglev.fill(places[:leaver] + places[leaver + 1 :], [1] * 99)
        named = [server + (server >= leaver) for server in after]
        needless = sum(a != b and a != leaver for a, b in zip(before, named, strict=True))
        assert needless / maglev.DEFAULT_SIZE <= 0.006


def test_a_quiesced_server_keeps_its_slots():
    weights = [3, 2, 1]
    assert maglev.fill(NEWEST_FIRST, weights) == maglev.fill(NEWEST_FIRST, weights)
    assert maglev.turns([0, 0]) == [0, 0]
    assert set(maglev.fill(NEWEST_FIRST, [0, 0, 0], 251)) == {-1}


@pytest.mark.parametrize(
    ("weights", "expected"), [([1, 2, 3], [1, 2, 3]), ([100, 200], [1, 2]), ([1, 64], [1, 32]), ([1, 65535], [1, 63])]
)
def test_turns_are_weights_reduced_to_63_at_most(weights, expected):
    assert maglev.turns(weights) == expected
