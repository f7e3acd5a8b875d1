"""The eBPF plane beside nftables DNAT, plain routing and HAProxy: keep-alive requests, new connections, bulk; alternating.

Relevo runs as a daemon with health checks. Plain routing and nftables reach the servers on a separate port. The nftables table
exists only while it is measured, because conntrack would slow down the other paths.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time

from bench.measure import HEADER, Comparison, save, show
from bench.proxy import raise_limit, start_haproxy, wait_for
from bench.rig import DIRECT, SERVERS, VIP, Rig, program
from relevo.api import schema
from relevo.api.client import ask
from relevo.errors import ControlError

SECONDS = 3
NFT_PORT = 82
CONF = f"""
global_defs {{
    data_plane ebpf
}}
virtual_server {VIP} 80 {{
    delay_loop 5
    lb_algo rr
    lb_kind NAT
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
NFT = f"""
table ip relevo_bench {{
  chain in {{
    type nat hook prerouting priority dstnat;
    ip daddr {VIP} tcp dport {NFT_PORT} dnat to numgen inc mod 2 map {{ 0 : {SERVERS[0]}, 1 : {SERVERS[1]} }} : {DIRECT}
  }}
}}
"""
URLS = {
    "Relevo": f"http://{VIP}:80",
    "nftables DNAT": f"http://{VIP}:{NFT_PORT}",
    "plain routing": f"http://{SERVERS[0]}:{DIRECT}",
    "HAProxy": f"http://{VIP}:81",
}
BARS = {
    ("nftables DNAT", "keep"): "≥ 1.10",
    ("nftables DNAT", "close"): "≥ 1.10",
    ("plain routing", "keep"): "≥ 0.95",
    ("plain routing", "bulk"): "≥ 0.95",
    ("HAProxy", "keep"): "≥ 1.25",
    ("HAProxy", "close"): "≥ 1.25",
    ("HAProxy", "bulk"): "≥ 1.25",
}
KINDS = {"keep": ("requests, kept alive", "/s"), "close": ("requests, a connection each", "/s"), "bulk": ("bulk", "GB/s")}


def start_relevo(rig: Rig, conf: str = CONF) -> subprocess.Popen[bytes]:
    (rig.folder / "relevo.conf").write_text(conf)
    argv = [sys.executable, "-m", "relevo", "run", "-l", "-f", str(rig.folder / "relevo.conf")]
    process = rig.start("director", [*argv, "--run-dir", str(rig.folder / "run"), "--state-dir", str(rig.folder / "state")])
    wait_for_plane(rig)
    wait_for(rig, 80)
    return process


def wait_for_plane(rig: Rig) -> None:
    """Wait until this daemon's plane has the servers: the programs of a stopped daemon forward for a moment longer."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        with contextlib.suppress(ControlError):
            status = ask(rig.folder / "run", schema.Status())
            if any(server.in_plane for service in status.balancer.services for server in service.servers):
                return
        time.sleep(0.02)
    raise SystemExit("the plane did not come up")


def allow_forwarding(rig: Rig) -> None:
    with rig.inside("director"), open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")


def requests(rig: Rig, url: str, close: bool) -> float:
    argv = ["wrk", "-t1", "-c32", f"-d{SECONDS}", *(["-H", "Connection: close"] if close else []), f"{url}/"]
    match = re.search(r"Requests/sec:\s+([\d.]+)", rig.ask("client", argv))
    assert match, "wrk printed no rate"
    return float(match.group(1))


def bulk(rig: Rig, url: str) -> float:
    argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{speed_download}", f"{url}/big"]
    return float(rig.ask("client", argv)) / 1e9


def nft(rig: Rig, *arguments: str, text: str = "") -> None:
    binary = program("nft")
    assert binary is not None
    with rig.inside("director"):
        subprocess.run([binary, *arguments], input=text, text=True, check=True)


def measure(rig: Rig, path: str) -> dict[str, float]:
    if path == "nftables DNAT":
        nft(rig, "-f", "-", text=NFT)
    try:
        url = URLS[path]
        return {"keep": requests(rig, url, False), "close": requests(rig, url, True), "bulk": bulk(rig, url)}
    finally:
        if path == "nftables DNAT":
            nft(rig, "delete", "table", "ip", "relevo_bench")


def main(rounds: int = 7) -> None:
    missing = [name for name in ("haproxy", "nginx", "nft", "wrk", "curl") if program(name) is None]
    if missing:
        print(f"forwarding: not installed: {', '.join(missing)}; nothing to compare with", file=sys.stderr)
        return
    raise_limit()
    rig = Rig()
    relevo = None
    try:
        allow_forwarding(rig)
        rig.start_nginx()
        relevo = start_relevo(rig)
        start_haproxy(rig)
        values: dict[str, list[dict[str, float]]] = {path: [] for path in URLS}
        for number in range(rounds):
            print(f"  round {number + 1} of {rounds}", file=sys.stderr)
            for path in [*URLS][:: 1 if number % 2 == 0 else -1]:
                values[path].append(measure(rig, path))
        comparisons = []
        for path in [*URLS][1:]:
            for kind, (name, unit) in KINDS.items():
                comparison = Comparison(name, unit, path, BARS.get((path, kind), "none"))
                comparison.ours.values = [value[kind] for value in values["Relevo"]]
                comparison.theirs.values = [value[kind] for value in values[path]]
                comparisons.append(comparison)
        show("eBPF plane at TC beside other paths, native namespaces", [c.row() for c in comparisons], HEADER)
        save("forwarding", comparisons)
    finally:
        if relevo is not None:
            rig.end(relevo)
        rig.close()


if __name__ == "__main__":
    main()
