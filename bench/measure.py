"""Shared by the benchmarks: medians with spread, ratios, a table, a file of results."""

from __future__ import annotations

import json
import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass
class Series:
    """Repeated measurements of one value."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, unit: str) -> str:
        low, high = min(self.values), max(self.values)
        return f"{self.median:.4g} [{low:.4g}..{high:.4g}] {unit}"


@dataclass
class Comparison:
    """Relevo's values and a peer's, measured in one run, alternating. ``bar`` is the ratio that is expected."""

    name: str
    unit: str
    peer: str
    bar: str
    ours: Series = field(default_factory=Series)
    theirs: Series = field(default_factory=Series)

    @property
    def ratio(self) -> float:
        return self.ours.median / self.theirs.median

    def row(self) -> list[str]:
        return [
            self.name,
            self.ours.text(self.unit),
            f"{self.peer}: {self.theirs.text(self.unit)}",
            f"{self.ratio:.3f}",
            self.bar,
            str(len(self.ours.values)),
        ]


def show(title: str, rows: list[list[str]], header: list[str]) -> None:
    """Print a table on standard output."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}")
    for row in [header, ["-" * w for w in widths], *rows]:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


HEADER = ["what", "Relevo: median [min..max]", "peer", "ratio", "bar", "n"]


def save(name: str, comparisons: list[Comparison], **more: object) -> None:
    """Write the raw values to ``results/NAME.json``."""
    RESULTS.mkdir(exist_ok=True)
    data = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "comparisons": [
            {"name": c.name, "unit": c.unit, "peer": c.peer, "ratio": c.ratio, "ours": c.ours.values, "theirs": c.theirs.values}
            for c in comparisons
        ],
        **more,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
