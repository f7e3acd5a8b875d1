"""``make bench`` runs every benchmark, or one: ``make bench BENCH="--only proxy --quick"``. Ratios go to standard output."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import checks, cost, failover, flood, flood_traffic, footprint, forwarding, proxy, survival, synchronisation
from bench import compile as compile_bench

BENCHES = {
    "compile": lambda quick: compile_bench.main(3 if quick else 7),
    "forwarding": lambda quick: forwarding.main(3 if quick else 7),
    "cost": lambda quick: cost.main(),
    "survival": lambda quick: survival.main(),
    "proxy": lambda quick: proxy.main(3 if quick else 7),
    "failover": lambda quick: failover.main(3 if quick else 5, (0.1, 0.01) if quick else failover.INTERVALS),
    "failover-loaded": lambda quick: failover.main(3 if quick else 5, (0.01,), loaded=True),
    "flood": lambda quick: flood.main(),
    "flood-traffic": lambda quick: flood_traffic.main(),
    "synchronisation": lambda quick: synchronisation.main(*((100, 10_000) if quick else (1000, 100_000))),
    "checks": lambda quick: checks.main(1 if quick else 3),
    "footprint": lambda quick: footprint.main(5 if quick else 11),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BENCHES, action="append", help="run only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: the network namespaces need root; without it only 'compile' runs", file=sys.stderr)
    for name, run in BENCHES.items():
        if (not chosen.only or name in chosen.only) and (os.geteuid() == 0 or name == "compile"):
            print(f"{name} …", file=sys.stderr)
            run(chosen.quick)


if __name__ == "__main__":
    main()
