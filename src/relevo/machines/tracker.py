"""Tracking: from observations to faults and the effective priority of an instance.

Effective priority = base + Σ weights: a positive weight counts while the source is up, a negative one while it is down;
``reverse`` changes the sign. With weight 0 a source that is down, or one that is up in reverse, means FAULT. A file has a number:
it is multiplied by the weight, and -254 or less means FAULT; with weight 0 any number but 0 does, in reverse 0 does. The result
is limited to 1..254; an address owner (255) keeps its priority (keepalived.conf(5), "track_interface", "track_script",
"track_file"; ``initialise_tracking_priorities`` in keepalived).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from relevo.machines.faults import Fault, FaultKind
from relevo.model import Tracked, TrackerKind
from relevo.model.vrrp import PRIORITY_OWNER

FAULT_SUM: Final = -254
"""Product of a file's number and its weight from which on there is FAULT."""
MAX_SUM: Final = 253
"""Largest contribution of a file."""

Observed = Callable[[Tracked], int | None]
"""Present value of a source: 0 or 1 for down and up, the number in a file; ``None`` if it is unknown or cannot be observed."""

_FAULTS: Final = {
    TrackerKind.INTERFACE: (FaultKind.INTERFACE_DOWN, FaultKind.INTERFACE_UP),
    TrackerKind.SCRIPT: (FaultKind.SCRIPT_FAILED, FaultKind.SCRIPT_SUCCEEDED),
    TrackerKind.PROCESS: (FaultKind.PROCESS_MISSING, FaultKind.PROCESS_RUNNING),
    TrackerKind.SERVICE: (FaultKind.SERVICE_DOWN, FaultKind.SERVICE_UP),
}
"""Faults of a source that is down, and of one that is up in reverse."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one source means for an instance now: a part of the priority, or a fault. ``value`` as in ``Observed``."""

    tracked: Tracked
    value: int | None
    weight: int = 0
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Faults and effective priority of an instance."""

    faults: tuple[Fault, ...]
    priority: int


def share_of(tracked: Tracked, value: int | None) -> Share:
    """Return what a source with this value means."""
    if value is None:
        return Share(tracked, value)
    if tracked.kind is TrackerKind.FILE:
        return _share_of_file(tracked, value)
    up = bool(value)
    if tracked.weight == 0:
        bad = up is tracked.reverse
        return Share(tracked, value, fault=Fault(_FAULTS[tracked.kind][up], tracked.name) if bad else None)
    counts = up if tracked.weight > 0 else not up
    return Share(tracked, value, _signed(tracked) if counts else 0)


def _share_of_file(tracked: Tracked, value: int) -> Share:
    if tracked.weight == 0:
        bad = bool(value) is not tracked.reverse
        product = FAULT_SUM if bad else 0
    else:
        product = value * _signed(tracked)
    if product <= FAULT_SUM:
        return Share(tracked, value, fault=Fault(FaultKind.FILE, tracked.name))
    return Share(tracked, value, min(MAX_SUM, product))


def _signed(tracked: Tracked) -> int:
    return -tracked.weight if tracked.reverse else tracked.weight


def evaluate(base: int, tracked: Iterable[Tracked], observed: Observed) -> Standing:
    """Return faults and effective priority; ``base`` is the declared priority."""
    shares = [share_of(each, observed(each)) for each in tracked]
    priority = base + sum(share.weight for share in shares)
    bounded = base if base == PRIORITY_OWNER else max(1, min(254, priority))
    return Standing(tuple(dict.fromkeys(share.fault for share in shares if share.fault is not None)), bounded)
