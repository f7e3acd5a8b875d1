"""1 000 services of 10 servers into an empty IPVS table, beside keepalived on the same kernel; run as root on one that has IPVS.

    python bench/apply_ipvs.py [--rounds N]

Both read the same file. *Applied* is from the first service in the table to the last server; *from start* counts from the
start of the process; *reload* is from SIGHUP to a changed weight of the last server in the table. Then the same change in the
plane alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.compile import configuration
from bench.rig import program
from relevo.config import compile_text
from relevo.machines.pool import PoolMachine
from relevo.model.table import EditServer
from relevo.node.table import reconcile
from relevo.planes.ipvs import IpvsPlane
from relevo.planes.ipvs.convert import identity_of
from relevo.planes.ipvs.kernel import Kernel

SERVERS = 10_000
LIMIT_S = 120.0
POLL_S = 0.01
WHAT = ("applied", "from start", "reload")


def file_text() -> str:
    return configuration(SERVERS).replace("delay_loop 10", "delay_loop 3600")


def measured(argv: list[str], kernel: Kernel, text: str, file: Path) -> tuple[float, float, float]:
    """Start a program on an empty table; return the seconds of ``WHAT``."""
    desired = [service.keys[0] for service in compile_text(text, "bench", lambda *_: []).configuration.virtual_servers]
    first, last = identity_of(desired[0]), identity_of(desired[-1])
    begun = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    seen = 0.0
    try:
        while time.monotonic() - begun < LIMIT_S:
            if not seen and has(kernel, first):
                seen = time.monotonic()
            if seen and has(kernel, last) and len(kernel.destinations(last)) == 10:
                now = time.monotonic()
                return now - seen, now - begun, reload(process.pid, kernel, text, file)
            time.sleep(POLL_S)
        raise SystemExit(f"{argv[0]} did not fill the table")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        subprocess.run(["pkill", "-KILL", "keepalived"], check=False)
        kernel.flush()
        file.write_text(text)
        time.sleep(1)


def reload(pid: int, kernel: Kernel, text: str, file: Path) -> float:
    """Change the weight of the last server in the file; return the seconds from SIGHUP until the table has it."""
    time.sleep(5)  # a start has more to do than its table
    last = identity_of(compile_text(text, "bench", lambda *_: []).configuration.virtual_servers[-1].keys[0])
    head, _, tail = text.rpartition("weight 1")
    file.write_text(f"{head}weight 7{tail}")
    begun = time.monotonic()
    os.kill(pid, signal.SIGHUP)
    while time.monotonic() - begun < LIMIT_S:
        if any(server.weight == 7 for server in kernel.destinations(last)):
            return time.monotonic() - begun
        time.sleep(POLL_S)
    raise SystemExit("the reload did not reach the table")


def has(kernel: Kernel, identity: object) -> bool:
    try:
        kernel.service(identity)  # type: ignore[arg-type]
    except OSError:
        return False
    return True


async def weight_change(text: str) -> tuple[float, int]:
    """Return milliseconds that the plane takes to change one weight among all, and the operations that are sent."""
    plane = IpvsPlane()
    services = compile_text(text, "bench", lambda *_: []).configuration.virtual_servers
    desired = [item for service in services for item in PoolMachine(service, 0.0, []).desired()]
    assert await plane.apply(reconcile(desired, await plane.observe())) == []
    observed = await plane.observe()
    assert reconcile(desired, observed) == []
    place = len(desired) // 2
    changed = desired[place].servers[0]
    desired[place] = type(desired[place])(
        desired[place].service,
        (type(changed)(endpoint=changed.endpoint, weight=7, forwarding=changed.forwarding), *desired[place].servers[1:]),
    )
    operations = reconcile(desired, observed)
    assert all(isinstance(operation, EditServer) for operation in operations)
    begun = time.perf_counter()
    assert await plane.apply(operations) == []
    taken = time.perf_counter() - begun
    await plane.remove()
    return taken * 1000, len(operations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    keepalived, kernel, text = program("keepalived"), Kernel(), file_text()
    if keepalived is None:
        sys.exit("needs keepalived")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.conf"
        file.write_text(text)
        commands = {
            "keepalived": [keepalived, "-C", "-n", "-f", str(file), "-p", f"{folder}/pid", "-c", f"{folder}/cpid"],
            "relevo": [
                str(Path(sys.executable).with_name("relevo")), "run", "-f", str(file), "--run-dir", f"{folder}/run",
                "--state-dir", f"{folder}/state",
            ],
        }  # fmt: skip
        kernel.flush()
        times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
        for number in range(chosen.rounds):
            for name in [*commands][:: 1 if number % 2 == 0 else -1]:
                times[name].append(measured(commands[name], kernel, text, file))
                taken = ", ".join(f"{what} {one:.3f} s" for what, one in zip(WHAT, times[name][-1], strict=True))
                print(f"  {name}: {taken}", file=sys.stderr, flush=True)
    print(f"kernel {os.uname().release}, {SERVERS} servers, medians of {chosen.rounds}")
    for part, what in enumerate(WHAT):
        medians = {name: statistics.median(each[part] for each in found) for name, found in times.items()}
        ratio = medians["relevo"] / medians["keepalived"]
        print(f"  {what}: keepalived {medians['keepalived']:.3f} s, relevo {medians['relevo']:.3f} s; ratio {ratio:.2f}")
    taken, count = asyncio.run(weight_change(text))
    print(f"  one weight: {taken:.2f} ms in the plane, {count} operation")


if __name__ == "__main__":
    main()
