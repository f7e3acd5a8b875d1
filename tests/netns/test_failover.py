"""``relevo failover`` and ``relevo sync status`` on a running cluster."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relevo.lab.cluster import Cluster
from relevo.lab.topology import Host
from tests.netns.conftest import state_of, wait_for_state, wait_until

pytestmark = pytest.mark.slow


def relevo(cluster: Cluster, director: Host, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("relevo")), *words, "--run-dir", str(cluster.run_dir(director))]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)


def test_a_planned_hand_over_stays_until_it_is_taken_back(cluster: Cluster) -> None:
    master, backup = cluster.topology.directors
    done = relevo(cluster, master, "failover", "VI_1")
    assert (done.returncode, done.stdout) == (0, "VI_1 is handed over\n"), done.stderr
    assert state_of(cluster, backup) == "MASTER"
    assert state_of(cluster, master) == "BACKUP"
    assert cluster.snapshot(master).director.instances[0].reason.startswith("handed over to ")
    time.sleep(1.0)  # adverts of the lower priority arrive meanwhile
    assert state_of(cluster, master) == "BACKUP"
    again = relevo(cluster, master, "failover", "VI_1")
    assert (again.returncode, again.stderr) == (1, "relevo: VI_1 is not master here: ask the node that is\n")
    assert relevo(cluster, master, "failover", "--back", "VI_1").returncode == 0
    wait_for_state(cluster, master, "MASTER")
    wait_for_state(cluster, backup, "BACKUP")


def test_a_hand_over_without_another_node_changes_nothing(cluster: Cluster) -> None:
    master, backup = cluster.topology.directors
    cluster.stop_director(backup)
    done = relevo(cluster, master, "failover", "VI_1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "relevo: no other node took VI_1 over within 3 s: it is still master here\n"
    assert state_of(cluster, master) == "MASTER"
    assert cluster.snapshot(master).director.instances[0].became_master == 1
    unknown = relevo(cluster, master, "failover", "VI_9")
    assert unknown.stderr == "relevo: there is no vrrp_instance 'VI_9'; there is VI_1\n"


def test_sync_status_shows_the_role_of_each_director(cluster: Cluster) -> None:
    master, backup = cluster.topology.directors
    if cluster.snapshot(master).balancer.plane == "proxy":
        done = relevo(cluster, master, "sync", "status")
        assert done.returncode == 1
        assert "connections are not synchronised: the " in done.stderr
        return
    for director, role in ((master, "master"), (backup, "backup")):
        head = f"{role} on eth0, sync id 51, 224.0.0.81:8848\n"  # the role follows the director's state
        wait_until(lambda d=director, h=head: relevo(cluster, d, "sync", "status").stdout.startswith(h), 10.0, head)
    assert json.loads(relevo(cluster, backup, "sync", "status", "-j").stdout)["roles"] == ["backup"]
