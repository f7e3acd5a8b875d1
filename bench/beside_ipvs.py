"""The eBPF plane beside the kernel's IPVS, on a kernel that has both; run as root on a machine used for nothing else.

    python bench/beside_ipvs.py [--rounds N] [--instructions]

With ``--instructions`` guest time counts instructions, a nanosecond each (QEMU's ``-icount shift=0`` on one CPU). The cost that
a path adds to plain routing is then exact, whatever the load of the host.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import rig as rigs
from bench.forwarding import allow_forwarding
from bench.live import Generator, native
from bench.rig import DIRECT, SERVERS, THIRD, VIP, Rig, program
from relevo.lab.namespaces import index_of, netlink
from relevo.model import Endpoint, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, ServerEntry, ServiceEntry
from relevo.planes.ebpf import ROOT, EbpfPlane
from relevo.planes.ebpf.attach import remove_filter
from relevo.planes.ebpf.instance import Sizes

EBPF_PORT, IPVS_PORT, UDP_PORT, UDP_SERVER_PORT = 80, 83, 53, 5353
CRR_EBPF_PORT, CRR_IPVS_PORT = 84, 85
CRR_SERVERS = {"routing": 7000, "IPVS": 7001, "Relevo": 7002}
"""A server port for each path: a server in TIME_WAIT refuses what has another path's timestamps."""
ASKED_AT_ONCE = 32
KINDS = {
    "keep": "requests/s, kept alive",
    "close": "requests/s, a connection each",
    "crr": "connections/s, a byte there and back (TCP_CRR)",
}
FLOWS = 1000
PIN = ROOT / "relevo" / "beside-ipvs"


def run_in(rig: Rig, where: str, argv: list[str]) -> None:
    with rig.inside(where):
        subprocess.run(argv, check=True)


def ipvs(rig: Rig, *arguments: str) -> None:
    run_in(rig, "director", ["ipvsadm", *arguments])


class Plane:
    """Context manager: the eBPF plane on the director."""

    def __init__(self, rig: Rig, hooks: str) -> None:
        self._rig = rig
        self.plane = EbpfPlane(PIN, Sizes(connections=200_000), hooks=hooks)

    def _run(self, call: Callable[[], object]) -> None:
        with self._rig.inside("director"):
            asyncio.run(call())  # type: ignore[arg-type]

    def __enter__(self) -> EbpfPlane:
        self._run(self.plane.observe)
        operations: list[AddService | AddServer] = []
        for protocol, port, target in (
            (Protocol.TCP, EBPF_PORT, 80),
            (Protocol.TCP, CRR_EBPF_PORT, CRR_SERVERS["Relevo"]),
            (Protocol.UDP, UDP_PORT, UDP_SERVER_PORT),
        ):
            key = ServiceKey(protocol, Endpoint(VIP, port))
            operations.append(AddService(ServiceEntry(key=key, scheduler="rr")))
            behind = SERVERS if protocol is Protocol.UDP else SERVERS[:1]
            operations += [AddServer(key, ServerEntry(endpoint=Endpoint(address, target))) for address in behind]
        self._run(lambda: self.plane.apply(operations))
        return self.plane

    def __exit__(self, *_: object) -> None:
        self._run(self.plane.remove)


def requests(rig: Rig, url: str, close: bool, seconds: int) -> float:
    argv = ["wrk", "-t1", "-c32", f"-d{seconds}", *(["-H", "Connection: close"] if close else []), f"{url}/"]
    said = rig.ask("client", argv, timeout=900)
    return float(next(line.split()[1] for line in said.splitlines() if line.startswith("Requests/sec")))


def connections(rig: Rig, crr: Path, address: str, port: int, seconds: int) -> float:
    return float(rig.ask("client", [str(crr), "ask", address, str(port), str(seconds), str(ASKED_AT_ONCE)], timeout=900))


