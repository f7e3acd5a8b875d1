"""``relevo ipvsadm`` on the ebpf and proxy planes: its output is that of ipvsadm with the kernel's IPVS."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relevo.lab.client import Client
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Namespaces
from relevo.model import Endpoint
from relevo.planes import ebpf, ipvs
from tests.netns.conftest import FILES, build, on_proxy, run_all, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

WEB = Endpoint("192.168.6.240", 80)
WHOLE = """\
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.168.6.240:25 wlc persistent 50
  -> 192.168.6.6:25               Masq    1      0          0{0}
  -> 192.168.6.7:25               Masq    2      0          0{0}
TCP  192.168.6.240:80 wrr persistent 50
  -> 192.168.6.4:80               Masq    2      0          0{0}
  -> 192.168.6.5:80               Masq    1      0          0{0}
""".format(" " * 9)


def ipvsadm(cluster: Cluster, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    master = cluster.topology.directors[0]
    environment = os.environ | {"RELEVO_RUN_DIR": str(cluster.run_dir(master))}
    command = [str(Path(sys.executable).with_name("relevo-ipvsadm")), *words]
    return subprocess.run(command, input=given, check=False, capture_output=True, text=True, timeout=60, env=environment)


def outcome(cluster: Cluster, *words: str, given: str = "") -> tuple[int, str, str]:
    done = ipvsadm(cluster, *words, given=given)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module", params=["ebpf", "proxy"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, namespace_refusal: str
) -> Iterator[Cluster]:
    if namespace_refusal or os.geteuid() != 0:
        pytest.skip(namespace_refusal or "not root")
    files = FILES
    if request.param == "proxy":
        files = on_proxy(tmp_path_factory.mktemp("proxy"))
    elif not ipvs.unavailable_reason() or ebpf.unavailable_reason():
        pytest.skip("the cluster would not be on the ebpf plane")
    with build(Namespaces(), files, speed_up=1.0) as made:
        run_all(made)
        wait_until(lambda: ipvsadm(made, "-Ln").stdout.partition("\n")[2] == WHOLE, 10, "every server is in the table")
        yield made


def test_the_table_has_the_format_of_the_kernel_s(cluster: Cluster) -> None:
    status, out, err = outcome(cluster, "-L", "-n")
    head, _, rest = out.partition("\n")
    assert (status, rest, err) == (0, WHOLE, "")
    assert head.startswith("IP Virtual Server version 1.2.1 (size=")


def test_the_saved_table_has_the_commands_that_create_it(cluster: Cluster) -> None:
    assert outcome(cluster, "-S", "-n")[1].splitlines() == [
        "-A -t 192.168.6.240:25 -s wlc -p 50",
        "-a -t 192.168.6.240:25 -r 192.168.6.6:25 -m -w 1",
        "-a -t 192.168.6.240:25 -r 192.168.6.7:25 -m -w 2",
        "-A -t 192.168.6.240:80 -s wrr -p 50",
        "-a -t 192.168.6.240:80 -r 192.168.6.4:80 -m -w 2",
        "-a -t 192.168.6.240:80 -r 192.168.6.5:80 -m -w 1",
    ]


def test_a_service_added_manually_stays_and_a_declared_one_is_restored(cluster: Cluster) -> None:
    service, server = ("-t", "192.168.6.240:8080"), ("-r", "192.168.6.4:80")
    assert outcome(cluster, "-A", *service, "-s", "rr") == (0, "", "")
    assert outcome(cluster, "-A", *service, "-s", "rr")[2] == "Service already exists\n"
    assert outcome(cluster, "-a", *service, *server, "-m", "-w", "5") == (0, "", "")
    assert outcome(cluster, "-a", *service, *server, "-m")[2] == "Destination already exists\n"
    assert outcome(cluster, "-e", *service, *server, "-m", "-w", "7") == (0, "", "")
    assert outcome(cluster, "-D", "-t", "192.168.6.240:80") == (0, "", "")
    wait_until(lambda: "192.168.6.240:80 wrr" in outcome(cluster, "-Ln")[1], 20, "the declared service is there again")
    out = outcome(cluster, "-Ln")[1]
    assert "192.168.6.240:8080 rr\n  -> 192.168.6.4:80               Masq    7 " in out
    assert outcome(cluster, "-d", *service, "-r", "192.168.6.9:80")[2] == "No such destination\n"
    assert outcome(cluster, "-d", *service, *server) == (0, "", "")
    assert outcome(cluster, "-D", *service) == (0, "", "")
    assert outcome(cluster, "-D", *service)[2] == "No such service\n"
    assert outcome(cluster, "-L", "-n", *service)[0] == 1


def test_a_saved_table_is_restored(cluster: Cluster) -> None:
    lines = "-A -t 192.168.6.240:8081 -s wlc\n-a -t 192.168.6.240:8081 -r 192.168.6.5:80 -m -w 3\n"
    assert outcome(cluster, "-R", given=lines) == (0, "", "")
    assert lines in outcome(cluster, "-S", "-n")[1]
    assert outcome(cluster, "-D", "-t", "192.168.6.240:8081") == (0, "", "")


def test_connections_are_counted_listed_and_zeroed(cluster: Cluster) -> None:
    held = Client(cluster.stage, cluster.topology.client).hold(WEB, 3)
    assert len(held) == 3
    out = outcome(cluster, "-L", "-n", "--stats", "-t", "192.168.6.240:80")[1]
    assert out.splitlines()[2].split()[:3] == ["TCP", "192.168.6.240:80", "3"]
    listed = outcome(cluster, "-L", "-n", "-c")[1].splitlines()
    assert listed[:2] == ["IPVS connection entries", "pro expire state       source             virtual            destination"]
    assert sum(line.split()[2] == "ESTABLISHED" for line in listed[2:]) == 3
    assert outcome(cluster, "-L", "-n", "--rate", "-t", "192.168.6.240:80")[0] == 0
    assert outcome(cluster, "-Z", "-t", "192.168.6.240:80") == (0, "", "")
    out = outcome(cluster, "-L", "-n", "--stats", "-t", "192.168.6.240:80")[1]
    assert out.splitlines()[2].split()[:3] == ["TCP", "192.168.6.240:80", "0"]
    for sock in held:
        sock.close()


def test_timeouts_and_roles_are_shown(cluster: Cluster) -> None:
    plane = cluster.snapshot(cluster.topology.directors[0]).balancer.plane
    if plane == "proxy":
        assert outcome(cluster, "-L", "--timeout") == (0, "Timeout (tcp tcpfin udp): 0 0 0\n", "")
        assert outcome(cluster, "--set", "7", "8", "9")[0] != 0
        assert outcome(cluster, "-L", "--daemon") == (0, "", "")
        return
    assert outcome(cluster, "-L", "--timeout") == (0, "Timeout (tcp tcpfin udp): 900 120 300\n", "")
    assert outcome(cluster, "--set", "0", "60", "0") == (0, "", "")
    assert outcome(cluster, "-L", "--timeout")[1] == "Timeout (tcp tcpfin udp): 900 60 300\n"
    assert outcome(cluster, "-L", "--daemon") == (0, "master sync daemon (mcast=eth0, syncid=51)\n", "")
    assert outcome(cluster, "--start-daemon", "master", "--mcast-interface", "eth0")[2] == "Operation not supported\n"
