"""HTTP_GET on servers with odd manners: Relevo's verdict, and beside it that of a real keepalived with the same file.

keepalived's checkers need a kernel with IPVS: ``tests/uml`` runs this file under one.
"""

from __future__ import annotations

import asyncio
import os
import re
import selectors
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relevo.config import compile_text
from relevo.lab.namespaces import NetworkNamespaces, bring_up, netlink
from relevo.machines.check import Result
from relevo.model import Check
from relevo.planes import ipvs
from relevo.probes import run_probe
from tests.conftest import program
from tests.interop.odd_servers import ADDRESS, BEHAVIOURS, TIMEOUT_S, Behaviour, Servers

pytestmark = [pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

_CRLF = "keepalived looks for the end of the headers as CR LF CR LF"
_REASON = "keepalived wants a blank after the status"
_BUFFER = "keepalived's buffer for status and headers has 4 kB"
_CLOSE = "keepalived waits for the end of the connection, length or not; Relevo knows the status, or the whole body, before"
DIFFERENCES = {
    # Relevo passes what keepalived 2.2.7 fails.
    "bare-lf-headers": _CRLF,
    "bare-lf-headers-with-digest": _CRLF,
    "headers-without-an-end": _CRLF,
    "chunked-with-digest": "keepalived hashes the chunks as they are framed, Relevo the body that they carry",
    "100-before-200": "keepalived takes the first status for the last",
    "status-without-reason": _REASON,
    "http-2-status-line": _REASON,
    "two-blanks-before-the-status": "keepalived takes the status for what follows the first blank",
    "60-kb-of-headers": _BUFFER,
    "long-status-line": _BUFFER,
    "200-then-reset": "keepalived reads on when it has the status, and meets the reset",
    "lower-case-names-and-held-open": _CLOSE,
    "held-open-with-a-length": _CLOSE,
    "held-open-without-length": _CLOSE,
    # Relevo fails what keepalived 2.2.7 passes.
    "drip-beyond-the-time-limit": "keepalived's limit begins anew with every byte, Relevo's is for the whole answer",
    "content-length-too-large-with-digest": "keepalived warns that the body is cut off, and hashes what came",
    "nuls-before-the-status": "keepalived takes the status for what follows the first blank, whatever is before it",
}
"""Behaviours of which keepalived thinks the opposite, and why."""

FROM_UP, FROM_DOWN = "10.255.0.1", "10.255.0.2"
"""Virtual addresses: each server is behind both, taken for up until a check fails, and for down until one passes (``alpha``)."""
LIMIT_S = 90.0
"""An emulated machine carries out all checks at once; the longest answer takes 8 s."""

VIRTUAL_SERVER = """
virtual_server {virtual} {port} {{
    delay_loop 600
    lb_algo rr
    lb_kind NAT
    protocol TCP
    {alpha}
    real_server {address} {port} {{
        {kind} {{
            url {{
                path /
                {wanted}
            }}
            connect_timeout {timeout}
            retry 0
            warmup 0
        }}
    }}
}}
"""
EVENT = re.compile(rf"RS \[{re.escape(ADDRESS)}\]:tcp:(\d+) \[([0-9.]+)\]:tcp:\d+ (UP|DOWN)")


def virtual_server(behaviour: Behaviour, port: int, virtual: str) -> str:
    wanted = f"digest {behaviour.digest}" if behaviour.digest else ""
    wanted += f"\nstatus_code {behaviour.status_code}" if behaviour.status_code else ""
    alpha = "alpha" if virtual == FROM_DOWN else ""
    kind = "SSL_GET" if behaviour.tls else "HTTP_GET"
    return VIRTUAL_SERVER.format(
        virtual=virtual, port=port, alpha=alpha, address=ADDRESS, kind=kind, wanted=wanted, timeout=TIMEOUT_S
    )


@pytest.fixture(scope="module")
def spaces(namespace_refusal: str) -> Iterator[NetworkNamespaces]:
    """A namespace with nothing but its loopback interface."""
    if namespace_refusal or os.geteuid() != 0:
        pytest.skip(namespace_refusal or "not root")
    made = NetworkNamespaces()
    made.make("checks")
    with made.inside("checks"), netlink() as ip:
        bring_up(ip, "lo")
    yield made
    made.close()


@pytest.fixture(scope="module")
def servers(spaces: NetworkNamespaces) -> Iterator[Servers]:
    with spaces.inside("checks"):
        made = Servers()
    yield made
    made.close()


def check_of(behaviour: Behaviour, port: int) -> Check:
    """The check as the file declares it."""
    configuration = compile_text(virtual_server(behaviour, port, FROM_UP), "checks.conf").configuration
    (service,) = configuration.virtual_servers
    (server,) = service.real_servers
    (check,) = server.checks
    return check


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.name)
def test_relevo(spaces: NetworkNamespaces, servers: Servers, behaviour: Behaviour) -> None:
    with spaces.inside("checks"):
        result: Result = asyncio.run(run_probe(check_of(behaviour, servers.ports[behaviour.name])))
    assert result.passed == behaviour.passes, result


