"""The example configurations have no errors, and active-active works as its comment says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from relevo.config import compile_text
from relevo.lab.client import Client
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Stage
from relevo.lab.topology import Host
from relevo.model import Endpoint
from tests.netns.conftest import build, wait_until

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.rglob("*.conf"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_every_example_has_no_worse_than_warnings(file: Path) -> None:
    found = compile_text(file.read_text(), file.name).findings
    assert {f.severity.value for f in found} <= {"note", "warning"}


def states(cluster: Cluster, director: Host) -> dict[str, str]:
    return {i.name: i.state for i in cluster.snapshot(director).director.instances}


def test_two_active_directors_each_have_an_address_and_one_takes_over_both(stage: Stage) -> None:
    files = tuple(str(EXAMPLES / "active-active" / f"director-{n}.conf") for n in (1, 2))
    with build(stage, files, speed_up=1.0) as cluster:
        one, two = cluster.topology.directors
        cluster.start_servers()
        cluster.start_director(one)
        cluster.start_director(two)
        wait_until(lambda: states(cluster, one) == {"WEB_1": "MASTER", "WEB_2": "BACKUP"}, 5.0, "the first has one address")
        wait_until(lambda: states(cluster, two) == {"WEB_1": "BACKUP", "WEB_2": "MASTER"}, 5.0, "the second has the other")
        changes = cluster.stage.changes(cluster.topology, one)
        addresses = [Endpoint(changes.address(f"192.168.6.{n}"), changes.port(80)) for n in (241, 242)]
        client = Client(cluster.stage, cluster.topology.client)
        wait_until(lambda: all(client.who(a) for a in addresses), 10.0, "both addresses answer")
        cluster.crash_director(two)
        wait_until(lambda: set(states(cluster, one).values()) == {"MASTER"}, 5.0, "the first has both")
        time.sleep(0.2)
        wait_until(lambda: all(client.who(a) for a in addresses), 10.0, "both addresses answer again")
