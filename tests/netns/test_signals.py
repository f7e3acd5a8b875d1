"""keepalived's signals, which exporters and operators send."""

from __future__ import annotations

import os
import signal

import msgspec
import pytest

from relevo.lab.cluster import Cluster
from relevo.observe.snapshot import DirectorSnapshot, Snapshot
from tests.netns.conftest import wait_until

DUMPS = {
    signal.SIGUSR1: ("relevo.data.json", Snapshot),
    signal.SIGUSR2: ("relevo.stats.json", DirectorSnapshot),
    signal.SIGRTMIN + 2: ("relevo.json", Snapshot),
}


@pytest.mark.parametrize("number", DUMPS, ids=lambda n: f"signal-{int(n)}")
def test_a_signal_for_a_dump_writes_a_private_file_and_the_daemon_runs_on(cluster: Cluster, number: int) -> None:
    director = cluster.topology.directors[0]
    pid = cluster.snapshot(director).pid
    name, kind = DUMPS[number]
    file = cluster.run_dir(director) / name
    os.kill(pid, number)
    wait_until(file.exists, 10.0, f"{file.name} is written")
    assert file.stat().st_mode & 0o777 == 0o600
    assert msgspec.json.decode(file.read_bytes(), type=kind) is not None
    assert cluster.snapshot(director).pid == pid


def test_the_daemon_survives_the_signal_to_clear_statistics_and_signals_to_workers(cluster: Cluster) -> None:
    director = cluster.topology.directors[0]
    before = cluster.snapshot(director)
    os.kill(before.pid, signal.SIGRTMAX - 1)
    for worker in before.workers:
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN + 2, signal.SIGHUP):
            os.kill(worker.pid, number)
    wait_until(lambda: "counters only grow" in cluster.log_text(director), 10.0, "the log says that it does not clear")
    after = cluster.snapshot(director)
    assert [(w.role, w.pid) for w in after.workers] == [(w.role, w.pid) for w in before.workers]
