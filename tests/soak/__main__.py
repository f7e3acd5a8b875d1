"""``python -m tests.soak``: run the rounds of some seeds, and say what did not hold.

Results go to standard output, progress to standard error. Exit status: 0 if everything held, 1 if something did not, 2 for a
wrong command line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from relevo.lab.client import Prober
from relevo.lab.namespaces import unavailable_reason
from relevo.planes import ebpf
from tests.soak import invariants
from tests.soak.faults import Doing
from tests.soak.plan import Round, rounds
from tests.soak.rig import SERVICES, Process, Rig

BREAKAGES = Path(__file__).parent / "breakages"
PROBE_S = 0.05


@dataclass(slots=True)
class Report:
    """What the rounds of a seed showed."""

    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    held: int = 0
    lost: int = 0
    """Connections that a round was allowed to lose."""
    longest_gap_s: float = 0.0
    settled_s: float = 0.0
    memory: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each role, what a process had when it was first measured, and the most that one ever had, kB."""


class Soak:
    """Runs the rounds of a seed on one cluster; a violation makes a new one."""

    def __init__(self, seed: int, plane: str, settle_s: float) -> None:
        self.seed, self.plane, self._settle_s = seed, plane, settle_s
        self.report = Report()
        self._rig: Rig | None = None
        self._stack = contextlib.ExitStack()
        self._samples: list[list[dict[str, Process]]] = [[], []]

    def run(self, chosen: Iterator[Round], until: float) -> Report:
        """Run rounds until the time is over."""
        try:
            for each in chosen:
                if time.monotonic() > until:
                    break
                self._tell(str(each))
                found = self._round(each)
                self.report.rounds += 1
                self.report.faults.update(fault.kind.name for fault in each.faults)
                for violation in found:
                    self.report.violations.append(f"seed {self.seed} {each}: {violation}")
                    self._tell(f"VIOLATION: {violation}")
                if found:
                    self._keep_logs(each)
                    self._close()
        finally:
            self._close()
        return self.report

    def _tell(self, text: str) -> None:
        print(f"[seed {self.seed}] {text}", file=sys.stderr, flush=True)

    def _keep_logs(self, done: Round) -> None:
        assert self._rig is not None
        folder = Path("build/soak")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"seed-{self.seed}-round-{done.number}.log").write_text(self._rig.logs())

    def _close(self) -> None:
        self._stack.close()
        self._rig = None
        self._samples = [[], []]

    def _cluster(self) -> tuple[Rig, list[str]]:
        if self._rig is None:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="relevo-soak-")))
            self._rig = Rig(folder, self.seed, self.plane)
            self._stack.callback(self._rig.close)
            self._rig.start()
            return self._rig, self._settle(self._rig)
        return self._rig, []

    def _settle(self, rig: Rig) -> list[str]:
        """Wait until everything is as usual, and stays so for a round of checks."""
        begun = time.monotonic()
        usual_since = None
        while usual_since is None or time.monotonic() - usual_since < invariants.STAYS_S:
            found = invariants.unusual(rig)
            if found and time.monotonic() - begun > self._settle_s:
                return [f"{each} ({self._settle_s:.0f} s after everything was mended)" for each in found]
            usual_since = None if found else usual_since or time.monotonic()
            time.sleep(0.1)
        self.report.settled_s = max(self.report.settled_s, usual_since - begun)
        return []

    def _round(self, now: Round) -> list[str]:
        rig, found = self._cluster()
        if found:
            return [f"at the start: {each}" for each in found]
        rig.hold()
        self.report.held += sum(map(len, rig.held.values()))
        before = invariants.transitions(rig)
        with contextlib.ExitStack() as stack:
            probes = {
                name: stack.enter_context(Prober(rig.client, service, PROBE_S).running()) for name, service in SERVICES.items()
            }
            self._do(rig, now)
            found = self._settle(rig)
            time.sleep(2 * PROBE_S)
        if found:
            return found
        for name, seen in probes.items():
            gap_s = seen.longest_gap_s()
            self.report.longest_gap_s = max(self.report.longest_gap_s, gap_s)
            if gap_s > invariants.longest_gap_s(now):
                found.append(f"{name} without an answer for {gap_s:.1f} s")
        for lost in rig.lost():
            self.report.lost += 1
            if not invariants.may_lose(now, self.plane, lost):
                found.append(f"a held connection was lost: {lost}")
        if not now.moves and invariants.transitions(rig) != before:
            found.append("a router changed its state, and back")
        logs = rig.logs()
        found += [f"{word} in the log" for word in ("Traceback", "exception was never retrieved") if word in logs]
        return found + self._measure(rig, now)

    def _do(self, rig: Rig, now: Round) -> None:
        """Do the faults of a round, and mend them, each at its time."""
        doings = [Doing(rig, fault) for fault in now.faults]
        steps = [(each.fault.at_s, each.begin) for each in doings]
        steps += [(each.fault.at_s + each.fault.lasts_s, each.mend) for each in doings]
        begun = time.monotonic()
        for at_s, step in sorted(steps, key=lambda each: each[0]):
            time.sleep(max(0.0, begun + at_s - time.monotonic()))
            step()
        rig.await_command()

    def _measure(self, rig: Rig, done: Round) -> list[str]:
        found = []
        for number, samples in enumerate(self._samples):
            if not done.gentle:
                samples.clear()
                continue
            samples.append(rig.processes(number))
            for role, process in samples[-1].items():
                first, last = self.report.memory.get(role, (process.memory_kb, 0))
                self.report.memory[role] = (first, max(last, process.memory_kb))
            found += [f"director-{number + 1}: {each}" for each in invariants.growth(samples)]
        return found


