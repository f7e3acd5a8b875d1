"""The eBPF plane while every process of Relevo is killed, and under a SYN flood.

``kill``: wrk and a transfer of 1 GB run while the daemon is killed by SIGKILL and started again. No request may fail, the
transfer must be byte-identical, and counters must go on. ``flood``: one core sends SYNs as fast as it can, while requests run
on 1 000 connections that were established before.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import statistics
import sys
import threading
import time

from bench.forwarding import CONF, allow_forwarding, start_relevo
from bench.live import Generator
from bench.measure import save
from bench.proxy import pids_of, raise_limit
from bench.rig import BIG, VIP, Rig
from relevo.api import schema
from relevo.api.client import ask
from relevo.lab.namespaces import index_of, netlink
from relevo.planes.catalogue import pin_folder
from relevo.planes.ebpf import remove_pins

HELD = 1000
FLOOD_S = 6.0
FLOOD_BATCH = 20_000


def connections_of(rig: Rig) -> int:
    return sum(service.connections for service in ask(rig.folder / "run", schema.Status(), 5.0).balancer.services)


def kill(rig: Rig, relevo: object) -> dict[str, object]:
    """Kill every process of the daemon under load, and start it again."""
    pid: int = relevo.pid  # type: ignore[attr-defined]
    wanted = hashlib.sha256((rig.folder / "big").read_bytes()).hexdigest()
    before = connections_of(rig)
    said: list[str] = []
    fetched: list[tuple[int, str]] = []
    load = threading.Thread(
        target=lambda: said.append(rig.ask("client", ["wrk", "-t1", "-c32", "-d12", "-H", "Connection: close", f"http://{VIP}/"]))
    )
    fetch = threading.Thread(target=lambda: fetched.append(slow_digest(rig)))
    load.start()
    fetch.start()
    time.sleep(3)
    for each in pids_of(pid):
        os.kill(each, signal.SIGKILL)
    killed = time.monotonic()
    time.sleep(3)
    again = start_relevo(rig)
    back = time.monotonic() - killed
    load.join()
    fetch.join()
    errors = re.findall(r"Socket errors:.*|Non-2xx.*", said[0])
    total = int(re.search(r"(\d+) requests in", said[0]).group(1))  # type: ignore[union-attr]
    after = connections_of(rig)
    length, digest = fetched[0]
    result = {
        "requests": total,
        "errors": errors,
        "transfer": length,
        "identical": length == BIG and digest == wanted,
        "connections before": before,
        "connections after": after,
        "counters go on": after - before >= total,
        "back after s": round(back, 2),
    }
    print(f"\nkill -9 of everything, back after {back:.1f} s")
    print(f"  {total} requests, each on its own connection; errors: {errors or 'none'}")
    print(f"  1 GB meanwhile: {length} bytes, {'byte-identical' if result['identical'] else 'DIFFERENT'}")
    print(f"  connections counted: {before} before, {after} after ({after - before} for {total} requests)")
    rig.end(again)
    return result


def slow_digest(rig: Rig) -> tuple[int, str]:
    """Fetch the big file with pauses, so that it takes as long as the load does."""
    with rig.inside("client"):
        sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.settimeout(30)
    sock.connect((VIP, 80))
    sock.sendall(b"GET /big HTTP/1.0\r\n\r\n")
    sha, length, head, begun = hashlib.sha256(), 0, b"", time.monotonic()
    while b"\r\n\r\n" not in head:
        head += sock.recv(65536)
    body = head.partition(b"\r\n\r\n")[2]
    while body:
        sha.update(body)
        length += len(body)
        ahead = length / (BIG / 9) - (time.monotonic() - begun)  # nine seconds for all of it
        if ahead > 0:
            time.sleep(ahead)
        body = sock.recv(1 << 20)
    return length, sha.hexdigest()


def syn_frame(rig: Rig) -> bytes:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether

    macs = {}
    for space, name in (("client", "c0"), ("director", "c0d")):
        with rig.inside(space), netlink() as ip:
            macs[space] = ip.get_links(index_of(ip, name))[0].get_attr("IFLA_ADDRESS")
    frame = bytes(
        Ether(src=macs["client"], dst=macs["director"]) / IP(src="11.0.0.1", dst=VIP) / TCP(sport=1024, dport=80, flags="S")
    )
    return frame.ljust(64, b"\0")


def latencies(held: list[socket.socket], seconds: float) -> tuple[list[float], int]:
    """Send requests on the connections in turn; return the latencies in milliseconds, and how many answers were lost."""
    times, lost, ends = [], 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        for sock in held:
            if time.monotonic() > ends:
                break
            begun = time.perf_counter()
            try:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                lost += b"200 OK" not in sock.recv(4096)
            except OSError:
                lost += 1
            times.append((time.perf_counter() - begun) * 1000)
    return times, lost


def flood(rig: Rig) -> dict[str, object]:
    """Send SYNs from one core; measure the latency of connections that were established before."""
    with rig.inside("director"):
        helper = Generator()
        helper.attach("traffic_pass", socket.if_nametoindex("c0d"))
    for server in ("server-1", "server-2"):  # drops their answers to the SYNs' source addresses
        with rig.inside(server), netlink() as ip:
            ip.route("add", dst="11.0.0.0/8", type="blackhole")
    held = []
    for _ in range(HELD):
        with rig.inside("client"):
            sock = socket.socket()
        sock.settimeout(10)
        sock.connect((VIP, 80))
        held.append(sock)
    unloaded, lost_before = latencies(held, 3)
    stop = threading.Event()
    sent = [0]

    def send() -> None:
        os.sched_setaffinity(0, {1})
        with rig.inside("client"):
            generator = Generator()
            generator.plan.interface = socket.if_nametoindex("c0")
            frame = syn_frame(rig)
        while not stop.is_set():
            with rig.inside("client"):
                generator.send("traffic_flood", frame, FLOOD_BATCH)
            sent[0] += FLOOD_BATCH

    os.sched_setaffinity(0, {0})
    thread = threading.Thread(target=send)
    begun = time.monotonic()
    thread.start()
    time.sleep(1)
    loaded, lost = latencies(held, FLOOD_S)
    stop.set()
    thread.join()
    rate = sent[0] / (time.monotonic() - begun)
    alive = latencies(held, 0.0)[1] == 0 and sum(answers(sock) for sock in held)
    os.sched_setaffinity(0, {0, 1})
    before, during = statistics.median(unloaded), statistics.median(loaded)
    balancer = ask(rig.folder / "run", schema.Status(), 10.0).balancer
    opened = sum(service.connections for service in balancer.services)
    print(f"\nSYN flood from one core: {rate:,.0f} SYN/s")
    print(f"  connections opened meanwhile: {opened:,}; reasons: {balancer.packets}")
    print(f"  {alive} of {HELD} established connections answer afterwards; lost during: {lost}, before: {lost_before}")
    print(f"  median latency {before:.3f} ms unloaded, {during:.3f} ms under the flood: ratio {during / before:.2f}")
    return {"rate": rate, "alive": alive, "lost": lost, "unloaded ms": before, "loaded ms": during, "ratio": during / before}


def answers(sock: socket.socket) -> bool:
    try:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return b"200 OK" in sock.recv(4096)
    except OSError:
        return False


def main() -> None:
    raise_limit()
    rig = Rig()
    try:
        allow_forwarding(rig)
        rig.start_nginx()
        killed = kill(rig, start_relevo(rig))
        start_relevo(rig, CONF)
        flooded = flood(rig)
        save("survival", [], kill=killed, flood=flooded)
    finally:
        rig.close()
        remove_pins(pin_folder(rig.folder / "run"))


if __name__ == "__main__":
    sys.exit(main())
