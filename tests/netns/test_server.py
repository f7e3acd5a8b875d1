"""``relevo server``: a server is drained under load, and no request fails."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from relevo.api import schema
from relevo.api.client import ask
from relevo.lab.client import Client, still_alive
from relevo.lab.cluster import Cluster
from relevo.lab.namespaces import index_of, netlink
from relevo.model import Endpoint, ServerMode
from tests.netns.conftest import wait_until

pytestmark = [pytest.mark.slow]

WEB = Endpoint("192.168.6.240", 80)
DRAINED = "192.168.6.5"


def say(cluster: Cluster, service: str, server: str, mode: ServerMode) -> None:
    ask(cluster.run_dir(cluster.topology.directors[0]), schema.Server(service, server, mode))


def weight_of(cluster: Cluster, address: str) -> int:
    """The weight of a server in the plane, which is the same in all its services here."""
    services = cluster.snapshot(cluster.topology.directors[0]).balancer.services
    return next(each.weight for service in services for each in service.servers if each.address == address)


def test_connections_to_a_server_that_drains_go_on_and_new_ones_go_elsewhere(cluster: Cluster) -> None:
    director = cluster.topology.directors[0]
    client = Client(cluster.stage, cluster.topology.client)
    services = cluster.snapshot(director).balancer.services
    service = next(each for each in services if len(each.servers) > 1 and str(each.port).endswith("80"))
    web, drained, before = Endpoint(service.address, service.port), service.servers[0].address, service.servers[0].weight
    wait_until(lambda: bool(client.who(web)), 15, "the service answers")
    held = client.hold(web, 8)
    assert sum(each.active for s in cluster.snapshot(director).balancer.services for each in s.servers if each.address == drained)
    say(cluster, str(web), drained, ServerMode.DRAIN)
    wait_until(lambda: weight_of(cluster, drained) == 0, 10, "the plane has weight 0")
    assert len({client.who(web, number) for number in range(12)}) == 1
    assert all(still_alive(sock, web) for sock in held)
    command = [sys.executable, "-m", "relevo", "server", "--run-dir", str(cluster.run_dir(director))]
    waiting = subprocess.Popen([*command, str(web), drained, "drain", "--wait"], stdout=subprocess.PIPE, text=True)
    assert waiting.poll() is None
    for sock in held:
        sock.close()
    out, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    assert out.splitlines()[-1] == "0 connections left"
    say(cluster, "all", drained, ServerMode.READY)
    wait_until(lambda: weight_of(cluster, drained) == before, 15, "it has its weight again")


@pytest.mark.namespaces
@pytest.mark.usefixtures("namespaces")
def test_under_load_no_request_fails(cluster: Cluster) -> None:
    wrk = shutil.which("wrk")
    if wrk is None:
        pytest.skip("wrk is not installed")
    if cluster.stage.name != "namespaces":
        pytest.skip("wrk has one address, which the loopback stage does not route")
    client = Client(cluster.stage, cluster.topology.client)
    wait_until(lambda: bool(client.who(WEB)), 15, "the service answers")
    with cluster.stage.inside(cluster.topology.client), netlink() as ip:  # answers to this address return by the director
        source = cluster.stage.client_address(0)
        ip.route("add", dst=f"{WEB.address}/32", oif=index_of(ip, "eth0"), prefsrc=source)
    with cluster.stage.inside(cluster.topology.client):
        argv = [wrk, "-t1", "-c20", "-d8s", "--header", "Connection: close", f"http://{WEB}/"]
        load = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    for _ in range(2):
        say(cluster, str(WEB), DRAINED, ServerMode.DRAIN)
        wait_until(lambda: weight_of(cluster, DRAINED) == 0, 10, "it drains")
        say(cluster, str(WEB), DRAINED, ServerMode.READY)
        wait_until(lambda: weight_of(cluster, DRAINED) != 0, 10, "it is ready")
    assert load.poll() is None, "wrk has ended before"
    out, _ = load.communicate(timeout=60)
    assert int(re.findall(r"(\d+) requests in", out)[0]) > 100, out
    assert "Non-2xx" not in out, out
    assert "Socket errors" not in out or ("connect 0" in out and "timeout 0" in out), out
