"""What a packet of an established NAT flow costs in the XDP program, by test-run repeat, as a multiple of an empty program.

``same`` hits one flow again and again among 1, 10 000 and 1 000 000; ``round`` goes round all of them in scattered order, so that
every packet meets memory that no cache has. Also 1 000 services of 10 servers, and how long a weight takes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import statistics
import time

from bench.live import compiled
from bench.measure import save, show
from relevo.model import Endpoint, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, EditServer, Operation, ServerEntry, ServiceEntry
from relevo.planes.ebpf import ROOT, EbpfPlane, remove_pins, syscall
from relevo.planes.ebpf.instance import Sizes
from relevo.planes.ebpf.libbpf import Object

PIN = ROOT / "relevo" / "cost"
REPEAT = 1_000_000
ROUNDS = 9
XDP_DROP, XDP_TX = 1, 3
STEPS = {1: 0, 1000: 389, 10_000: 7919, 1_000_000: 618_033}
"""From one flow to the next: coprime to their number."""


class Plan(ctypes.LittleEndianStructure):
    """``struct plan`` of cost.bpf.c."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("flows", "next", "step", "server", "generation")),
        ("frame", ctypes.c_uint8 * 64),
    ]


def services(count: int, servers: int) -> list[Operation]:
    found: list[Operation] = []
    for number in range(count):
        key = ServiceKey(Protocol.UDP, Endpoint(f"10.1.{number // 200}.{number % 200 + 1}", 53))
        found.append(AddService(ServiceEntry(key=key, scheduler="rr")))
        for server in range(servers):
            endpoint = Endpoint(f"10.2.{number // 200}.{server + 1}", 5300 + number % 200)
            found.append(AddServer(key, ServerEntry(endpoint=endpoint)))
    return found


def packet() -> bytes:
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    headers = (
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.8.0.0", dst="10.1.0.1") / UDP(sport=1024, dport=53)
    )
    return bytes(headers / (b"x" * 22))


def measure(flows: int, count: int = 1, servers: int = 1) -> dict[str, float]:
    remove_pins(PIN)
    sizes = Sizes(
        connections=max(flows, 1000), services=max(16, count), servers=max(64, 2 * count * servers), server_lists=1 << 16
    )
    plane = EbpfPlane(PIN, sizes, attach=False)
    begun = time.perf_counter()
    assert asyncio.run(plane.apply(services(count, servers))) == []
    applied = time.perf_counter() - begun
    instance, table = plane.open()
    first = table.services[ServiceKey(Protocol.UDP, Endpoint("10.1.0.1", 53))].servers[0]
    file = compiled("cost")
    opened = Object(file)
    opened.reuse({name: each.descriptor for name, each in instance.maps.items()})
    opened.load()
    file.unlink()
    programs = opened.program_descriptors()
    plan = Plan.from_buffer(syscall.Map(opened.map_descriptors()["plans"]).mapped())
    frame = packet()
    plan.frame[:] = frame
    plan.server, plan.generation, plan.flows = first.number, first.value.generation, flows
    assert syscall.test_run(programs["cost_fill"], frame, repeat=flows).value == XDP_DROP
    syscall.test_run(programs["cost_neighbour"], frame)

    def run(name: str, step: int, repeat: int = REPEAT) -> syscall.TestRun:
        plan.next, plan.step = 0, step
        return syscall.test_run(programs[name], frame, repeat=repeat)

    assert run("cost_forward", 0, 1).value == XDP_TX
    step = STEPS[flows]
    values: dict[str, list[int]] = {name: [] for name in ("empty", "restore", "same", "round", "restore round")}
    for _ in range(ROUNDS):
        values["empty"].append(run("cost_empty", 0).duration_ns)
        values["restore"].append(run("cost_restore", 0).duration_ns)
        values["same"].append(run("cost_forward", 0).duration_ns)
        values["restore round"].append(run("cost_restore", step).duration_ns)
        values["round"].append(run("cost_forward", step).duration_ns)
    result = {name: statistics.median(found) for name, found in values.items()}
    buckets = instance.maps["buckets"]
    result["bytes per flow"] = buckets.max_entries * buckets.value_size / flows
    result["apply s"] = applied
    result["weight ms"] = weight_change(plane, count)
    opened.close()
    asyncio.run(plane.close())
    remove_pins(PIN)
    return result


def weight_change(plane: EbpfPlane, count: int) -> float:
    """Milliseconds until the programs read another weight, the worst of many services."""
    _, table = plane.open()
    worst = 0.0
    for key, service in list(table.services.items())[: min(count, 100)]:
        server = service.servers[0]
        wanted = ServerEntry(endpoint=server.entry.endpoint, weight=server.entry.weight + 1)
        begun = time.perf_counter()
        asyncio.run(plane.apply([EditServer(key, wanted)]))
        assert server.value.weight == wanted.weight
        worst = max(worst, time.perf_counter() - begun)
    return worst * 1000


def main() -> None:
    os.sched_setaffinity(0, {1})
    rows, kept = [], {}
    for flows, count, servers in ((1, 1, 1), (10_000, 1, 1), (1_000_000, 1, 1), (1000, 1, 1), (1000, 1000, 10)):
        found = kept[f"{flows} flows, {count} x {servers}"] = measure(flows, count, servers)
        rows.append(
            [
                f"{flows:,}",
                f"{count:,} x {servers}",
                f"{found['empty']:.0f} ns",
                f"{found['same']:.0f} ns, x {found['same'] / found['empty']:.2f}",
                f"{found['round']:.0f} ns, x {found['round'] / found['empty']:.2f}",
                f"{found['bytes per flow']:.0f}",
                f"{found['weight ms']:.2f} ms",
            ]
        )
    os.sched_setaffinity(0, {0, 1})
    header = ["flows", "services x servers", "empty program", "one flow", "round all flows", "bytes per flow", "weight change"]
    show("Cost of a packet in the XDP program, medians, test-run repeat", rows, header)
    save("cost", [], cost=kept)


if __name__ == "__main__":
    main()
