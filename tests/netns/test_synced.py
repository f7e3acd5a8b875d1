"""Directors that share a key: hand-over without loss, preemption that waits for connections, refused messages."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relevo.api import schema
from relevo.api.client import ask
from relevo.lab.client import Client, still_alive
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Namespaces
from relevo.lab.topology import Host
from relevo.model import Endpoint
from relevo.model.table import SyncState
from relevo.planes import ebpf
from relevo.wire import ipvs_sync
from relevo.wire.sync_messages import Message, ResyncRequest, authenticate
from tests.netns.conftest import FILES, build, run_all, state_of, wait_for_log, wait_for_state, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

WEB = Endpoint("192.168.6.240", 80)
HELD = 200
LIMIT_S = 6
KEY = "a key of thirty-two bytes or so."


def files(folder: Path, keys: tuple[str, str], *, unicast: bool) -> tuple[str, ...]:
    """Write the article's files for the ebpf plane, with a key each and ``preempt_when_synced``."""
    written = []
    for file, key, other in zip(map(Path, FILES), keys, ("192.168.6.250", "192.168.6.251"), strict=True):
        secret = folder / f"{file.stem}.key"
        secret.write_text(key)
        secret.chmod(0o600)
        peer = f" peer {other}" if unicast else ""
        head = f"global_defs {{\n    data_plane ebpf\n    lvs_sync_daemon eth0 VI_1{peer}\n    lvs_sync_key file:{secret}"
        text = file.read_text().replace("    lvs_sync_daemon_inteface eth0\n", f"    preempt_when_synced {LIMIT_S}\n")
        changed = folder / file.name
        changed.write_text(text.replace("global_defs {", head, 1))
        written.append(str(changed))
    return tuple(written)


def sync(cluster: Cluster, director: Host) -> SyncState:
    state = ask(cluster.run_dir(director), schema.Sync(), 10.0).state
    assert state is not None
    return state


def relevo(cluster: Cluster, director: Host, *words: str) -> None:
    command = [sys.executable, "-m", "relevo", *words, "--run-dir", str(cluster.run_dir(director))]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def make(folder: Path, keys: tuple[str, str] = (KEY, KEY), *, unicast: bool = False) -> Cluster:
    if ebpf.unavailable_reason():
        pytest.skip(f"ebpf: {ebpf.unavailable_reason()}")
    return build(Namespaces(), files(folder, keys, unicast=unicast), speed_up=1.0)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with make(tmp_path) as made:
        yield run_all(made)


def hold(cluster: Cluster) -> list[socket.socket]:
    """Open connections of the client once the service answers: right after a takeover it may not."""
    client = Client(cluster.stage, cluster.topology.client)
    wait_until(lambda: bool(client.who(WEB)), 10, "the service answers")
    held = client.hold(WEB, HELD)
    assert len(held) == HELD
    return held


@pytest.mark.parametrize("unicast", [False, True], ids=["multicast", "unicast"])
def test_a_planned_hand_over_loses_nothing(unicast: bool, tmp_path: Path) -> None:
    with make(tmp_path, unicast=unicast) as cluster:
        run_all(cluster)
        first, second = cluster.topology.directors
        held = hold(cluster)
        relevo(cluster, first, "failover", "VI_1")
        assert state_of(cluster, second) == "MASTER"
        state = sync(cluster, second)
        assert state.received is not None and state.received >= HELD
        assert not state.refused
        assert [still_alive(sock, WEB) for sock in held] == [True] * HELD


def test_a_master_of_higher_priority_takes_over_when_it_is_in_sync(cluster: Cluster) -> None:
    first, second = cluster.topology.directors
    cluster.stop_director(first)
    wait_for_state(cluster, second, "MASTER")
    held = hold(cluster)
    cluster.start_director(first)
    wait_for_state(cluster, first, "MASTER", 20.0)
    log = cluster.log_text(first).rpartition("Starting Relevo")[2]
    before, complete, _ = log.partition("every connection of the master is here")
    assert complete and "Entering MASTER STATE" not in before
    assert [still_alive(sock, WEB) for sock in held] == [True] * HELD


def test_a_director_with_another_key_is_refused_and_preemption_waits_no_longer_than_the_limit(tmp_path: Path) -> None:
    with make(tmp_path, (KEY, KEY[::-1])) as cluster:
        run_all(cluster)
        first, second = cluster.topology.directors
        wait_until(lambda: sync(cluster, second).refused.get("bad_tag", 0) > 1, 10, "messages under the other key are counted")
        assert sync(cluster, second).in_sync is False
        cluster.stop_director(first)
        wait_for_state(cluster, second, "MASTER")
        begun = time.monotonic()
        cluster.start_director(first)
        wait_for_state(cluster, first, "MASTER", 20.0)
        assert time.monotonic() - begun > LIMIT_S - 1
        wait_for_log(cluster, first, "waits for the connections of 192.168.6.250, at most 6 secs")


def test_unauthenticated_messages_make_no_connection(cluster: Cluster) -> None:
    """Messages of the kernel's protocol, of another key, and malformed ones are refused."""
    _, second = cluster.topology.directors
    wait_until(lambda: sync(cluster, second).in_sync is True, 10, "the backup is in sync")
    plain = ipvs_sync.encode(
        ipvs_sync.Entry(
            protocol=6, client=bytes((10, 77, 0, 9)), client_port=9, virtual=bytes((192, 168, 6, 240)), virtual_port=80,
            server=bytes((192, 168, 6, 4)), server_port=80, state=1, seconds=900,
        )
    )  # fmt: skip
    (message,) = ipvs_sync.assemble(51, [plain])
    forged = authenticate(Message(b"attacker", 51, 1, ResyncRequest(b"director")), b"guessed, and wrong of course")
    (server,) = [host for host in cluster.topology.hosts() if host.address == "192.168.6.4"]
    with cluster.stage.inside(server):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(server.address))
        for datagram in (message, forged, forged[:40], b"", b"RLV1"):
            sock.sendto(datagram, (ipvs_sync.GROUP, ipvs_sync.PORT))
    wait_until(
        lambda: sync(cluster, second).refused == {"unauthenticated": 3, "bad_tag": 2}, 5, "all messages are counted by reason"
    )
    assert sync(cluster, second).received == 0
    assert sync(cluster, second).in_sync is True
