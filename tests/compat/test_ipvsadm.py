"""Our ipvsadm compared with the original, on the same table of the same kernel: output, exit status, and the table afterwards."""

from __future__ import annotations

import io
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relevo.compat.ipvsadm.program import Program
from relevo.compat.ipvsadm.tables import KernelTable
from relevo.lab.namespaces import NetworkNamespaces, bring_up, netlink
from relevo.planes.ipvs import unavailable_reason
from relevo.planes.ipvs.kernel import Kernel
from relevo.wire.ipvs_netlink import DaemonState, Timeouts
from tests.compat.cases import CASES
from tests.conftest import PATH

if unavailable_reason():
    pytest.skip(unavailable_reason(), allow_module_level=True)

VIRTUAL, SERVER = "10.99.0.1", "10.99.0.2"
LISTINGS = (
    "-L", "-Ln", "-Ln --nosort --stats", "-Ln --stats", "-Ln --stats --exact", "-Ln --rate", "-Ln --rate --exact",
    "-Ln --persistent-conn", "-Ln --thresholds", "-Ln --stats -t 10.99.0.1:80", "-Lnc", "-Lc", "-Lnc --persistent-conn",
)  # fmt: skip
SETTLED_S = 30.0
"""How long to retry: counters change every two seconds and listed times every second, so outputs of two runs may differ."""
COUNTED, COUNTED_S = r"UDP +10\.99\.0\.1:53 +1 +1500 ", 10.0
"""What is listed once the kernel has updated the counters, and how long that may take."""
Outcome = tuple[int, str, str]
"""Exit status, standard output, standard error."""
Side = Callable[[str, str], Outcome]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    """The table of a namespace of its own: that of this machine may be in use."""
    subprocess.run(["modprobe", "ip_vs_pe_sip"], check=False)
    spaces = NetworkNamespaces()
    spaces.make("compat")
    with spaces.inside("compat"):
        with netlink() as ip:
            bring_up(ip, "lo")
            for address in (VIRTUAL, SERVER):
                ip.addr("add", index=1, address=address, prefixlen=32)
        opened = Kernel()
        yield opened
        opened.close()
    spaces.close()


def clear(kernel: Kernel) -> None:
    kernel.flush()
    for daemon in kernel.daemons():
        kernel.stop_daemon(DaemonState(daemon.state))
    kernel.set_timeouts(Timeouts(900, 120, 300))


def ours(line: str, text: str) -> Outcome:
    kernel, out, err = Kernel(), io.StringIO(), io.StringIO()
    try:
        status = Program(lambda: KernelTable(kernel), io.StringIO(text), out, err).run(shlex.split(line))
    finally:
        kernel.close()
    return status, out.getvalue(), err.getvalue()


def theirs(line: str, text: str) -> Outcome:
    environment = {"PATH": PATH, "LC_ALL": "C"}
    done = subprocess.run(
        ["ipvsadm", *shlex.split(line)], input=text, capture_output=True, text=True, check=False, env=environment
    )
    return done.returncode, done.stdout, done.stderr


def run(kernel: Kernel, side: Side, table: tuple[str, ...], line: str, text: str) -> list[Any]:
    """Return the outcome of a command line, and the kernel's table afterwards."""
    clear(kernel)
    for step in table:
        assert ours(step, "") == (0, "", ""), step
    outcome = side(line, text)
    held = [(service, kernel.destinations(service.identity)) for service in kernel.services()]
    return [outcome, held, kernel.daemons(), kernel.timeouts()]


@pytest.mark.parametrize(("table", "line", "text"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_the_outcome_equals_the_originals(kernel: Kernel, table: tuple[str, ...], line: str, text: str) -> None:
    wanted = run(kernel, theirs, table, line, text)
    (status, out, err), *held = run(kernel, ours, table, line, text)
    if line.startswith("-S"):  # a documented difference: the original does not save thresholds
        out = re.sub(r" -[xy] \d+", "", out)
    assert [(status, out, err), *held] == wanted


def test_a_saved_table_is_restored_by_both_programs(kernel: Kernel) -> None:
    many = next(table for table, line, _ in CASES if line == "-Sn")
    saved = run(kernel, ours, many, "-Sn", "")[0][1]
    assert "-x 10 -y 5" in saved, "the original omits thresholds"
    restored = [run(kernel, side, (), "-R", saved) for side in (theirs, ours)]
    assert restored[0] == restored[1]
    assert ours("-Sn", "")[1] == saved


def test_both_commands_behave_as_the_original(kernel: Kernel) -> None:
    """Both names of the command, as processes."""
    wanted = run(kernel, theirs, (), "-Ln --nonsense", "")
    folder = Path(sys.executable).parent
    for command in ([str(folder / "relevo-ipvsadm")], [str(folder / "relevo"), "ipvsadm"]):

        def side(line: str, text: str, command: list[str] = command) -> Outcome:
            done = subprocess.run([*command, *shlex.split(line)], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout, done.stderr

        assert run(kernel, side, (), "-Ln --nonsense", "") == wanted


@pytest.fixture(scope="module")
def busy(kernel: Kernel) -> Iterator[None]:
    """Services with connections in several states, templates, datagrams, and counters of four digits and more."""
    clear(kernel)
    for step in (
        f"-A -t {VIRTUAL}:80 -s rr -p 300",
        f"-a -t {VIRTUAL}:80 -r {SERVER}:8080 -m -w 3",
        f"-A -t {VIRTUAL}:81 -s wlc",
        f"-a -t {VIRTUAL}:81 -r {SERVER}:8080 -m -x 100 -y 50",
        f"-A -u {VIRTUAL}:53 -s rr",
        f"-a -u {VIRTUAL}:53 -r {SERVER}:5353 -m",
        "-A -f 5 -s rr",
        f"-a -f 5 -r {SERVER}:0 -m",
    ):
        assert ours(step, "") == (0, "", ""), step
    listening = socket.create_server((SERVER, 8080), backlog=64)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((SERVER, 5353))
    held = []
    for port in (80, 80, 80, 81, 81):
        sock = socket.create_connection((VIRTUAL, port), timeout=5)
        peer, _ = listening.accept()
        sock.sendall(bytes(20_000))
        while len(peer.recv(65_536, socket.MSG_PEEK)) < 20_000:
            pass
        held += [sock, peer]
    held[0].shutdown(socket.SHUT_WR)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(1500):
            client.sendto(bytes(100), (VIRTUAL, 53))
    deadline = time.monotonic() + COUNTED_S
    while not re.search(COUNTED, ours("-Ln --stats", "")[1]) and time.monotonic() < deadline:
        time.sleep(0.1)
    yield
    for sock in (*held, listening, datagrams):
        sock.close()
    clear(kernel)


@pytest.mark.parametrize("line", LISTINGS)
def test_counters_and_connections_are_listed_as_by_the_original(busy: None, line: str) -> None:
    deadline = time.monotonic() + SETTLED_S
    while True:
        before, found, after = theirs(line, ""), ours(line, ""), theirs(line, "")
        if before == after or time.monotonic() > deadline:
            break
    assert found == before
    assert found[0] == 0
    if line == "-Lnc":
        assert {"ESTABLISHED", "CLOSE_WAIT", "UDP"} <= {row.split()[2] for row in found[1].splitlines()[2:]}
    if line == "-Ln --stats":
        assert re.search(COUNTED, found[1]), found[1]