def frame(rig: Rig) -> bytes:
    """An Ethernet frame of 64 bytes with a UDP packet from the client to the virtual address."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    macs = {}
    for space, name in (("client", "c0"), ("director", "c0d")):
        with rig.inside(space), netlink() as ip:
            macs[space] = ip.get_links(index_of(ip, name))[0].get_attr("IFLA_ADDRESS")
    packet = (
        Ether(src=macs["client"], dst=macs["director"]) / IP(src="10.1.0.2", dst=VIP) / UDP(sport=1024, dport=UDP_PORT, chksum=0)
    )
    return bytes(packet / (b"x" * 22))


def datagrams(rig: Rig, sinks: list[Generator], generator: Generator, packet: bytes, count: int) -> float:
    """Send; return packets a second that arrived at the servers."""
    with rig.inside("client"):
        generator.send("traffic_send", packet, FLOWS * 2)  # creates every flow and resolves the routes to the servers
        time.sleep(0.2)
        before, begun = sum(sink.plan.received for sink in sinks), time.monotonic()
        generator.send("traffic_send", packet, count)
        taken = time.monotonic() - begun
        time.sleep(0.2)
    return (sum(sink.plan.received for sink in sinks) - before) / taken


def answer_arp(rig: Rig) -> None:
    """Give the director permanent neighbour entries of its servers: sinks do not answer ARP."""
    for number, address in enumerate(SERVERS, 1):
        with rig.inside(f"server-{number}"), netlink() as ip:
            mac = ip.get_links(index_of(ip, f"s{number}"))[0].get_attr("IFLA_ADDRESS")
        with rig.inside("director"), netlink() as ip:
            ip.neigh("replace", dst=address, lladdr=mac, ifindex=index_of(ip, f"s{number}d"), state=128)


def udp_rates(rig: Rig, rounds: int, count: int) -> dict[str, list[float]]:
    answer_arp(rig)
    packet = frame(rig)
    rates: dict[str, list[float]] = {"IPVS": [], "Relevo, XDP": []}
    with rig.inside("client"):
        generator = Generator()
        generator.plan.interface = socket.if_nametoindex("c0")
    generator.plan.flows = FLOWS
    for number in range(rounds):
        for path in ["IPVS", "Relevo, XDP"][:: 1 if number % 2 == 0 else -1]:
            sinks = []
            for server in (1, 2):
                with rig.inside(f"server-{server}"):
                    sink = Generator()
                    index = socket.if_nametoindex(f"s{server}")
                    if path == "IPVS":
                        sink.attach_tc("traffic_receive_tc", index)
                    else:
                        sink.attach("traffic_receive", index)
                    sinks.append(sink)
            if path == "IPVS":
                with rig.inside("director"):
                    helper = Generator()
                    helper.attach(
                        "traffic_pass", socket.if_nametoindex("c0d")
                    )  # a veth takes frames from XDP only when this end has a program
                ipvs(rig, "-A", "-u", f"{VIP}:{UDP_PORT}", "-s", "rr")
                for address in SERVERS:
                    ipvs(rig, "-a", "-u", f"{VIP}:{UDP_PORT}", "-r", f"{address}:{UDP_SERVER_PORT}", "-m")
                rates[path].append(datagrams(rig, sinks, generator, packet, count))
                ipvs(rig, "-D", "-u", f"{VIP}:{UDP_PORT}")
                helper.close()
            else:
                with Plane(rig, "xdp") as plane:
                    rates[path].append(datagrams(rig, sinks, generator, packet, count))
                    print(f"    {plane.attachments()} {plane.drop_counters()}", file=sys.stderr)
            for number_of, sink in enumerate(sinks, 1):
                sink.close()
                with rig.inside(f"server-{number_of}"):
                    remove_filter(socket.if_nametoindex(f"s{number_of}"))
            print(f"  udp {path}: {rates[path][-1]:.0f}/s", file=sys.stderr, flush=True)
    return rates


def tcp(rig: Rig, rounds: int, seconds: int) -> dict[str, dict[str, list[float]]]:
    """Measure every kind on every path; one server behind each, as plain routing has."""
    crr = native("crr")
    for port in CRR_SERVERS.values():
        rig.start("server-1", [str(crr), "serve", str(port)])
    for port, target in ((IPVS_PORT, THIRD), (CRR_IPVS_PORT, CRR_SERVERS["IPVS"])):
        ipvs(rig, "-A", "-t", f"{VIP}:{port}", "-s", "rr")
        ipvs(rig, "-a", "-t", f"{VIP}:{port}", "-r", f"{SERVERS[0]}:{target}", "-m")
    targets = {
        "routing": (SERVERS[0], DIRECT, CRR_SERVERS["routing"]),
        "IPVS": (VIP, IPVS_PORT, CRR_IPVS_PORT),
        "Relevo": (VIP, EBPF_PORT, CRR_EBPF_PORT),
    }
    values: dict[str, dict[str, list[float]]] = {path: {kind: [] for kind in KINDS} for path in targets}
    for number in range(rounds):
        for path in [*targets][:: 1 if number % 2 == 0 else -1]:
            address, http_port, crr_port = targets[path]
            for kind in KINDS:
                with Plane(rig, "auto") if path == "Relevo" else contextlib.nullcontext():
                    if kind == "crr":
                        rate = connections(rig, crr, address, crr_port, seconds)
                    else:
                        rate = requests(rig, f"http://{address}:{http_port}", kind == "close", seconds)
                values[path][kind].append(rate)
                print(f"  {path} {kind}: {rate:.0f}/s", file=sys.stderr, flush=True)
    ipvs(rig, "-C")
    crr.unlink()
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--packets", type=int, default=200_000)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--only", choices=("udp", "tcp"))
    chosen = parser.parse_args()
    if os.geteuid() != 0 or program("ipvsadm") is None:
        sys.exit("needs root and ipvsadm")
    subprocess.run(["modprobe", "-a", "ip_vs", "ip_vs_rr"], check=True)
    rigs.BIG = 1_000_000
    rig = Rig(big=False)
    try:
        allow_forwarding(rig)
        rig.start_nginx()
        rates = udp_rates(rig, chosen.rounds, chosen.packets) if chosen.only != "tcp" else {}
        values = tcp(rig, chosen.rounds, chosen.seconds) if chosen.only != "udp" else {}
    finally:
        rig.close()
    median = {path: {kind: statistics.median(found) for kind, found in kinds.items()} for path, kinds in values.items()}
    print(f"\nkernel {os.uname().release}, medians of {chosen.rounds}, alternating")
    for kind, name in KINDS.items() if median else ():
        print(f"  {name}: " + ", ".join(f"{path} {median[path][kind]:.0f}" for path in median), end="")
        print(f"; Relevo ÷ IPVS {median['Relevo'][kind] / median['IPVS'][kind]:.3f}")
    if chosen.instructions and median:
        for kind in KINDS:
            cost = {path: 1e9 / median[path][kind] for path in median}
            added = {path: cost[path] - cost["routing"] for path in ("IPVS", "Relevo")}
            print(f"  instructions a request ({kind}): " + ", ".join(f"{path} {cost[path]:.0f}" for path in cost), end="")
            print(f"; added: IPVS {added['IPVS']:.0f}, Relevo {added['Relevo']:.0f}, ratio {added['Relevo'] / added['IPVS']:.3f}")
    udp = {path: statistics.median(found) for path, found in rates.items()}
    if udp:
        print(f"  small UDP packets/s: {udp}; ratio {udp['Relevo, XDP'] / udp['IPVS']:.2f}")


if __name__ == "__main__":
    main()
