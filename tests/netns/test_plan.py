"""A hundred reloads under load: each does what its plan says, and what stays in the file notices nothing.

The traffic goes to a service and to servers that every version of the file has. Other servers, services, addresses, instances
and scripts come, go and change.
"""

from __future__ import annotations

import random
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relevo.api import schema
from relevo.api.client import ask
from relevo.lab.cluster import Cluster
from relevo.lab.namespaces import netlink
from relevo.lab.topology import Host
from relevo.model.plan import Do
from tests.netns.conftest import build, run_all, wait_until

pytestmark = pytest.mark.slow

RELOADS = 100
VIP = "192.168.6.240"
LONG_S = 240
"""Longest run of the load; the test ends it before."""

HEAD = """
global_defs {{
    router_id {name}
    {plane}
    script_user root
    enable_script_security
}}
"""
INSTANCE = """
vrrp_instance {name} {{
    state {state}
    interface eth0
    virtual_router_id {number}
    priority {priority}
    advert_int {advert}
    virtual_ipaddress {{
        {addresses}
    }}
    {more}
}}
"""
SERVICE = """
virtual_server {vip} {port} {{
    lb_algo {scheduler}
    lb_kind NAT
    protocol TCP
    delay_loop {delay}
    {servers}
}}
"""


def instance(name: str, number: int, state: str, addresses: list[str], priority: int, advert: float = 1, more: str = "") -> str:
    listed = "\n        ".join(addresses)
    return INSTANCE.format(name=name, number=number, state=state, addresses=listed, priority=priority, advert=advert, more=more)


def service(vip: str, port: int, scheduler: str, servers: list[tuple[str, int]], delay: int = 5) -> str:
    listed = "\n    ".join(f"real_server {ip} 80 {{\n weight {weight}\n TCP_CHECK {{\n }}\n }}" for ip, weight in servers)
    return SERVICE.format(vip=vip, port=port, scheduler=scheduler, servers=listed, delay=delay)


def everything(plane: str, state: str, priority: int) -> str:
    """A file with everything that a version can have, so that the lab makes all of its machines."""
    parts = [HEAD.format(name=f"N{priority}", plane=plane), instance("VI_1", 51, state, [VIP], priority)]
    parts.append(service(VIP, 80, "wrr", [("192.168.6.4", 1), ("192.168.6.5", 1)]))
    parts.append(service(VIP, 81, "rr", [(f"192.168.6.{n}", 1) for n in range(6, 10)]))
    return "".join(parts)


def version(draw: random.Random, plane: str) -> str:
    """A random version of the master's file: the load's service and its servers are in all of them."""
    parts = [HEAD.format(name=draw.choice(("N1", "N2")), plane=plane)]
    scripts = [name for name in ("one", "two") if draw.random() < 0.5]
    for name in scripts:
        parts.append(
            f"vrrp_script {name} {{\n script /bin/true\n interval {draw.choice((1, 2))}\n weight {draw.choice((0, 5))}\n}}\n"
        )
    track = "track_script {\n " + "\n ".join(scripts) + "\n }" if scripts else ""
    extra = [f"192.168.6.{n}" for n in (241, 242, 243) if draw.random() < 0.5]
    parts.append(instance("VI_1", 51, "MASTER", [VIP, *extra], draw.choice((150, 151)), 1, track))
    if draw.random() < 0.5:
        addresses = [f"192.168.6.{n}" for n in (245, 246) if draw.random() < 0.7] or ["192.168.6.247"]
        parts.append(instance("VI_2", 52, "BACKUP", addresses, draw.choice((90, 91)), draw.choice((1, 2))))
    weights = [("192.168.6.4", draw.choice((1, 2, 3))), ("192.168.6.5", draw.choice((1, 2, 3)))]
    parts.append(service(VIP, 80, draw.choice(("wrr", "wlc", "rr")), weights, draw.choice((5, 6))))
    for port in (81, 82):
        servers = [(f"192.168.6.{n}", draw.choice((1, 2))) for n in range(6, 10) if draw.random() < 0.6]
        if servers:
            parts.append(service(VIP, port, draw.choice(("rr", "mh", "sh")), servers))
    return "".join(parts)


