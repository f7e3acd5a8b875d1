"""The listing in ipvsadm's layout, trailing blanks included: scripts cut it by columns."""

from __future__ import annotations

from typing import Any

import pytest

from relevo.observe.listing import ipvs_listing
from relevo.observe.snapshot import ServerSnapshot, ServiceSnapshot, ipvs_states

HEAD = [
    "IP Virtual Server version 1.2.1 (size=4096)",
    "Prot LocalAddress:Port Scheduler Flags",
    "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
]


def server(address: str, port: int, **more: Any) -> ServerSnapshot:
    known = {"up": True, "in_plane": True, "weight": 1, "declared_weight": 1, "forwarding": "NAT", "since_at": 0.0}
    return ServerSnapshot(address=address, port=port, **{**known, **more})


def service(protocol: str, address: str, port: int, *servers: ServerSnapshot, **more: Any) -> ServiceSnapshot:
    known = {
        "scheduler": "rr",
        "persistence_timeout_s": 0,
        "persistence_granularity": 128 if ":" in address else 32,
        "up": True,
        "since_at": 0.0,
        "quorum": 1,
        "live_weight": 1,
        "uses_sorry_server": False,
    }
    return ServiceSnapshot(protocol=protocol, address=address, port=port, servers=servers, **{**known, **more})


def lines(*services: ServiceSnapshot) -> list[str]:
    text = ipvs_listing(services)
    assert text.endswith("\n")
    found = text[:-1].split("\n")
    assert found[:3] == HEAD
    return found[3:]


def test_an_empty_table_is_three_title_lines() -> None:
    assert lines() == []


def test_services_and_servers_look_as_ipvsadm_prints_them() -> None:
    table = [
        service(
            "TCP",
            "192.0.2.10",
            80,
            server("10.2.0.11", 8080, weight=3),
            server("10.2.0.12", 80, forwarding="DR"),
            server("10.2.0.13", 80, forwarding="TUN", weight=0),
        ),
        service("TCP", "192.0.2.10", 443, scheduler="wlc", persistence_timeout_s=600, persistence_granularity=24),
        service("UDP", "192.0.2.10", 5060, persistence_timeout_s=360),
    ]
    assert lines(*table) == [
        "TCP  192.0.2.10:80 rr",
        "  -> 10.2.0.11:8080               Masq    3      0          0         ",
        "  -> 10.2.0.12:80                 Route   1      0          0         ",
        "  -> 10.2.0.13:80                 Tunnel  0      0          0         ",
        "TCP  192.0.2.10:443 wlc persistent 600 mask 255.255.255.0",
        "UDP  192.0.2.10:5060 rr persistent 360",
    ]


def test_ipv6_stands_in_brackets_and_pushes_its_columns_when_long() -> None:
    long = server("2001:db8:1111:2222:3333:4444:5555:6666", 8080, active=12, inactive=345)
    assert lines(
        service("TCP", "2001:db8::10", 80, long, scheduler="nq", persistence_timeout_s=30, persistence_granularity=64)
    ) == [
        "TCP  [2001:db8::10]:80 nq persistent 30 mask 64",
        "  -> [2001:db8:1111:2222:3333:4444:5555:6666]:8080 Masq    1      12         345       ",
    ]


def test_counters_wider_than_their_columns_are_not_cut() -> None:
    wide = server("10.0.0.1", 80, weight=1234567, active=12345678901, inactive=1)
    assert lines(service("TCP", "192.0.2.10", 80, wide))[1] == (
        "  -> 10.0.0.1:80                  Masq    1234567 12345678901 1         "
    )


def test_a_server_that_the_plane_does_not_hold_is_not_listed() -> None:
    out = server("10.0.0.1", 80, up=False, in_plane=False)
    assert lines(service("TCP", "192.0.2.10", 80, out, server("127.0.0.1", 80, sorry=True))) == [
        "TCP  192.0.2.10:80 rr",
        "  -> 127.0.0.1:80                 Masq    1      0          0         ",
    ]


@pytest.mark.parametrize(
    ("prefix", "mask"),
    [(0, " mask 0.0.0.0"), (1, " mask 128.0.0.0"), (8, " mask 255.0.0.0"), (25, " mask 255.255.255.128"), (32, "")],
)
def test_a_granularity_is_a_mask_unless_it_is_one_client(prefix: int, mask: str) -> None:
    found = lines(service("TCP", "192.0.2.1", 80, persistence_timeout_s=9, persistence_granularity=prefix))
    assert found == [f"TCP  192.0.2.1:80 rr persistent 9{mask}"]


def names(*services: ServiceSnapshot) -> list[str]:
    return [f"{s.protocol} {s.address} {s.port}" for s in ipvs_states(services)]


def test_services_stand_by_protocol_then_address_as_a_number_then_port() -> None:
    given = [("UDP", "192.0.2.9", 53), ("TCP", "192.0.2.10", 443), ("TCP", "192.0.2.9", 80), ("TCP", "192.0.2.10", 80)]
    assert names(*(service(*one) for one in given)) == [
        "TCP 192.0.2.9 80",
        "TCP 192.0.2.10 80",
        "TCP 192.0.2.10 443",
        "UDP 192.0.2.9 53",
    ]


def test_services_of_ipv6_stand_behind_all_of_ipv4_in_the_order_of_their_addresses() -> None:
    given = [("TCP", "2001:db8::10", 80), ("TCP", "2001:db8::9", 443), ("UDP", "192.0.2.10", 53), ("TCP", "192.0.2.10", 80)]
    assert names(*(service(*one) for one in given)) == [
        "TCP 192.0.2.10 80",
        "UDP 192.0.2.10 53",
        "TCP 2001:db8::9 443",
        "TCP 2001:db8::10 80",
    ]


def test_an_ipv4_address_mapped_to_ipv6_is_listed() -> None:
    assert lines(service("TCP", "::ffff:192.0.2.1", 80)) == ["TCP  [::ffff:192.0.2.1]:80 rr"]


def test_servers_stand_by_address_and_port() -> None:
    servers = [server("10.2.0.12", 80), server("10.2.0.9", 81), server("10.2.0.9", 80)]
    found = [line.split()[1] for line in lines(service("TCP", "192.0.2.10", 80, *servers))[1:]]
    assert found == ["10.2.0.9:80", "10.2.0.9:81", "10.2.0.12:80"]