def numbers(text: str) -> list[int]:
    """Read ``1,3-5``."""
    parts = [part.partition("-") for part in text.split(",")]
    return [number for first, _, last in parts for number in range(int(first), int(last or first) + 1)]


def plane_of(seed: int) -> str:
    """Planes take turns; without eBPF there is one."""
    return "proxy" if seed % 2 == 0 or ebpf.unavailable_reason() else "ebpf"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak SOAK=", description="faults of every kind, and what must hold after them")
    parser.add_argument("--seeds", type=numbers, default=[1], help="1,3-5; odd ones run on the ebpf plane, even ones on proxy")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each seed")
    parser.add_argument("--rounds", type=numbers, help="run only these rounds of each seed")
    parser.add_argument("--plane", choices=("ebpf", "proxy"), help="for every seed")
    parser.add_argument(
        "--settle", type=float, default=invariants.SETTLE_S, help="seconds after which everything must be as usual"
    )
    parser.add_argument("--break", dest="breakage", default="", help="put a fault into the program; see tests/soak/breakages")
    options = parser.parse_args()
    reason = unavailable_reason() or ("" if os.geteuid() == 0 else "only root can")
    if reason:
        print(f"soak: no cluster in namespaces: {reason}", file=sys.stderr)
        return 1
    if options.breakage:
        os.environ["RELEVO_BREAKAGE"], os.environ["PYTHONPATH"] = options.breakage, str(BREAKAGES)
    failed = False
    for seed in options.seeds:
        plane = options.plane or plane_of(seed)
        chosen = rounds(seed)
        if options.rounds:
            chosen = islice((each for each in chosen if each.number in options.rounds), len(set(options.rounds)))
        report = Soak(seed, plane, options.settle).run(chosen, time.monotonic() + 60 * options.minutes)
        failed |= bool(report.violations)
        print_report(seed, plane, report)
    return int(failed)


def print_report(seed: int, plane: str, report: Report) -> None:
    print(
        f"seed {seed}, {plane}: {report.rounds} rounds, {report.faults.total()} faults, {len(report.violations)} violations; "
        f"{report.held} connections held, {report.lost} lost where that was allowed; longest time without an answer "
        f"{report.longest_gap_s:.2f} s; as usual {report.settled_s:.1f} s after the last fault at the latest"
    )
    print("  " + ", ".join(f"{name} {count}" for name, count in sorted(report.faults.items())))
    for role, (first, largest) in report.memory.items():
        print(f"  {role}: {first} kB at first, {largest} kB at most")
    for violation in report.violations:
        print(f"  {violation}")


if __name__ == "__main__":
    sys.exit(main())