@pytest.fixture(params=["", "data_plane proxy"], ids=["packets", "proxy"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, namespaces: None) -> Iterator[Cluster]:
    from relevo.lab.stages import Namespaces

    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    files = []
    for name, state, priority in (("master", "MASTER", 150), ("backup", "BACKUP", 100)):
        file = tmp_path / f"{name}.conf"
        file.write_text(everything(request.param, state, priority))
        files.append(str(file))
    with build(Namespaces(), (files[0], files[1]), speed_up=1.0) as cluster:
        yield run_all(cluster)


class Transfer(threading.Thread):
    """One connection through the service that stays, on which requests follow one another until it is told to end."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        with cluster.stage.inside(cluster.topology.client):
            self._socket = socket.create_connection((VIP, 80), 5.0)
        self._socket.settimeout(5.0)
        self.ending = threading.Event()
        self.answers = 0
        self.problem = ""

    def run(self) -> None:
        try:
            while not self.ending.is_set():
                self._socket.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
                if b"200 OK" not in self._socket.recv(65536):
                    self.problem = "no answer"
                    return
                self.answers += 1
                self.ending.wait(0.01)
        except OSError as error:
            self.problem = str(error)


def come_from_outside(cluster: Cluster) -> None:
    """Let the client ask from an address beyond the LAN: a server on it would answer directly, past the director."""
    client = cluster.topology.client
    with cluster.stage.inside(client):
        argv = ["ip", "route", "replace", f"{VIP}/32", "dev", client.interface, "src", cluster.stage.client_address(7)]
        subprocess.run(argv, check=True)


def addresses_of(cluster: Cluster, director: Host) -> set[str]:
    with cluster.stage.inside(director), netlink() as ip:
        return {str(each.get_attr("IFA_ADDRESS")) for each in ip.get_addr(family=socket.AF_INET)}


def table_of(run_dir: Path) -> dict[str, dict[str, int]]:
    view = ask(run_dir, schema.Table()).table
    assert view is not None
    return {str(s.service.key): {str(each.server.endpoint): each.server.weight for each in s.servers} for s in view.services}


def names(steps: list[schema.Step], do: Do) -> set[str]:
    return {step.name for step in steps if step.do is do}


def server_names(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]], word: str) -> set[str]:
    return {f"{server} {word} {key}" for key in after for server in after[key] if server not in before.get(key, {})}


def test_a_hundred_reloads_do_what_their_plans_say_and_disturb_nothing_that_stays(pair: Cluster) -> None:
    master, backup = pair.topology.directors
    file, run_dir = Path(pair.snapshot(master).file), pair.run_dir(master)
    plane = "data_plane proxy" if "data_plane proxy" in file.read_text() else ""
    wait_until(lambda: len(table_of(run_dir).get(f"TCP {VIP}:80", {})) == 2, 10.0, "the table is filled")
    come_from_outside(pair)
    log = pair.folder / "wrk.log"
    argv = [
        str(shutil.which("wrk")),
        "-t1",
        "-c8",
        f"-d{LONG_S}",
        "--timeout",
        "5",
        "-H",
        "Connection: close",
        f"http://{VIP}:80/",
    ]
    pair.run_in(pair.topology.client, "wrk", argv, log)
    transfer = Transfer(pair)
    transfer.start()
    draw = random.Random(20261130)
    done = 0
    for _ in range(RELOADS):
        file.write_text(version(draw, plane))
        addresses, table = addresses_of(pair, master), table_of(run_dir)
        planned = ask(run_dir, schema.Plan())
        assert not planned.refused and not planned.problems
        reloaded = ask(run_dir, schema.Reload())
        assert not reloaded.problems
        assert reloaded.steps == planned.steps
        done += len(reloaded.steps)
        after = addresses_of(pair, master)
        changed = {f"{each}/32 dev eth0" for each in after - addresses}, {f"{each}/32 dev eth0" for each in addresses - after}
        assert (names(planned.steps, Do.ADD_ADDRESS), names(planned.steps, Do.REMOVE_ADDRESS)) == changed
        present = table_of(run_dir)
        assert names(planned.steps, Do.ADD_SERVER) == server_names(table, present, "to")
        gone = {key: servers for key, servers in table.items() if key in present}  # the others go with their service
        assert names(planned.steps, Do.DELETE_SERVER) == server_names(present, gone, "of")
        assert names(planned.steps, Do.DELETE_SERVICE) == set(table) - set(present)
    transfer.ending.set()
    transfer.join()
    pair.end("wrk", 2)  # SIGINT: it prints its results
    assert transfer.problem == ""
    assert transfer.answers > RELOADS
    said = log.read_text()
    assert " requests in " in said, f"wrk says: {said!r}"
    assert int(re.findall(r"(\d+) requests in", said)[0]) > RELOADS
    assert "Socket errors" not in said and "Non-2xx" not in said, said
    snapshot = pair.snapshot(master)
    assert next(each for each in snapshot.director.instances if each.name == "VI_1").became_master == 1
    assert pair.snapshot(backup).director.instances[0].became_master == 0
    assert done > RELOADS
