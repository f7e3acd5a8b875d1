"""``relevo connections`` on a running cluster: the list, its filters, and ``--drop``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from relevo.lab.client import Client
from relevo.lab.cluster import Cluster
from tests.netns.test_workers import web

pytestmark = pytest.mark.slow


def connections(cluster: Cluster, *arguments: str, status: int = 0) -> str:
    folder = cluster.run_dir(cluster.topology.directors[0])
    command = [Path(sys.executable).with_name("relevo"), "connections", "--run-dir", folder, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == status, done.stderr
    return done.stdout if not status else done.stderr


def test_connections_are_listed_filtered_and_dropped(cluster: Cluster) -> None:
    service = web(cluster)
    (held,) = Client(cluster.stage, cluster.topology.client).hold(service, 1)
    with held:
        port = held.getsockname()[1]
        rows = connections(cluster, "--no-templates").splitlines()
        assert rows[0].split() == ["Pro", "Expires", "State", "Client", "Virtual", "Server"]
        (row,) = [line for line in rows if f":{port} " in line]
        protocol, _, state, _, virtual, server = row.split()
        assert (protocol, state, virtual) == ("TCP", "ESTABLISHED", str(service))
        client = held.getsockname()[0]
        address = server.rpartition(":")[0]
        for matching in (
            "--tcp",
            f"--client={client}:{port}",
            f"--virtual={service}",
            f"--server={address}",
            "--state=established",
        ):
            assert (
                int(
                    connections(
                        cluster, "--count", "--no-templates", matching, f"--client=:{port}" if matching[2] != "c" else matching
                    )
                )
                == 1
            )
        for other in ("--udp", "--client=203.0.113.0/24", f"--virtual=:{service.port + 1}", "--state=close", "--templates"):
            assert int(connections(cluster, "--count", f"--client=:{port}" if other[2] != "c" else other, other)) == 0
        (found,) = json.loads(connections(cluster, "-j", f"--client=:{port}"))["connections"]
        assert found["client"] == {"address": client, "port": port}
        assert int(connections(cluster, "--count", "--templates")) >= 1
        assert connections(cluster, "--drop", f"--client={client}:{port}") == "1 dropped\n"
        assert int(connections(cluster, "--count", f"--client=:{port}")) == 0
        held.settimeout(5)
        with pytest.raises(ConnectionResetError):
            held.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while held.recv(4096):
                pass
            raise ConnectionResetError  # the proxy's reset may come as an end
    assert "add --all" in connections(cluster, "--end", status=2)
    assert "is not ADDRESS" in connections(cluster, "--client", "no-address", status=2)
