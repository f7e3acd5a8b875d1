"""Failover gap beside real keepalived: the same namespaces, the same client, alternating.

The client pings the virtual address every half millisecond; the kernel answers, so only VRRP is measured. The gap
is the longest time between two answers around the event.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import struct
import sys
import time
from pathlib import Path

from tests.interop.pair import VIP, Node, Pair

from bench.measure import HEADER, Comparison, save, show
from relevo.lab.topology import Service
from relevo.wire.checksum import internet_checksum

PROBE_S = 0.0005
INTERVALS = (1.0, 0.1, 0.01)


def ping_gap(pair: Pair, event, seconds: float) -> float:
    """Return the longest gap in answers while ``event`` happens, in seconds."""
    with pair.cluster.stage.inside(pair.client):
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
        except OSError:
            pass
        gap = _ping(sock, seconds)
        os.write(writer, struct.pack("d", gap))
        os._exit(0)
    sock.close()
    os.close(writer)
    time.sleep(0.2)
    event()
    (gap,) = struct.unpack("d", os.read(reader, 8))
    os.close(reader)
    os.waitpid(pid, 0)
    return gap


def _ping(sock: socket.socket, seconds: float) -> float:
    sock.setblocking(False)
    until = time.monotonic() + seconds
    last, gap, number = None, 0.0, 0
    while (now := time.monotonic()) < until:
        number = (number + 1) & 0xFFFF
        body = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, number)
        packet = body[:2] + struct.pack("!H", internet_checksum(body)) + body[4:]
        try:
            sock.sendto(packet, (VIP, 0))
        except OSError:
            pass
        due = now + PROBE_S
        while (left := due - time.monotonic()) > 0:
            if select.select([sock], [], [], left)[0]:
                data = sock.recv(256)
                if data[20] == 0:  # an echo reply
                    at = time.monotonic()
                    if last is not None:
                        gap = max(gap, at - last)
                    last = at
    return gap


def measure(rounds: int, intervals: tuple[float, ...], loaded: bool = False) -> list[Comparison]:
    keepalived = shutil.which("keepalived", path=os.environ["PATH"] + ":/usr/sbin")
    if keepalived is None:
        print("failover: keepalived is not installed; nothing to compare with", file=sys.stderr)
        return []
    found = []
    for interval in intervals:
        suffix = ", taker under load" if loaded else ""
        crash = Comparison(f"gap, crash, adverts every {interval * 1000:g} ms{suffix}", "ms", "keepalived", "≤ 1.05")
        graceful = Comparison(f"gap, graceful stop, adverts every {interval * 1000:g} ms{suffix}", "ms", "keepalived", "≤ 1.05")
        for number in range(rounds):
            for program in ("relevo", "keepalived"):
                print(f"  {interval:g} s, round {number + 1} of {rounds}, {program}", file=sys.stderr)
                results = _round(program, interval, keepalived, loaded)
                for comparison, value in zip((crash, graceful), results, strict=True):
                    (comparison.ours if program == "relevo" else comparison.theirs).values.append(value * 1000)
        found += [crash, graceful]
    return found


def _round(program: str, interval: float, keepalived: str, loaded: bool) -> tuple[float, float]:
    pair = Pair((program, program), version=3, interval=interval, keepalived=keepalived)
    high, low = pair.nodes
    try:
        if loaded:
            _add_load(pair, low)
        for node in pair.nodes:
            pair.start(node)
        pair.wait_for_master(high, 15, low)
        time.sleep(0.5)
        if loaded:
            _drive_load(pair)
        wait = 3.7 * interval + 0.6
        crash = ping_gap(pair, lambda: pair.crash(high), wait + 0.4)
        pair.revive(high)
        pair.wait_for_master(high, 15, low)
        time.sleep(0.5)
        graceful = ping_gap(pair, lambda: pair.stop(high), wait + 0.4)
        return crash, graceful
    finally:
        pair.close()


LOAD_PORT = 8080
CHECKED = 100
SERVICE = """
virtual_server {address} {port} {{
    delay_loop 0.1
    warmup 0
    protocol TCP
    lb_algo rr
{servers}}}
"""
SERVER = """    real_server {server} {port} {{
        TCP_CHECK {{
            connect_port {checked}
        }}
    }}
"""


def _add_load(pair: Pair, taker: Node) -> None:
    """Load the director that takes over: relayed traffic, and a hundred servers checked ten times a second.

    With Relevo, the load is on the balancer and the proxy of the same daemon. keepalived has no proxy; there a second daemon,
    Relevo, makes the load on the same machine.
    """
    pair.cluster.start_service(pair.client, Service("http", LOAD_PORT))
    web = pair.client.address
    checked = "".join(SERVER.format(server=web, port=LOAD_PORT + n, checked=LOAD_PORT) for n in range(CHECKED))
    text = SERVICE.format(
        address=taker.host.address, port=80, servers=SERVER.format(server=web, port=LOAD_PORT, checked=LOAD_PORT)
    )
    text += SERVICE.format(address=taker.host.address, port=81, servers=checked)
    if taker.program == "relevo":
        file = Path(taker.conf)
        file.write_text(file.read_text() + text)
        return
    file = pair.cluster.folder / "load.conf"
    file.write_text(text)
    argv = [sys.executable, "-m", "relevo", "run", "-l", "-f", str(file)]
    argv += ["--run-dir", str(pair.cluster.folder / "lr"), "--state-dir", str(pair.cluster.folder / "ls")]
    pair.cluster.run_in(taker.host, "load", argv, pair.cluster.folder / "load.log")


def _drive_load(pair: Pair) -> None:
    """Request pages as fast as the proxy of the director that takes over delivers them, from before the event until the end."""
    wrk = shutil.which("wrk")
    assert wrk is not None, "wrk is not installed"
    argv = [wrk, "-t1", "-c32", "-d30", f"http://{pair.nodes[1].host.address}:80/"]
    pair.cluster.run_in(pair.client, "wrk", argv, pair.cluster.folder / "wrk.log")
    time.sleep(1.0)


def main(rounds: int = 5, intervals: tuple[float, ...] = INTERVALS, loaded: bool = False) -> None:
    comparisons = measure(rounds, intervals, loaded)
    if comparisons:
        show("Failover gap, VRRPv3, priorities 150 and 100", [c.row() for c in comparisons], HEADER)
        save("failover-loaded" if loaded else "failover", comparisons)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
