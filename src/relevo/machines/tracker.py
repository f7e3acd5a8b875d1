"""Interfaces that an instance tracks: from link states to faults and an effective priority.

Effective priority = base + Σ weights: a positive weight is added while the interface is up, a negative one subtracted
while it is down, ``reverse`` flips the condition; weight 0 and down means FAULT. The result stays in 1..254, and an owner
(255) keeps its priority (keepalived.conf(5), "track_interface").
"""

from __future__ import annotations

from dataclasses import dataclass, field

from relevo.machines.vrrp import Fail, Recover, SetPriority
from relevo.model import VrrpInstance
from relevo.wire.vrrp import PRIORITY_OWNER

Effect = Fail | Recover | SetPriority


@dataclass(slots=True)
class InterfaceTracker:
    """Follows the interfaces that matter to ``instance``; answers with inputs for its VRRP machine."""

    instance: VrrpInstance
    up: dict[str, bool] = field(default_factory=dict)
    priority: int = 0

    def __post_init__(self) -> None:
        self.priority = self.instance.priority

    def interfaces(self) -> frozenset[str]:
        """Names whose link state matters."""
        names = {tracked.name for tracked in self.instance.track_interfaces}
        if self.instance.track_primary and self.instance.interface:
            names.add(self.instance.interface)
        return frozenset(names)

    def receive(self, interface: str, up: bool) -> list[Effect]:
        """Take the link state of an interface."""
        if interface not in self.interfaces() or self.up.get(interface) is up:
            return []
        self.up[interface] = up
        effects: list[Effect] = []
        for reverse in self._fatal(interface):
            cause = f"interface {interface} is {'up' if reverse else 'down'}"
            effects.append(Fail(cause) if up is reverse else Recover(cause))
        priority = self._effective()
        if priority != self.priority:
            self.priority = priority
            effects.append(SetPriority(priority))
        return effects

    def _fatal(self, interface: str) -> list[bool]:
        tracked = [t for t in self.instance.track_interfaces if t.name == interface]
        return sorted({t.reverse for t in tracked if t.weight == 0}) if tracked else [False]

    def _effective(self) -> int:
        base = self.instance.priority
        if base == PRIORITY_OWNER:
            return base
        for tracked in self.instance.track_interfaces:
            good = self.up.get(tracked.name, True) is not tracked.reverse
            if (tracked.weight > 0 and good) or (tracked.weight < 0 and not good):
                base += tracked.weight
        return max(1, min(254, base))
