"""A worker that dies moves no address, and only its own work is interrupted."""

from __future__ import annotations

import os
import signal

import pytest

from relevo.lab.client import Client, Prober
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Namespaces
from relevo.model import Endpoint
from tests.netns.conftest import state_of, wait_until

pytestmark = pytest.mark.slow

LIMIT_S = 15.0
"""Of what takes a tenth of a second: the machine may be busy. That no time was lost shows in what the backup and clients saw."""

FAILOVER_S = 3.0
"""Three adverts: a backup would have taken over by then."""


def web(cluster: Cluster) -> Endpoint:
    changes = cluster.stage.changes(cluster.topology, cluster.topology.directors[0])
    return Endpoint(changes.address("192.168.6.240"), changes.port(80))


@pytest.mark.parametrize("role", ["director", "balancer", "proxy"])
def test_a_killed_worker_is_replaced_before_the_peer_or_a_client_notices(cluster: Cluster, role: str) -> None:
    master, backup = cluster.topology.directors
    if role == "proxy" and cluster.snapshot(master).balancer.plane != "proxy":
        pytest.skip("this plane has no process")
    former = cluster.worker_pid(master, role)
    prober = Prober(Client(cluster.stage, cluster.topology.client), web(cluster), 0.01, timeout_s=FAILOVER_S)
    with prober.running() as watch:
        wait_until(lambda: len(watch.answers) > 0, LIMIT_S, "the first answers")
        os.kill(former, signal.SIGKILL)
        wait_until(lambda: cluster.worker_pid(master, role) != former, LIMIT_S, f"a new {role} worker")
        wait_until(lambda: all(w.answered for w in cluster.snapshot(master).workers), LIMIT_S, "it answers")
        sent = watch.sent
        wait_until(lambda: watch.sent >= sent + 50, LIMIT_S, "requests go on")
    assert state_of(cluster, master) == "MASTER"
    assert state_of(cluster, backup) == "BACKUP"
    assert cluster.snapshot(backup).director.instances[0].became_master == 0, "the backup took over meanwhile"
    assert watch.longest_gap_s() < FAILOVER_S, f"{role}: no answer for {watch.longest_gap_s():.2f} s"
    if role != "proxy":
        assert watch.failed == 0, f"{role}: {watch.failed} of {watch.sent} requests failed"
    assert "Traceback" not in cluster.log_text(master)


def test_the_address_stays_while_the_director_worker_is_replaced(cluster: Cluster) -> None:
    if not isinstance(cluster.stage, Namespaces):
        pytest.skip("a loopback address is everywhere")
    import pyroute2

    master = cluster.topology.directors[0]
    for _ in range(3):
        former = cluster.worker_pid(master, "director")
        os.kill(former, signal.SIGKILL)
        wait_until(lambda former=former: cluster.worker_pid(master, "director") != former, LIMIT_S, "a new worker")
        wait_until(lambda: all(w.answered for w in cluster.snapshot(master).workers), LIMIT_S, "it answers")
        wait_until(lambda: state_of(cluster, master) == "MASTER", LIMIT_S, "master again")
    with cluster.stage.inside(master), pyroute2.IPRoute() as ip:
        assert "192.168.6.240" in {m.get_attr("IFA_LOCAL") for m in ip.get_addr()}


def test_workers_end_with_a_killed_supervisor_and_the_peer_takes_over(cluster: Cluster) -> None:
    master, backup = cluster.topology.directors
    snapshot = cluster.snapshot(master)
    os.kill(snapshot.pid, signal.SIGKILL)
    wait_until(lambda: state_of(cluster, backup) == "MASTER", LIMIT_S, "the backup takes over")
    workers = [w.pid for w in snapshot.workers]
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), LIMIT_S, "the workers end")


def test_no_alert_is_sent_for_a_worker_that_is_replaced(cluster: Cluster) -> None:
    master = cluster.topology.directors[0]
    wait_until(lambda: len(cluster.inbox(master)) >= 2, LIMIT_S, "the mails of the start")
    before = len(cluster.inbox(master))
    former = cluster.worker_pid(master, "director")
    os.kill(former, signal.SIGKILL)
    wait_until(lambda: cluster.worker_pid(master, "director") != former, LIMIT_S, "a new worker")
    wait_until(lambda: all(w.answered for w in cluster.snapshot(master).workers), LIMIT_S, "it answers")
    wait_until(lambda: state_of(cluster, master) == "MASTER", LIMIT_S, "master again")
    assert len(cluster.inbox(master)) == before
