"""Sync groups with real daemons: two virtual routers change state together."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from relevo.config import compile_text
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Loopback
from relevo.lab.topology import Host, Topology
from tests.netns.conftest import wait_for_log, wait_until

pytestmark = pytest.mark.slow

CONF = """
vrrp_sync_group G {{
    group {{ OUTSIDE INSIDE }}
}}
vrrp_instance OUTSIDE {{
    interface lo
    vrrp_transport udp 3113
    unicast_src_ip {own}
    unicast_peer {{ {peer} }}
    version 3
    advert_int 0.1
    virtual_router_id 1
    priority {priority}
    track_interface {{ {tracked} }}
    virtual_ipaddress {{ 127.0.6.241 }}
}}
vrrp_instance INSIDE {{
    interface lo
    vrrp_transport udp 3113
    unicast_src_ip {own}
    unicast_peer {{ {peer} }}
    version 3
    advert_int 0.1
    virtual_router_id 2
    priority {priority}
    virtual_ipaddress {{ 127.0.6.242 }}
}}
"""


def states(cluster: Cluster, host: Host) -> set[str]:
    director = cluster.snapshot(host).director
    return {i.state for i in director.instances} | {g.state for g in director.groups}


def make(tracked: str) -> Cluster:
    hosts = [Host("director-1", "127.0.6.251"), Host("director-2", "127.0.6.252")]
    cluster = Cluster(Topology(IPv4Network("127.0.6.0/24"), hosts, [], Host("client", "127.0.6.250")), Loopback("as asked"))
    for host, peer, priority, track in zip(hosts, reversed(hosts), (150, 100), (tracked, "lo"), strict=True):
        text = CONF.format(own=host.address, peer=peer.address, priority=priority, tracked=track)
        host.file = str(cluster.folder / f"{host.name}.in")
        Path(host.file).write_text(text)
        host.configuration = compile_text(text, host.file).configuration
    # the file already uses UDP between loopback addresses, so it runs unchanged
    cluster.stage.changes = lambda topology, director: type(original(topology, director))()  # type: ignore[method-assign]
    original = Loopback.changes.__get__(cluster.stage)
    return cluster


def test_members_share_a_socket_and_change_state_together() -> None:
    with make("lo") as cluster:
        high, low = cluster.topology.directors
        cluster.start_director(low)
        wait_until(lambda: states(cluster, low) == {"MASTER"}, 5.0, "all of the group is MASTER")
        cluster.start_director(high)
        wait_until(lambda: states(cluster, high) == {"MASTER"}, 5.0, "the higher group takes over")
        wait_until(lambda: states(cluster, low) == {"BACKUP"}, 5.0, "the lower group becomes backup")
        cluster.stop_director(high)
        wait_until(lambda: states(cluster, low) == {"MASTER"}, 5.0, "the lower group takes over again")
        wait_for_log(cluster, low, "VRRP_Group(G) Syncing instances to MASTER state")


def test_the_fault_of_one_member_is_the_fault_of_all() -> None:
    with make("nowhere0") as cluster:
        high, low = cluster.topology.directors
        cluster.start_director(high)
        wait_until(lambda: states(cluster, high) == {"FAULT"}, 5.0, "all of the group is in FAULT")
        cluster.start_director(low)
        wait_until(lambda: states(cluster, low) == {"MASTER"}, 5.0, "the other group is MASTER")
