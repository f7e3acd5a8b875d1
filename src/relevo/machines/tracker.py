"""Tracking: from observations to faults and the effective priority of an instance.

Effective priority = base + Σ weights: a positive weight is added while the tracked object is good, a negative one
subtracted while it is bad; ``reverse`` swaps good and bad. Weight 0 and bad means FAULT. The result is limited to 1..254; an
address owner (255) keeps its priority (keepalived.conf(5), "track_interface").

Interfaces are the first kind of source. A further kind adds observations and faults; the rule stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from relevo.machines.faults import Fault, FaultKind
from relevo.model import TrackedInterface
from relevo.wire.vrrp import PRIORITY_OWNER


@dataclass(frozen=True, slots=True)
class Standing:
    """Faults and effective priority of an instance."""

    faults: tuple[Fault, ...]
    priority: int


def evaluate(base: int, tracked: Iterable[TrackedInterface], is_up: Callable[[str], bool]) -> Standing:
    """Return faults and effective priority; ``base`` is the declared priority, ``is_up`` returns the state of an interface."""
    priority = base
    faults: list[Fault] = []
    for each in tracked:
        up = is_up(each.name)
        good = up is not each.reverse
        if each.weight == 0 and not good:
            faults.append(Fault(FaultKind.INTERFACE_UP if up else FaultKind.INTERFACE_DOWN, each.name))
        elif (each.weight > 0 and good) or (each.weight < 0 and not good):
            priority += each.weight
    bounded = base if base == PRIORITY_OWNER else max(1, min(254, priority))
    return Standing(tuple(dict.fromkeys(faults)), bounded)
