"""A reload changes what the file changes, and a bad file changes nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relevo.lab.cluster import Cluster
from relevo.observe.snapshot import ServiceSnapshot
from tests.netns.conftest import state_of, wait_for_log, wait_until

pytestmark = pytest.mark.slow


def file_of(cluster: Cluster) -> Path:
    return Path(cluster.snapshot(cluster.topology.directors[0]).file)


def reload(cluster: Cluster, edit: Callable[[str], str]) -> None:
    master = cluster.topology.directors[0]
    file = file_of(cluster)
    file.write_text(edit(file.read_text()))
    lines = cluster.log_text(master).count("eload")
    os.kill(cluster.snapshot(master).pid, signal.SIGHUP)
    wait_until(lambda: cluster.log_text(master).count("eload") > lines, 3.0, "the reload is logged")


def web(cluster: Cluster) -> ServiceSnapshot:
    services = cluster.snapshot(cluster.topology.directors[0]).balancer.services
    return next(s for s in services if s.port in (80, 8080))


def test_a_file_with_the_same_meaning_changes_nothing(cluster: Cluster) -> None:
    master, backup = cluster.topology.directors
    before = cluster.snapshot(master)
    reload(cluster, lambda text: text + "\n# a comment\n")
    after = cluster.snapshot(master)
    assert [w.pid for w in after.workers] == [w.pid for w in before.workers]
    assert after.director.instances[0].since_at == before.director.instances[0].since_at
    assert after.director.instances[0].became_master == 1
    assert cluster.snapshot(backup).director.instances[0].became_master == 0
    assert after.reloaded_at > before.reloaded_at


@pytest.mark.parametrize(
    "edit",
    [lambda text: text.replace("lb_algo wrr", "lb_algo"), lambda text: "", lambda text: "\0\1\2\3" * 100],
    ids=["missing argument", "empty", "not text"],
)
def test_a_bad_file_is_refused_with_a_log_line_and_changes_nothing(cluster: Cluster, edit: Callable[[str], str]) -> None:
    master = cluster.topology.directors[0]
    servers = len(web(cluster).servers)
    reload(cluster, edit)
    after = cluster.snapshot(master)
    assert after.reload_error
    wait_for_log(cluster, master, "reload refused, nothing changed")
    assert len(web(cluster).servers) == servers
    assert state_of(cluster, master) == "MASTER"


def test_a_weight_reaches_the_plane_and_a_removed_server_leaves(cluster: Cluster) -> None:
    wait_until(lambda: all(s.in_plane for s in web(cluster).servers), 5.0, "the table is filled")
    reload(cluster, lambda text: text.replace("weight 2", "weight 7", 1))
    wait_until(lambda: 7 in [s.weight for s in web(cluster).servers], 2.0, "the new weight")

    def drop_second(text: str) -> str:
        head, _, tail = text.partition("real_server")
        first, _, rest = tail.partition("real_server")
        return head + "real_server" + first + rest[rest.index("}\n") + 2 :].partition("}\n")[2]

    reload(cluster, drop_second)
    wait_until(lambda: len(web(cluster).servers) == 1, 2.0, "one server is left")


def test_an_address_can_be_added_while_master(cluster: Cluster) -> None:
    master, backup = cluster.topology.directors
    reload(
        cluster,
        lambda text: text.replace(
            "virtual_ipaddress {",
            "virtual_ipaddress {\n        192.168.6.241" if "192.168" in text else "virtual_ipaddress {\n        127.0.6.241",
        ),
    )
    wait_until(lambda: len(cluster.snapshot(master).director.instances[0].addresses) == 2, 2.0, "two addresses")
    assert state_of(cluster, master) == "MASTER"
    assert cluster.snapshot(backup).director.instances[0].became_master == 0
    if cluster.stage.name == "namespaces":
        wait_for_log(cluster, master, "reload: add address 192.168.6.241/32 dev eth0")
        import pyroute2

        with cluster.stage.inside(master), pyroute2.IPRoute() as ip:
            present = {m.get_attr("IFA_LOCAL") for m in ip.get_addr()}
        assert {"192.168.6.240", "192.168.6.241"} <= present


def test_a_file_can_say_when_to_reload_and_another_shows_that_the_configuration_is_read(cluster: Cluster, tmp_path: Path) -> None:
    master = cluster.topology.directors[0]
    times, marker = tmp_path / "at", tmp_path / "reading"
    settings = f"global_defs {{\n    reload_time_file {times}\n    reload_file {marker}\n"
    reload(cluster, lambda text: text.replace("global_defs {\n", settings, 1))
    file = file_of(cluster)
    file.write_text(file.read_text().replace("weight 2", "weight 6", 1))
    marker.write_text("to be read")
    times.write_text(time.strftime("%Y-%m-%d %H:%M:%SZ\n", time.gmtime(time.time() + 2)))
    wait_for_log(cluster, master, "Scheduling reload for")
    wait_until(lambda: 6 in [s.weight for s in web(cluster).servers], 20.0, "the new weight")
    wait_until(lambda: not marker.exists() and not times.exists(), 5.0, "both files are removed")
