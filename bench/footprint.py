"""Memory of the article's cluster on one director, beside keepalived; and the time of ``relevo status``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import Comparison, Series, save, show
from bench.proxy import pids_of, pss
from bench.rig import program
from relevo.daemon.configuration import compile_file
from relevo.lab.cluster import Cluster
from relevo.lab.stages import choose_stage
from relevo.lab.topology import Host, plan
from relevo.observe.snapshot import Snapshot

LIMIT_S = 60
ARTICLE = Path(__file__).parents[1] / "examples" / "article" / "master.conf"


def rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def main(rounds: int = 11) -> None:
    topology = plan([(str(ARTICLE), compile_file(str(ARTICLE)).configuration)])
    rows = []
    comparisons = []
    with Cluster(topology, choose_stage("auto")) as cluster:
        director = cluster.topology.directors[0]
        cluster.start_servers()
        cluster.start_director(director)
        snapshot, pids = _settled(cluster, director)
        ours = sum(map(pss, pids))
        parts = ", ".join(f"{w.role} {pss(w.pid) / 1e6:.1f}" for w in snapshot.workers)
        rows.append(["Relevo, proportional (PSS)", f"{ours / 1e6:.1f} MB", f"supervisor {pss(snapshot.pid) / 1e6:.1f}, {parts}"])
        rows.append(
            [
                "Relevo, resident (RSS, shared pages counted in each)",
                f"{sum(map(rss, pids)) / 1e6:.1f} MB",
                f"{len(pids)} processes",
            ]
        )
        keepalived = program("keepalived")
        if keepalived is not None and cluster.stage.name == "namespaces":
            theirs = _keepalived(cluster, keepalived)
            rows.append(["keepalived, proportional (PSS)", f"{theirs / 1e6:.1f} MB", f"ratio {ours / theirs:.1f}"])
        series = Series()
        relevo = str(Path(sys.executable).with_name("relevo"))
        for _ in range(rounds):
            begun = time.perf_counter()
            subprocess.run([relevo, "status", "--run-dir", str(cluster.run_dir(director))], capture_output=True, check=True)
            series.values.append((time.perf_counter() - begun) * 1000)
        rows.append(["relevo status, whole process", series.text("ms"), "bar: 200 ms"])
    show("Footprint of the article's director", rows, ["what", "measured", "note"])
    comparisons.append(Comparison("status", "ms", "-", "200 ms", series, series))
    save("footprint", comparisons)


def _settled(cluster: Cluster, director: Host) -> tuple[Snapshot, list[int]]:
    """Return the processes of the director when it is master, and the process has ended that sends its mails."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        time.sleep(1)
        snapshot = cluster.snapshot(director)
        pids = pids_of(snapshot.pid)
        if len(pids) == 1 + len(snapshot.workers) and all(each.state == "MASTER" for each in snapshot.director.instances):
            return snapshot, pids
    raise SystemExit(f"the director has not settled within {LIMIT_S} s")


def _keepalived(cluster: Cluster, binary: str) -> int:
    """PSS of keepalived with the same file, in another namespace. Without ip_vs its checker exits: VRRP and the parent count."""
    host = cluster.topology.client
    with tempfile.TemporaryDirectory() as folder:
        argv = [binary, "-n", "-l", "-P", "-f", str(ARTICLE), "-p", f"{folder}/p", "-r", f"{folder}/r"]
        cluster.run_in(host, "keepalived", argv, Path(folder) / "log")
        time.sleep(2)
        pid = cluster._processes["keepalived"]
        found = sum(map(pss, pids_of(pid)))
        cluster.end("keepalived")
    return found


if __name__ == "__main__":
    sys.exit(main() or os.EX_OK)
