"""Checking and compiling 1 000, 10 000 and 100 000 real servers, beside ``keepalived -t``; whole processes, alternating."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import HEADER, Comparison, save, show
from bench.rig import program


def configuration(servers: int) -> str:
    """A file of ``servers`` real servers, ten a service."""
    out = ["global_defs {\n    router_id BENCH\n    enable_script_security\n}\n"]
    for service in range(servers // 10):
        out.append(
            f"virtual_server 10.1.{service // 250}.{service % 250 + 1} 80 {{\n    delay_loop 10\n    lb_algo wrr\n"
            "    lb_kind NAT\n    persistence_timeout 50\n    protocol TCP\n"
        )
        for server in range(10):
            out.append(
                f"    real_server 10.2.{service % 250}.{server + 1} {8000 + service // 250} {{\n        weight 1\n"
                "        TCP_CHECK {\n            connect_port 80\n            connect_timeout 3\n        }\n    }\n"
            )
        out.append("}\n")
    return "".join(out)


def timed(argv: list[str]) -> tuple[float, int]:
    begun = time.perf_counter()
    status = subprocess.run(argv, capture_output=True, check=False).returncode
    return time.perf_counter() - begun, status


def main(rounds: int = 7) -> None:
    keepalived = program("keepalived")
    relevo = str(Path(sys.executable).with_name("relevo"))
    comparisons = []
    with tempfile.TemporaryDirectory() as folder:
        for servers in (1_000, 10_000, 100_000):
            file = Path(folder) / f"{servers}.conf"
            file.write_text(configuration(servers))
            comparison = Comparison(
                f"check {servers} servers ({file.stat().st_size / 1e6:.1f} MB)", "s", "keepalived -t", "at most 5 of keepalived's"
            )
            for _ in range(rounds if servers < 100_000 else max(1, rounds // 2)):
                seconds, status = timed([relevo, "check", "--offline", str(file)])
                assert status == 0, f"relevo check: {status}"
                comparison.ours.values.append(seconds)
                if keepalived is not None:
                    seconds, status = timed([keepalived, "-t", "-f", str(file)])
                    assert status == 0, f"keepalived -t: {status}"
                    comparison.theirs.values.append(seconds)
            comparisons.append(comparison)
    if keepalived is None:
        print("compile: keepalived is not installed; ours alone", file=sys.stderr)
        for comparison in comparisons:
            print(f"  {comparison.name}: {comparison.ours.text('s')}")
        return
    show("Checking a configuration", [c.row() for c in comparisons], HEADER)
    save("compile", comparisons)


if __name__ == "__main__":
    main()
