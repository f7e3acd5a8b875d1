"""Groups of virtual addresses, firewall marks, and pools of source addresses."""

from __future__ import annotations

import pytest

from relevo.config.blocks.groups import MAX_MEMBERS
from relevo.machines.pool import PoolMachine
from relevo.model import Endpoint, Forwarding, Protocol, RealServer, ServiceKey, VirtualServer
from tests.unit.config.compiling import compiled, messages

SERVER = "real_server 10.0.0.1 {\n}\n"


def group(lines: str) -> str:
    return f"virtual_server_group G {{\n{lines}\n}}\nvirtual_server group G {{\nprotocol TCP\npersistence_timeout 5\n{SERVER}}}\n"


def only(text: str) -> VirtualServer:
    (service,) = compiled(text).configuration.virtual_servers
    return service


def tcp(address: str, port: int = 80) -> ServiceKey:
    return ServiceKey(Protocol.TCP, Endpoint(address, port))


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("192.0.2.1 80", [tcp("192.0.2.1")]),
        ("192.0.2.1", [tcp("192.0.2.1", 0)]),
        ("192.0.2.254-255 80", [tcp("192.0.2.254"), tcp("192.0.2.255")]),
        ("192.0.2.255-192.0.3.0 80", [tcp("192.0.2.255"), tcp("192.0.3.0")]),
        ("192.0.2.9-9 80", [tcp("192.0.2.9")]),
        ("192.0.2.8/31 80", [tcp("192.0.2.8"), tcp("192.0.2.9")]),
        ("2001:db8::fffe-ffff 80", [tcp("2001:db8::fffe"), tcp("2001:db8::ffff")]),
        ("2001:db8::1-2001:db8::2 80", [tcp("2001:db8::1"), tcp("2001:db8::2")]),
        ("2001:db8::/127 80", [tcp("2001:db8::"), tcp("2001:db8::1")]),
        ("fwmark 4", [ServiceKey.of_mark(4)]),
        ("fwmark 4294967295 inet6", [ServiceKey.of_mark(0xFFFFFFFF, ipv6=True)]),
        ("fwmark 4 inet", [ServiceKey.of_mark(4)]),
    ],
)
def test_a_line_of_a_group_is_one_or_more_services(line: str, keys: list[ServiceKey]) -> None:
    text = group(line)
    assert list(only(text.replace("10.0.0.1", "fd00::1") if ":" in str(keys[0].endpoint.address) else text).keys) == keys


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("host 80", "error: 'host' is not an IP address"),
        ("192.0.2.1 http", "error: 'http' is not a port number"),
        ("192.0.2.9-3 80", "error: the range 192.0.2.9-3 ends before it begins"),
        ("192.0.2.9-256 80", "error: '256' is not the end of a range"),
        ("192.0.2.9-2001:db8::1 80", "error: 192.0.2.9 and 2001:db8::1 are of different IP versions"),
        ("192.0.2.9- 80", "error: '' is not the end of a range"),
        ("10.0.0.0/8 80", f"error: 10.0.0.0/8 is 16777216 addresses: at most {MAX_MEMBERS}"),
        ("10.0.0.0-10.255.255.255 80", f"error: 10.0.0.0-10.255.255.255 is 16777216 addresses: at most {MAX_MEMBERS}"),
        ("10.0.0.0/33 80", "error: '10.0.0.0/33' is not a network"),
        ("fwmark", "missing: 'virtual_server_group' needs a firewall mark"),
        ("fwmark 0", "error: 0 is out of range"),
        ("fwmark 1 ipx", "error: 'ipx' is not an IP version"),
    ],
)
def test_a_bad_line_of_a_group_is_reported_and_the_rest_stands(line: str, reported: str) -> None:
    result = compiled(group(f"192.0.2.77 80\n{line}"))
    assert messages(result) == [reported]
    assert result.configuration.virtual_servers[0].keys == (tcp("192.0.2.77"),)


@pytest.mark.parametrize(
    ("line", "reported", "keys"),
    [
        (
            "192.0.2.9/31 80",
            "warning: '192.0.2.9/31' is taken for the network 192.0.2.8/31; keepalived leaves the line out",
            (tcp("192.0.2.8"), tcp("192.0.2.9")),
        ),
        ("192.0.2.9-9 80", "warning: '192.0.2.9-9' is a single address; keepalived leaves the line out", (tcp("192.0.2.9"),)),
    ],
)
def test_a_line_that_keepalived_leaves_out_is_used_with_a_warning(line, reported, keys) -> None:
    result = compiled(group(line))
    assert messages(result) == [reported]
    assert result.configuration.virtual_servers[0].keys == keys


def test_a_group_too_large_is_left_out() -> None:
    result = compiled(group("10.0.0.0/20 80\n10.1.0.0 80"))
    assert set(messages(result)) == {
        "error: 'G' has 4097 members: at most 4096",
        "error: virtual_server_group 'G' does not exist or lists nothing: the virtual server is left out",
        "fatal: nothing to run: every vrrp_instance and virtual_server was left out",
    }


def test_a_group_of_both_ip_versions_uses_that_of_its_first() -> None:
    result = compiled(group("192.0.2.1 80\n2001:db8::1 80"))
    assert messages(result) == ["error: group 'G' mixes IP versions: only IPv4 is used, as of its first member"]
    assert result.configuration.virtual_servers[0].keys == (tcp("192.0.2.1"),)


def test_a_group_is_named_as_keepalived_does_and_keeps_its_first_endpoint() -> None:
    service = only(group("192.0.2.1 80\n192.0.2.2 80"))
    assert (service.name, service.group, service.endpoint) == ("[G]:0", "G", Endpoint("192.0.2.1", 80))


