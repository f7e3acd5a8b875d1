"""No mail is lost while the mail server is down, although the daemon restarts meanwhile."""

from __future__ import annotations

import os
import time
from email import message_from_string

import pytest

from relevo.lab.cluster import Cluster
from tests.netns.conftest import state_of, wait_for_log, wait_for_state, wait_until

pytestmark = pytest.mark.slow

AWAY_S = float(os.environ.get("RELEVO_TEST_MAIL_AWAY_S", "6"))
"""How long the mail server is down; 60 for a long test."""


def subjects(cluster: Cluster, name: int) -> list[str]:
    records = cluster.inbox(cluster.topology.directors[name])
    return [message_from_string(record["text"])["Subject"].partition("] ")[2] for record in records]


def test_mails_survive_a_dead_mail_server_and_a_restart(cluster: Cluster) -> None:
    master = cluster.topology.directors[0]
    inbox = next(s for s in master.services if s.kind == "inbox")
    wait_until(lambda: cluster.snapshot(master).mail.delivered == 2, 5.0, "the mails of the start are delivered")
    cluster.stop_service(master, inbox)
    begun = time.monotonic()
    web = next(h for h in cluster.topology.servers if h.name == "web-4")
    cluster.stop_service(web, web.services[0])
    wait_for_log(cluster, master, "Removing service")
    cluster.stop_director(master)
    assert state_of(cluster, cluster.topology.directors[1])
    cluster.start_director(master)
    wait_for_state(cluster, master, "MASTER")
    time.sleep(max(0.0, AWAY_S - (time.monotonic() - begun)))
    assert len(subjects(cluster, 0)) == 2, "the mail server was down"
    cluster.start_service(master, inbox)
    expected = [
        "VRRP Instance VI_1 - Entering BACKUP state",
        "VRRP Instance VI_1 - Entering MASTER state",
        *["- DOWN"],
        "VRRP Instance VI_1 - Stopping",
        "VRRP Instance VI_1 - Entering BACKUP state",
        "VRRP Instance VI_1 - Entering MASTER state",
        *["- DOWN"],
    ]
    wait_until(lambda: len(subjects(cluster, 0)) >= len(expected), 70.0, "every mail arrives")
    time.sleep(0.5)
    got = subjects(cluster, 0)
    vrrp = [s for s in got if s.startswith("VRRP")]
    assert vrrp == [s for s in expected if s.startswith("VRRP")], got
    down = [s for s in got if s.endswith("- DOWN")]
    assert len(down) == 2, got
    assert got.index(down[0]) == 2, got
    ids = [message_from_string(r["text"])["Message-ID"] for r in cluster.inbox(master)]
    assert len(set(ids)) == len(ids) == len(expected), "a mail came twice"
