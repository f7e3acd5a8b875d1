"""Failover gap beside real keepalived: the same namespaces, the same client, alternating.

The client pings the virtual address every half millisecond; the kernel answers, so nothing but VRRP is measured. The gap
is the longest time between two answers around the event.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from tests.interop.pair import VIP, Pair

from bench.measure import HEADER, Comparison, save, show
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
        suffix = ", both under load" if loaded else ""
        crash = Comparison(f"gap, crash, adverts every {interval * 1000:g} ms{suffix}", "ms", "keepalived", "≤ 1.05")
        polite = Comparison(f"gap, polite stop, adverts every {interval * 1000:g} ms{suffix}", "ms", "keepalived", "≤ 1.05")
        for number in range(rounds):
            for program in ("relevo", "keepalived"):
                print(f"  {interval:g} s, round {number + 1} of {rounds}, {program}", file=sys.stderr)
                results = _round(program, interval, keepalived, loaded)
                for comparison, value in zip((crash, polite), results, strict=True):
                    (comparison.ours if program == "relevo" else comparison.theirs).values.append(value * 1000)
        found += [crash, polite]
    return found


def _round(program: str, interval: float, keepalived: str, loaded: bool) -> tuple[float, float]:
    pair = Pair((program, program), version=3, interval=interval, keepalived=keepalived)
    high, low = pair.nodes
    load = []
    try:
        for node in pair.nodes:
            pair.start(node)
        pair.wait_for_master(high, 15, low)
        time.sleep(0.5)
        if loaded:
            load = _load(pair)
        wait = 3.7 * interval + 0.6
        crash = ping_gap(pair, lambda: pair.crash(high), wait + 0.4)
        pair.revive(high)
        pair.wait_for_master(high, 15, low)
        time.sleep(0.5)
        polite = ping_gap(pair, lambda: pair.stop(high), wait + 0.4)
        return crash, polite
    finally:
        for process in load:
            process.kill()
            process.wait()
        pair.close()


def _load(pair: Pair) -> list[subprocess.Popen[bytes]]:
    """Keep every core busy, as a relay under full load would: see ``bench/run.py --only failover-loaded``."""
    code = "import os\nwhile True:\n  os.getppid()"
    return [subprocess.Popen([sys.executable, "-c", code]) for _ in range(os.cpu_count() or 1)]


def main(rounds: int = 5, intervals: tuple[float, ...] = INTERVALS, loaded: bool = False) -> None:
    comparisons = measure(rounds, intervals, loaded)
    if comparisons:
        show("Failover gap, VRRPv3, priorities 150 and 100", [c.row() for c in comparisons], HEADER)
        save("failover-loaded" if loaded else "failover", comparisons)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
