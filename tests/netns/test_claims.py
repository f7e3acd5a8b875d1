"""Another host of the LAN uses a virtual address: the master says who, and the neighbours come back to it."""

from __future__ import annotations

import socket
import subprocess

import pytest

from relevo.lab.client import Client
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Namespaces
from relevo.wire.arp import ETHERTYPE, gratuitous_arp
from tests.conftest import program
from tests.netns.conftest import build, run_all, state_of, wait_for_log, wait_until
from tests.netns.test_workers import web

pytestmark = [pytest.mark.slow, pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

ADDRESS = "192.168.6.240"
FORGED = bytes.fromhex("02c0ffee0001")


def neighbour(cluster: Cluster) -> str:
    """The hardware address that the client sends to."""
    with cluster.stage.inside(cluster.topology.client):
        shown = subprocess.run([program("ip"), "neigh", "show", ADDRESS], check=True, capture_output=True, text=True).stdout
    return shown.partition("lladdr ")[2].partition(" ")[0]


def test_a_forged_owner_is_named_and_does_not_keep_the_address() -> None:
    with build(Namespaces(), speed_up=20.0) as cluster:
        run_all(cluster)
        master, backup = cluster.topology.directors
        client = Client(cluster.stage, cluster.topology.client)
        wait_until(lambda: bool(client.who(web(cluster))), 10, "the service answers")
        owner = neighbour(cluster)
        with cluster.stage.inside(cluster.topology.servers[0]), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:

            def forged() -> bool:
                sock.sendto(gratuitous_arp(FORGED, ADDRESS), (cluster.topology.servers[0].interface, ETHERTYPE))
                return neighbour(cluster) == FORGED.hex(":")

            wait_until(forged, 10, "the client believes it")
        wait_for_log(cluster, master, f"(VI_1) {FORGED.hex(':')} uses {ADDRESS} too")
        wait_until(lambda: neighbour(cluster) == owner, 20, "the client sends to the master again")
        assert client.who(web(cluster))
        assert (state_of(cluster, master), state_of(cluster, backup)) == ("MASTER", "BACKUP")
        assert FORGED.hex(":") not in cluster.log_text(backup)
