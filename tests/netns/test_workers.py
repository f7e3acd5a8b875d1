"""A worker that dies moves no address, and only its own work is interrupted."""

from __future__ import annotations

import os
import signal
import time

import pytest

from relevo.lab.client import Client, Prober
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Namespaces
from relevo.model import Endpoint
from tests.netns.conftest import state_of, wait_until

pytestmark = pytest.mark.slow


def web(cluster: Cluster) -> Endpoint:
    changes = cluster.stage.changes(cluster.topology, cluster.topology.directors[0])
    return Endpoint(changes.address("192.168.6.240"), changes.port(80))


@pytest.mark.parametrize("role", ["director", "balancer", "proxy"])
def test_a_killed_worker_is_back_within_a_second(cluster: Cluster, role: str) -> None:
    master, backup = cluster.topology.directors
    if role == "proxy" and cluster.snapshot(master).balancer.plane != "proxy":
        pytest.skip("this plane has no process")
    former = cluster.worker_pid(master, role)
    prober = Prober(Client(cluster.stage, cluster.topology.client), web(cluster), 0.01)
    with prober.running() as watch:
        wait_until(lambda: len(watch.answers) > 0, 5.0, "the first answers")
        os.kill(former, signal.SIGKILL)
        took = wait_until(lambda: cluster.worker_pid(master, role) != former, 1.0, f"a new {role} worker")
        wait_until(lambda: all(w.answered for w in cluster.snapshot(master).workers), 1.0, "it answers")
        time.sleep(1.5)  # a request without an answer has failed by then
    assert state_of(cluster, master) == "MASTER"
    assert state_of(cluster, backup) == "BACKUP"
    assert cluster.snapshot(backup).director.instances[0].became_master == 0, "the backup took over meanwhile"
    assert watch.longest_gap_s() < 1.0, f"{role}: no answer for {watch.longest_gap_s():.2f} s"
    if role != "proxy":
        assert watch.failed == 0, f"{role}: {watch.failed} of {watch.sent} requests failed"
    assert "Traceback" not in cluster.log_text(master)
    assert took < 1.0


def test_the_address_stays_while_the_director_worker_is_replaced(cluster: Cluster) -> None:
    if not isinstance(cluster.stage, Namespaces):
        pytest.skip("a loopback address is everywhere")
    import pyroute2

    master = cluster.topology.directors[0]

    def set_at() -> list[int]:
        """When the kernel got the address, in hundredths of a second: it forgets that with the address."""
        with cluster.stage.inside(master), pyroute2.IPRoute() as ip:
            found = [m for m in ip.get_addr() if m.get_attr("IFA_LOCAL") == "192.168.6.240"]
        return [m.get_attr("IFA_CACHEINFO")["cstamp"] for m in found]

    before = set_at()
    assert len(before) == 1
    for _ in range(3):
        former = cluster.worker_pid(master, "director")
        os.kill(former, signal.SIGKILL)
        wait_until(lambda former=former: cluster.worker_pid(master, "director") != former, 1.0, "a new worker")
        wait_until(lambda: all(w.answered for w in cluster.snapshot(master).workers), 1.0, "it answers")
        wait_until(lambda: state_of(cluster, master) == "MASTER", 1.0, "master again")
    assert set_at() == before, "the address was removed for a moment"


def test_workers_end_with_a_killed_supervisor_and_the_peer_takes_over(cluster: Cluster) -> None:
    master, backup = cluster.topology.directors
    snapshot = cluster.snapshot(master)
    os.kill(snapshot.pid, signal.SIGKILL)
    wait_until(lambda: state_of(cluster, backup) == "MASTER", 6.0, "the backup takes over")
    workers = [w.pid for w in snapshot.workers]
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), 3.0, "the workers end")


def test_no_alert_is_sent_for_a_worker_that_is_replaced(cluster: Cluster) -> None:
    master = cluster.topology.directors[0]
    wait_until(lambda: len(cluster.inbox(master)) >= 2, 5.0, "the mails of the start")
    before = len(cluster.inbox(master))
    former = cluster.worker_pid(master, "director")
    os.kill(former, signal.SIGKILL)
    wait_until(lambda: cluster.worker_pid(master, "director") != former, 1.0, "a new worker")
    wait_until(lambda: all(w.answered for w in cluster.snapshot(master).workers), 1.0, "it answers")
    wait_until(lambda: state_of(cluster, master) == "MASTER", 1.0, "master again")
    time.sleep(1.0)  # for a mail that must not come
    assert len(cluster.inbox(master)) == before
