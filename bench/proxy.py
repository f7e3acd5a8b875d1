"""The proxy plane beside HAProxy (mode tcp): keep-alive requests, new connections, bulk; alternating, in one run.

Relevo runs whole: ``relevo run`` with health checks, and the load through its virtual address. Also here: a gigabyte
arrives byte-identical, and 10 000 idle connections are held.
"""

from __future__ import annotations

import hashlib
import re
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench.measure import HEADER, Comparison, save, show
from bench.rig import BIG, SERVERS, VIP, Rig, program

SECONDS = 4
IDLE = 10_000
RELEVO_PORT, HAPROXY_PORT = 80, 81

CONF = f"""
global_defs {{
    data_plane proxy
}}
virtual_server {VIP} {RELEVO_PORT} {{
    delay_loop 5
    lb_algo rr
    protocol TCP
    real_server {SERVERS[0]} 80 {{
        TCP_CHECK {{
        }}
    }}
    real_server {SERVERS[1]} 80 {{
        TCP_CHECK {{
        }}
    }}
}}
"""
HAPROXY = f"""
global
  maxconn @MAXCONN@
defaults
  mode tcp
  timeout connect 5s
  timeout client 900s
  timeout server 900s
listen web
  bind {VIP}:{HAPROXY_PORT}
  balance roundrobin
  server s1 {SERVERS[0]}:80 check
  server s2 {SERVERS[1]}:80 check
"""


def start_relevo(rig: Rig) -> subprocess.Popen[bytes]:
    (rig.folder / "relevo.conf").write_text(CONF)
    argv = [sys.executable, "-m", "relevo", "run", "-l", "-f", str(rig.folder / "relevo.conf")]
    process = rig.start("director", [*argv, "--run-dir", str(rig.folder / "run"), "--state-dir", str(rig.folder / "state")])
    wait_for(rig, RELEVO_PORT)
    return process


def start_haproxy(rig: Rig) -> subprocess.Popen[bytes]:
    binary = program("haproxy")
    assert binary is not None
    # HAProxy refuses to start when the system grants it fewer descriptors than maxconn could take
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 500
    (rig.folder / "haproxy.cfg").write_text(HAPROXY.replace("@MAXCONN@", str(min(15_000, room))))
    process = rig.start("director", [binary, "-db", "-f", str(rig.folder / "haproxy.cfg")])
    wait_for(rig, HAPROXY_PORT)
    return process


def wait_for(rig: Rig, port: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with rig.inside("client"):
            sock = socket.socket()
        with sock:
            if sock.connect_ex((VIP, port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"no server listens on port {port}")


def requests(rig: Rig, port: int, close: bool) -> float:
    argv = ["wrk", "-t1", "-c32", f"-d{SECONDS}", *(["-H", "Connection: close"] if close else []), f"http://{VIP}:{port}/"]
    match = re.search(r"Requests/sec:\s+([\d.]+)", rig.ask("client", argv))
    assert match, "wrk printed no rate"
    return float(match.group(1))


def bulk(rig: Rig, port: int) -> float:
    argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{speed_download}", f"http://{VIP}:{port}/big"]
    return float(rig.ask("client", argv)) / 1e9


def digest_through(rig: Rig, port: int) -> tuple[int, str]:
    """Fetch the big file; return its length and digest."""
    with rig.inside("client"):
        sock = socket.socket()
    sock.connect((VIP, port))
    sock.sendall(b"GET /big HTTP/1.0\r\n\r\n")
    sha, length, head = hashlib.sha256(), 0, b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(65536)
    body = head.partition(b"\r\n\r\n")[2]
    while body:
        sha.update(body)
        length += len(body)
        body = sock.recv(1 << 20)
    return length, sha.hexdigest()


def hold_idle(rig: Rig, count: int) -> tuple[int, float, float]:
    """Open ``count`` connections, leave them for a while, use each again; return (alive, median and worst ms)."""
    held = []
    for _ in range(count):
        with rig.inside("client"):
            sock = socket.socket()
        sock.settimeout(10)
        sock.connect((VIP, RELEVO_PORT))
        held.append(sock)
    time.sleep(3)
    alive, times = 0, []
    for sock in held:
        begun = time.perf_counter()
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        alive += b"200 OK" in sock.recv(4096)
        times.append(time.perf_counter() - begun)
    for sock in held:
        sock.close()
    times.sort()
    return alive, times[len(times) // 2] * 1000, times[-1] * 1000


def main(rounds: int = 7) -> None:
    missing = [name for name in ("haproxy", "nginx", "wrk", "curl") if program(name) is None]
    if missing:
        print(f"proxy: not installed: {', '.join(missing)}; nothing to compare with", file=sys.stderr)
        return
    raise_limit()
    rig = Rig()
    try:
        rig.start_nginx()
        relevo, haproxy = start_relevo(rig), start_haproxy(rig)
        keep = Comparison("requests, kept alive", "/s", "HAProxy", "≥ 0.5")
        close = Comparison("requests, a connection each", "/s", "HAProxy", "≥ 0.5")
        big = Comparison("bulk", "GB/s", "HAProxy", "≥ 1.0")
        for number in range(rounds):
            for port in (RELEVO_PORT, HAPROXY_PORT) if number % 2 == 0 else (HAPROXY_PORT, RELEVO_PORT):
                print(f"  round {number + 1} of {rounds}, {'Relevo' if port == RELEVO_PORT else 'HAProxy'}", file=sys.stderr)
                for comparison, value in (
                    (keep, requests(rig, port, close=False)),
                    (close, requests(rig, port, close=True)),
                    (big, bulk(rig, port)),
                ):
                    (comparison.ours if port == RELEVO_PORT else comparison.theirs).values.append(value)
        rig.end(haproxy)
        comparisons = [keep, close, big]
        show("Proxy plane beside HAProxy, mode tcp", [c.row() for c in comparisons], HEADER)
        wanted = hashlib.sha256((rig.folder / "big").read_bytes()).hexdigest()
        length, got = digest_through(rig, RELEVO_PORT)
        identical = length == BIG and got == wanted
        print(
            f"\n  1 GB through the proxy: {length} bytes, {'byte-identical' if identical else 'DIFFERENT'} (sha256 {got[:16]}…)"
        )
        alive, median, worst = hold_idle(rig, IDLE)
        memory = sum(pss(pid) for pid in pids_of(relevo.pid)) / 1e6
        print(f"  {IDLE} idle connections: {alive} answered afterwards, median {median:.2f} ms, worst {worst:.1f} ms")
        print(f"  PSS of all processes then: {memory:.0f} MB")
        save("proxy", comparisons, identical=identical, idle=alive)
    finally:
        rig.close()


def raise_limit() -> None:
    from relevo.host.privileges import raise_descriptor_limit

    raise_descriptor_limit()


def pids_of(parent: int) -> list[int]:
    """A process and all of its descendants."""
    children = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return [parent, *(pid for child in children for pid in pids_of(child))]


def pss(pid: int) -> int:
    """Proportional set size in bytes: each sharer of a page counts its part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