def read_verdicts(fifo: int, process: subprocess.Popen[bytes], names: dict[int, str], log: Path) -> dict[str, set[bool]]:
    """Read events of keepalived until every server has gone down from being up, or up from being down."""
    verdicts: dict[str, set[bool]] = {}
    text, until = "", time.monotonic() + LIMIT_S
    with selectors.DefaultSelector() as selector:
        selector.register(fifo, selectors.EVENT_READ)
        while len(verdicts) < len(names):
            assert process.poll() is None, log.read_text()
            missing = sorted(set(names.values()) - set(verdicts))
            assert time.monotonic() < until, f"no verdict on {missing}:\n{log.read_text()}"
            if not selector.select(timeout=1.0):
                continue
            text += os.read(fifo, 65_536).decode()
            *lines, text = text.split("\n")
            for port, virtual, state in (found.groups() for line in lines if (found := EVENT.search(line))):
                if (virtual, state) in ((FROM_UP, "DOWN"), (FROM_DOWN, "UP")):
                    verdicts.setdefault(names[int(port)], set()).add(state == "UP")
    return verdicts


def lines_of(said: str, port: int) -> str:
    """What keepalived logged of one server's checks."""
    return "\n".join(line for line in said.splitlines() if f":tcp:{port}" in line and "Shutting" not in line)


@pytest.fixture
def without_ipvs() -> None:
    """Skip where keepalived has no IPVS to keep."""
    if ipvs.unavailable_reason():
        pytest.skip(f"no checks of keepalived: {ipvs.unavailable_reason()}")


@pytest.mark.slow
@pytest.mark.usefixtures("without_ipvs")
def test_keepalived_thinks_the_same_of_each_but_where_we_say_why(
    spaces: NetworkNamespaces, servers: Servers, tmp_path: Path
) -> None:
    keepalived = program("keepalived")
    fifo_path, log, file = tmp_path / "events", tmp_path / "log", tmp_path / "keepalived.conf"
    text = f"global_defs {{\n    lvs_notify_fifo {fifo_path}\n}}\n"
    for behaviour in BEHAVIOURS:
        for virtual in (FROM_UP, FROM_DOWN):
            text += virtual_server(behaviour, servers.ports[behaviour.name], virtual)
    file.write_text(text)
    os.mkfifo(fifo_path)
    fifo = os.open(fifo_path, os.O_RDWR | os.O_NONBLOCK)
    argv = [keepalived, "-C", "-n", "-l", "-D", "-f", str(file), "-p", str(tmp_path / "pid"), "-c", str(tmp_path / "pid.c")]
    with spaces.inside("checks"), log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output)
    try:
        verdicts = read_verdicts(fifo, process, {port: name for name, port in servers.ports.items()}, log)
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(fifo)
    expected = {each.name: {each.passes is not (each.name in DIFFERENCES)} for each in BEHAVIOURS}
    surprises = [name for name in expected if verdicts[name] != expected[name]]
    said = log.read_text()
    assert not surprises, "\n".join(f"{name}: {verdicts[name]}\n{lines_of(said, servers.ports[name])}" for name in surprises)


def test_every_difference_is_of_a_behaviour() -> None:
    assert set(DIFFERENCES) <= {behaviour.name for behaviour in BEHAVIOURS}
