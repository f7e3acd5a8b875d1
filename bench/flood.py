"""Floods of adverts, from one core of the client, beside real keepalived: false transitions, gap of a crash, CPU, log.

Adverts come every 10 ms. A flood has one kind of adverts: of an unknown virtual router; with a wrong checksum; valid ones
of lower priority. Senders are forged at random.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import socket
import struct
import sys
import time
from pathlib import Path

from tests.interop.pair import Pair

from bench.failover import ping_gap
from bench.measure import show
from bench.proxy import pids_of
from relevo.lab.cluster import Cluster
from relevo.lab.topology import Host
from relevo.wire.checksum import internet_checksum
from relevo.wire.vrrp import Advert, encode

GROUP = "224.0.0.18"
FRAMES = 4096
KINDS = ("none", "unknown", "invalid", "lower")
SECONDS = 8.0
TICK = os.sysconf("SC_CLK_TCK")


def frames(kind: str) -> list[bytes]:
    """Return Ethernet frames of a kind, each of another sender."""
    made = []
    chosen = random.Random(7)
    for _ in range(FRAMES):
        source = f"192.168.6.{chosen.randrange(2, 240)}"
        vrid, priority = (77, 200) if kind == "unknown" else (51, 1)
        payload = encode(Advert(3, vrid, priority, 0.01, ("192.168.6.240",)), source, GROUP)
        if kind == "invalid":
            payload = payload[:6] + bytes((payload[6] ^ 0xFF, *payload[7:]))
        head = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0xC0, 20 + len(payload), 1, 0, 255, 112, 0, *map(socket.inet_aton, (source, GROUP))
        )
        head = head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:]
        made.append(bytes.fromhex("01005e000012") + bytes.fromhex("02aabbccddee0800") + head + payload)
    return made


class Flood:
    """A process on the client's machine that sends as fast as one core can."""

    def __init__(self, pair: Pair, kind: str) -> None:
        self.kind = kind
        self._pid = 0
        self._reader, writer = os.pipe()
        if kind == "none":
            os.close(writer)
            return
        packets = frames(kind)
        with pair.cluster.stage.inside(pair.client):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.bind(("eth0", 0))
        self._pid = os.fork()
        if self._pid == 0:
            count = 0
            ended: list[int] = []
            signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
            for packet in itertools.cycle(packets):
                try:
                    sock.send(packet)
                    count += 1
                except OSError:
                    continue
                finally:
                    if ended:
                        os.write(writer, struct.pack("Q", count))
                        os._exit(0)
        sock.close()
        os.close(writer)

    def end(self) -> int:
        """End it; return the packets that it sent."""
        if self._pid:
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)
        data = os.read(self._reader, 8)
        os.close(self._reader)
        return struct.unpack("Q", data)[0] if data else 0


def cpu_s(cluster: Cluster, host: Host) -> float:
    """Return the CPU time of a director's processes in seconds."""
    total = 0
    for pid in pids_of(cluster._processes[host.name]):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def measure(program: str, kind: str, keepalived: str) -> list[str]:
    pair = Pair((program, program), version=3, interval=0.01, keepalived=keepalived)
    high, low = pair.nodes
    try:
        for node in pair.nodes:
            pair.start(node)
        pair.wait_for_master(high, 15, low)
        time.sleep(1.0)
        before = [(cpu_s(pair.cluster, node.host), pair.cluster.log_file(node.host).stat().st_size) for node in pair.nodes]
        entered = pair.logs().count("Entering")
        flood = Flood(pair, kind)
        time.sleep(SECONDS)
        after = [(cpu_s(pair.cluster, node.host), pair.cluster.log_file(node.host).stat().st_size) for node in pair.nodes]
        false = pair.logs().count("Entering") - entered
        gap = ping_gap(pair, lambda: pair.crash(high), 2.0)
        sent = flood.end()
        busy = [100 * (later[0] - former[0]) / SECONDS for former, later in zip(before, after, strict=True)]
        logged = max((later[1] - former[1]) / SECONDS for former, later in zip(before, after, strict=True))
        rate = sent / (SECONDS + 2.2)
        return [
            program,
            kind,
            f"{rate:,.0f}/s",
            str(false),
            f"{gap * 1000:.1f} ms",
            f"{busy[0]:.0f} %, {busy[1]:.0f} %",
            f"{logged:,.0f} B/s",
        ]
    finally:
        pair.close()


def main(rounds: int = 1) -> None:
    keepalived = shutil.which("keepalived", path=os.environ["PATH"] + ":/usr/sbin") or ""
    rows = []
    for _ in range(rounds):
        for kind in KINDS:
            for program in ("relevo", *(["keepalived"] if keepalived else [])):
                print(f"  {kind}, {program}", file=sys.stderr)
                rows.append(measure(program, kind, keepalived))
    show(
        "Floods of adverts",
        rows,
        ["program", "flood", "sent", "false transitions", "gap of a crash", "CPU of master, backup", "log"],
    )


if __name__ == "__main__":
    main()
