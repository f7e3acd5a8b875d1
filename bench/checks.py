"""Processor time of health checks: ten thousand servers by TCP_CHECK, two thousand by HTTP_GET, beside another revision.

The servers are addresses of one namespace, and one process that accepts, or answers with a page. What is measured is the balancer
process, on the ``memory`` plane. ``RELEVO_BESIDE`` names the ``src`` folder of the other revision of Relevo.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import show
from relevo.host import libc
from relevo.lab.namespaces import NetworkNamespaces, bring_up, netlink

BASE, PORT = "10.8", 80
EVERY_S = 5
WARM_S, MEASURED_S = 15.0, 20.0
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nhello"
KINDS = {"TCP_CHECK": (10_000, ""), "HTTP_GET": (2_000, "url {\npath /\nstatus_code 200\n}\n")}
SOURCE = str(Path(__file__).parents[1] / "src")


def configuration(kind: str, count: int, body: str) -> str:
    lines = ["global_defs {\ndata_plane memory\n}"]
    for service in range(count // 100):
        lines.append(f"virtual_server 192.0.2.{service % 250 + 1} {1000 + service} {{\nprotocol TCP\ndelay_loop {EVERY_S}")
        for number in range(service * 100, service * 100 + 100):
            address = f"{BASE}.{number // 250}.{number % 250 + 1}"
            lines.append(f"real_server {address} {PORT} {{\n{kind} {{\nconnect_timeout 3\n{body}}}\n}}")
        lines.append("}")
    return "\n".join(lines) + "\n"


def serve(answers: bool) -> None:
    """Accept every connection, and answer a request if asked, until killed."""
    libc.die_with_parent()
    listener = socket.create_server(("0.0.0.0", PORT), backlog=4096)
    while True:
        connection, _ = listener.accept()
        with connection:
            if answers:
                connection.recv(4096)
                connection.sendall(PAGE)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(source: str, kind: str, count: int, body: str) -> tuple[float, int]:
    """Return the processor time of a second, in ms, and the servers that are up."""
    spaces = NetworkNamespaces()
    with tempfile.TemporaryDirectory(prefix="r-") as made:
        folder = Path(made)
        (folder / "conf").write_text(configuration(kind, count, body))
        spaces.make("here")
        try:
            with spaces.inside("here"), netlink() as ip:
                bring_up(ip, "lo")
                ip.route("add", dst=f"{BASE}.0.0/16", oif=1, table=255, type="local", scope=254)
                pid = os.fork()
                if pid == 0:
                    serve(kind == "HTTP_GET")
                argv = [sys.executable, "-m", "relevo", "run", "-l", "-f", str(folder / "conf")]
                argv += ["--run-dir", str(folder / "run"), "--state-dir", str(folder / "state")]
                with (folder / "log").open("w") as log:
                    daemon = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": source}, stdout=log, stderr=log)
            try:
                balancer = _balancer(daemon.pid)
                time.sleep(WARM_S)
                before = cpu_s(balancer)
                time.sleep(MEASURED_S)
                used = cpu_s(balancer) - before
                text = subprocess.run(
                    [sys.executable, "-m", "relevo", "status", "-j", "--run-dir", str(folder / "run")],
                    env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True, check=True,
                ).stdout  # fmt: skip
                up = len(re.findall(r'"last_result": ?"(?:ok|status 200)"', text))
            finally:
                daemon.terminate()
                daemon.wait(60)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        finally:
            spaces.close()
    return 1000 * used / MEASURED_S, up


def _balancer(supervisor: int) -> int:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/comm").read_text().strip().endswith("balancer"):
                return int(child)
        time.sleep(0.2)
    raise SystemExit("the daemon has no balancer")


def main(rounds: int = 3) -> None:
    beside = os.environ.get("RELEVO_BESIDE", "")
    rows = []
    for kind, (count, body) in KINDS.items():
        ours: list[float] = []
        theirs: list[float] = []
        up = 0
        for _ in range(rounds):
            used, up = measure(SOURCE, kind, count, body)
            ours.append(used)
            print(f"    {kind}: {used:.0f} ms a second, {up} up", file=sys.stderr)
            if beside:
                used, _ = measure(beside, kind, count, body)
                theirs.append(used)
                print(f"    {kind}: {used:.0f} ms a second beside", file=sys.stderr)
        other = f"{statistics.median(theirs):.0f} ms/s" if theirs else "-"
        ratio = f"{statistics.median(ours) / statistics.median(theirs):.3f}" if theirs else "-"
        rows.append([kind, f"{count} every {EVERY_S} s", str(up), f"{statistics.median(ours):.0f} ms/s", other, ratio, "0.4"])
    header = ["check", "servers", "passed", "processor", "the other revision", "ratio", "bar"]
    show("Health checks", rows, header)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