def test_a_groups_servers_have_no_port_of_their_own_unless_they_say_so() -> None:
    text = group("192.0.2.1 80").replace(SERVER, SERVER + "real_server 10.0.0.2 8080 {\nTCP_CHECK {\n}\n}\n")
    servers = only(text).real_servers
    assert servers[0] == RealServer(endpoint=Endpoint("10.0.0.1"))
    assert servers[1].endpoint == Endpoint("10.0.0.2", 8080)
    assert servers[1].checks[0].connect == Endpoint("10.0.0.2", 8080)


def test_a_check_of_a_groups_server_asks_the_first_members_port() -> None:
    text = group("192.0.2.1 81\n192.0.2.1 82").replace(SERVER, "real_server 10.0.0.2 {\nTCP_CHECK {\n}\n}\n")
    assert only(text).real_servers[0].checks[0].connect == Endpoint("10.0.0.2", 81)


def test_an_address_belongs_to_one_virtual_server() -> None:
    result = compiled(group("192.0.2.1-3 80") + f"virtual_server 192.0.2.3 80 {{\nprotocol TCP\n{SERVER}}}\n")
    assert messages(result) == ["error: TCP 192.0.2.3:80 belongs to virtual server [G]:0 already: [192.0.2.3]:tcp:80 is left out"]
    assert len(result.configuration.virtual_servers) == 1


# -- firewall marks ----------------------------------------------------------------------------------------------------


def test_a_mark_is_named_as_keepalived_does() -> None:
    service = only(f"virtual_server fwmark 9 {{\n{SERVER}}}\n")
    assert service.name == "FWM 9"
    assert service.keys == (ServiceKey.of_mark(9),)
    assert not service.persistence_timeout_s


@pytest.mark.parametrize(
    ("family", "server", "ipv6"),
    [
        ("", "10.0.0.1", False),
        ("", "fd00::1", True),
        ("ip_family inet6\nlb_kind TUN", "10.0.0.1", True),
        ("ip_family inet", "10.0.0.1", False),
    ],
)
def test_the_ip_version_of_a_mark_is_declared_or_its_servers(family: str, server: str, ipv6: bool) -> None:
    service = only(f"virtual_server fwmark 9 {{\n{family}\nreal_server {server} {{\n}}\n}}\n")
    assert service.keys == (ServiceKey.of_mark(9, ipv6=ipv6),)


def test_a_mark_takes_every_protocol() -> None:
    result = compiled(f"virtual_server fwmark 9 {{\nprotocol UDP\nops\n{SERVER}}}\n")
    assert messages(result) == ["warning: a firewall mark's service takes every protocol: 'protocol' is ignored"]
    assert result.configuration.virtual_servers[0].one_packet


def test_a_check_without_a_port_behind_a_mark_is_reported() -> None:
    result = compiled("virtual_server fwmark 9 {\nreal_server 10.0.0.1 {\nTCP_CHECK {\n}\n}\n}\n")
    assert messages(result) == ["warning: TCP_CHECK has no port to connect to: it can never pass"]


@pytest.mark.parametrize(("first", "second", "both"), [("1", "2", True), ("1", "1", False)])
def test_a_mark_is_served_once(first: str, second: str, both: bool) -> None:
    text = f"virtual_server fwmark {first} {{\n{SERVER}}}\nvirtual_server fwmark {second} {{\n{SERVER}}}\n"
    assert len(compiled(text).configuration.virtual_servers) == 1 + both


# -- source addresses --------------------------------------------------------------------------------------------------


def test_a_pool_of_source_addresses_is_named_by_the_service() -> None:
    text = (
        "local_address_group L {\n192.0.2.7-8 eth0\n192.0.2.7\n}\n"
        f"virtual_server 192.0.2.1 80 {{\nprotocol TCP\nlb_kind FULLNAT\nladdr_group_name L\n{SERVER}}}\n"
    )
    result = compiled(text)
    assert messages(result) == [
        "warning: interface 'eth0' is ignored: the address is used where the node has it",
        "warning: 192.0.2.7:0 is listed twice: the second is left out",
    ]
    (service,) = result.configuration.virtual_servers
    assert service.local_addresses == ("192.0.2.7", "192.0.2.8")
    assert service.real_servers[0].forwarding is Forwarding.FULLNAT


def test_the_first_of_two_groups_with_one_name_is_used() -> None:
    result = compiled("virtual_server_group G {\n192.0.2.9 80\n}\n" + group("192.0.2.1 80"))
    assert messages(result) == ["error: virtual_server_group 'G' is there already: the first one counts"]
    assert result.configuration.virtual_servers[0].keys == (tcp("192.0.2.9"),)


@pytest.mark.parametrize("method", ["lb_kind TUN", "lvs_method TUN type ipip"])
def test_a_group_of_both_ip_versions_is_used_whole_where_every_server_is_reached_by_a_tunnel(method: str) -> None:
    text = group("192.0.2.1 80\n2001:db8::1 80").replace("protocol TCP\n", f"protocol TCP\n{method}\n")
    service = only(text)
    assert service.keys == (tcp("192.0.2.1"), tcp("2001:db8::1"))
    lengths = [desired.service.persistence_granularity for desired in PoolMachine(service, 0.0).desired()]
    assert lengths == [32, 128]


def test_one_server_without_a_tunnel_is_one_too_many_for_a_mixed_group() -> None:
    text = group("192.0.2.1 80\n2001:db8::1 80").replace(
        "protocol TCP\n", "protocol TCP\nlb_kind TUN\nsorry_server 192.0.2.9 80\n"
    )
    nat = text.replace("real_server", "real_server 192.0.2.8 80 {\nlvs_method NAT\n}\nreal_server", 1)
    assert len(only(text).keys) == 2
    assert any("mixes IP versions" in message for message in messages(compiled(nat)))
