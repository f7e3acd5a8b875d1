"""Hostile packets and failures of the machine: each is counted and shown by its reason, and has no other effect."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relevo.lab.stages import Namespaces
from relevo.lab.topology import Host
from tests.interop.pair import PASS, VIP, Pair
from tests.netns.conftest import build, on_proxy, state_of, wait_for_log, wait_until

pytestmark = [pytest.mark.namespaces, pytest.mark.slow, pytest.mark.usefixtures("namespaces")]


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair(("relevo", "relevo"), version=2, interval=1, more=PASS)
    yield pair
    pair.close()


def refusals(pair: Pair, node: int) -> dict[str, int]:
    snapshot = pair.cluster.snapshot(pair.nodes[node].host).director
    return {**snapshot.instances[0].refused, **snapshot.unknown_adverts}


def forge(pair: Pair, host: Host, **changes: object) -> None:
    """Send an advert made by scapy from ``host``, with wrong fields from ``changes``."""
    from scapy.layers.inet import IP
    from scapy.layers.vrrp import VRRP
    from scapy.packet import Raw, raw

    fields: dict[str, object] = {"version": 2, "vrid": 51, "priority": 254, "adv": 1, "authtype": 1, "addrlist": [VIP]}
    secret = int.from_bytes(b"example\0", "big")
    fields |= {"auth1": secret >> 32, "auth2": secret & 0xFFFFFFFF}
    ip = {"src": host.address, "dst": "224.0.0.18", "ttl": changes.pop("ttl", 255), "proto": 112}
    cut = changes.pop("cut", None)
    payload = raw(VRRP(**{**fields, **changes}))
    with pair.cluster.stage.inside(host), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host.address))
        sock.sendto(raw(IP(**ip) / Raw(payload[:cut])), ("224.0.0.18", 0))


FORGERIES = {
    "ttl": ({"ttl": 254}, "ttl"),
    "checksum": ({"chksum": 0x1234}, "checksum"),
    "version": ({"version": 7}, "version"),
    "type": ({"type": 3}, "type"),
    "virtual router": ({"vrid": 52}, "unknown_virtual_router"),
    "no authentication": ({"authtype": 0}, "authentication_type"),
    "wrong secret": ({"auth1": 0x41414141}, "authentication"),
    "interval": ({"adv": 5}, "interval"),
    "lying count": ({"ipcount": 9}, "length"),
    "truncated": ({"cut": 5}, "truncated"),
    "cut short": ({"cut": 14}, "length"),
}


def test_forged_adverts_are_refused_by_reason_and_change_nothing(pair: Pair) -> None:
    pytest.importorskip("scapy.layers.vrrp")
    for node in pair.nodes:
        pair.start(node)
    high, low = pair.nodes
    pair.wait_for_master(high, 12, low)
    for name, (changes, reason) in FORGERIES.items():
        before = refusals(pair, 0).get(reason, 0)
        forge(pair, pair.client, **changes)
        wait_until(lambda r=reason, b=before: refusals(pair, 0).get(r, 0) > b, 2.0, f"{name} is counted as {reason}")
        assert state_of(pair.cluster, high.host) == "MASTER", name
    wait_for_log(pair.cluster, high.host, "dropped: checksum; further ones are only counted")


def test_two_directors_of_equal_priority_elect_one_master_and_log_a_warning() -> None:
    pair = Pair(("relevo", "relevo"), version=3, interval=0.1)
    try:
        for node in pair.nodes:
            text = Path(node.conf).read_text().replace("priority 150", "priority 100")
            Path(node.conf).write_text(text)
            pair.start(node)
        lower_address, higher_address = pair.nodes
        pair.wait_for_master(higher_address, 5, lower_address) if pair.has_address(higher_address) else time.sleep(1.5)
        masters = [n for n in pair.nodes if state_of(pair.cluster, n.host) == "MASTER"]
        assert len(masters) == 1
        backup = next(n for n in pair.nodes if n not in masters)
        wait_for_log(pair.cluster, backup.host, "equal priority 100 advert received from")
    finally:
        pair.close()


def test_an_instance_waits_in_fault_for_a_missing_interface(pair: Pair) -> None:
    import pyroute2

    node = pair.nodes[0]
    text = Path(node.conf).read_text().replace("interface eth0", "interface late0")
    Path(node.conf).write_text(text)
    pair.start(node)
    wait_until(lambda: state_of(pair.cluster, node.host) == "FAULT", 2.0, "FAULT")
    faults = pair.cluster.snapshot(node.host).director.instances[0].faults
    assert any("late0" in fault for fault in faults)
    wait_for_log(pair.cluster, node.host, "interface late0 does not exist")
    with pair.cluster.stage.inside(node.host), pyroute2.IPRoute() as ip:
        ip.link("add", ifname="late0", kind="veth", peer={"ifname": "late1"})
        ip.link("set", index=ip.link_lookup(ifname="late1")[0], state="up")
        index = ip.link_lookup(ifname="late0")[0]
        ip.addr("add", index=index, address="192.168.7.1", prefixlen=24)
        ip.link("set", index=index, state="up")
    wait_until(lambda: state_of(pair.cluster, node.host) == "MASTER", 6.0, "MASTER on the new interface")


def test_an_interface_that_goes_down_is_a_fault_until_it_is_up_again(pair: Pair) -> None:
    for node in pair.nodes:
        pair.start(node)
    high, low = pair.nodes
    pair.wait_for_master(high, 12, low)
    pair.cluster.stage.set_link(high.host, False)
    wait_until(lambda: state_of(pair.cluster, high.host) == "FAULT", 2.0, "FAULT")
    assert not pair.has_address(high)
    pair.wait_for_master(low)
    pair.cluster.stage.set_link(high.host, True)
    pair.wait_for_master(high, 12, low)


def test_adverts_come_from_the_new_address_when_the_interface_gets_another(pair: Pair) -> None:
    import pyroute2

    node = pair.nodes[0]
    pair.start(node)
    pair.wait_for_master(node)
    with pair.cluster.stage.inside(node.host), pyroute2.IPRoute() as ip:
        index = ip.link_lookup(ifname="eth0")[0]
        ip.addr("del", index=index, address=node.host.address, prefixlen=24)
        ip.addr("add", index=index, address="192.168.6.77", prefixlen=24)

    def own_address() -> str:
        return pair.cluster.snapshot(node.host).director.instances[0].own_address

    wait_until(lambda: own_address() == "192.168.6.77", 3.0, "the new source")
    wait_until(lambda: state_of(pair.cluster, node.host) == "MASTER" and pair.has_address(node), 6.0, "still master")


def test_a_virtual_address_that_is_removed_is_added_again(pair: Pair) -> None:
    node = pair.nodes[0]
    pair.start(node)
    pair.wait_for_master(node)
    pair.clear(node)
    wait_until(lambda: pair.has_address(node), 2.0, "the address is back")
    wait_for_log(pair.cluster, node.host, "putting it back")


def test_a_service_whose_port_is_in_use_reports_it_and_recovers(tmp_path: Path) -> None:
    with build(Namespaces(), on_proxy(tmp_path)) as cluster:
        cluster.start_servers()
        master = cluster.topology.directors[0]
        with cluster.stage.inside(master):
            blocker = socket.socket()
        blocker.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
        blocker.bind(("192.168.6.240", 80))
        blocker.listen()
        cluster.start_director(master)

        def listening() -> str:
            services = cluster.snapshot(master).balancer.services
            return next(s.listening for s in services if s.port == 80)

        wait_until(lambda: "Address already in use" in listening(), 3.0, "status says why")
        wait_for_log(cluster, master, "cannot listen on 192.168.6.240:80: Address already in use")
        blocker.close()
        wait_until(lambda: listening() == "", 3.0, "it listens")
