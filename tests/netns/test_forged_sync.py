"""Forged synchronisation without a key: a host of the LAN fills the backup's table, and then the master dies.

``RELEVO_TABLE`` is the size of the table (8 192, for a short test) and ``RELEVO_CLIENTS`` the number of new clients (200).
"""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from relevo.lab.client import Client, still_alive
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Namespaces
from relevo.planes import ebpf
from relevo.planes.ebpf.layout import TcpState
from relevo.wire import ipvs_sync
from tests.netns.conftest import FILES, build, run_all, state_of, wait_for_state, wait_until
from tests.netns.test_synced import WEB, sync

pytestmark = [pytest.mark.slow, pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

TABLE = int(os.environ.get("RELEVO_TABLE", "8192"))
CLIENTS = int(os.environ.get("RELEVO_CLIENTS", "200"))
HELD = 50
BURST = max(2000, TABLE // 32)
"""Entries that are forged before the backup is asked whether it has room for more."""
SYNC_ID = 51
"""The article's virtual router."""


def without_key(folder: Path) -> tuple[str, ...]:
    written = []
    for file in map(Path, FILES):
        head = f"global_defs {{\n    data_plane ebpf\n    connection_table_size {TABLE}\n    lvs_sync_daemon eth0 VI_1"
        text = file.read_text().replace("    lvs_sync_daemon_inteface eth0\n", "")
        (folder / file.name).write_text(text.replace("global_defs {", head, 1))
        written.append(str(folder / file.name))
    return tuple(written)


def forged_entry(client: bytes, port: int) -> bytes:
    """An entry of a client that does not exist, which lives as long as an entry can."""
    virtual, server = (ip_address(each).packed for each in (WEB.address, "192.168.6.4"))
    return ipvs_sync.encode(
        ipvs_sync.Entry(
            protocol=6,
            client=client,
            client_port=port,
            virtual=virtual,
            virtual_port=80,
            server=server,
            server_port=80,
            state=TcpState.ESTABLISHED,
            seconds=ipvs_sync.MAX_SECONDS,
        )
    )


def forge(cluster: Cluster, count: int, done: int) -> None:
    """Send ``count`` forged entries."""
    with cluster.stage.inside(cluster.topology.client), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(cluster.topology.client.address))
        numbers = range(done, done + count)
        entries = [forged_entry((0x0A_63_00_00 + (each >> 14)).to_bytes(4, "big"), 1024 + (each & 0x3FFF)) for each in numbers]
        for message in ipvs_sync.assemble(SYNC_ID, entries):
            sock.sendto(message, ("224.0.0.81", 8848))


def test_a_takeover_with_a_full_table_serves_new_clients_and_keeps_the_others(tmp_path: Path) -> None:
    if ebpf.unavailable_reason():
        pytest.skip(f"ebpf: {ebpf.unavailable_reason()}")
    with build(Namespaces(), without_key(tmp_path), speed_up=1.0) as cluster:
        run_all(cluster)
        first, second = cluster.topology.directors
        client = Client(cluster.stage, cluster.topology.client)
        wait_until(lambda: bool(client.who(WEB)), 10, "the service answers")
        held = client.hold(WEB, HELD)
        assert len(held) == HELD
        wait_until(lambda: (sync(cluster, second).received or 0) >= HELD, 20, "the peer has the connections")
        done = 0

        def refuses() -> bool:
            nonlocal done
            forge(cluster, BURST, done)
            done += BURST
            assert [still_alive(sock, WEB) for sock in held] == [True] * HELD, "in use, or the server would close them"
            return sync(cluster, second).refused.get("no_room", 0) > TABLE // 8

        wait_until(refuses, 300, "the table is full")
        cluster.crash_director(first)
        wait_for_state(cluster, second, "MASTER")
        # What is in use here stays; what nobody has used yet may be forged, and yields to a new client in a full bucket.
        assert [still_alive(sock, WEB) for sock in held] == [True] * HELD
        refused = [number for number in range(CLIENTS) if not client.who(WEB, 2000 + number)]
        assert refused == []
        assert [still_alive(sock, WEB) for sock in held] == [True] * HELD
        assert state_of(cluster, second) == "MASTER"
