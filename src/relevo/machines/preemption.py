"""Whether a backup may take over from a master of lower priority, and what it waits for until then.

A master that falls silent is succeeded whatever this machine says: waiting is for a service that somebody else provides.
The conditions are looked at in a fixed order: ``nopreempt`` and a planned hand-over forbid it, the data plane must be
ready, connections must be here (``preempt_when_synced``), and the lower master must have been there for ``preempt_delay``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from relevo.model import VrrpInstance


class Waiting(enum.StrEnum):
    """What keeps a backup from taking over. The values are names in status and metrics; they do not change."""

    NOPREEMPT = "nopreempt"
    HANDED_OVER = "handed_over"
    PLANE = "data_plane"
    SYNC = "connections"
    DELAY = "preempt_delay"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``waiting`` is ``None`` when the backup may take over; ``message`` is a log line, or empty when it was written before."""

    waiting: Waiting | None
    message: str = ""


class Preemption:
    """The rule for one virtual router. ``synced`` and ``plane_ready`` are observations; ``suppressed`` follows a hand-over."""

    def __init__(self, instance: VrrpInstance) -> None:
        self.instance = instance
        self.suppressed = False
        self.synced = False
        self.plane_ready = True
        self.waiting: Waiting | None = None
        self._lower_since: float | None = None
        self._sync_since: float | None = None

    def reset(self) -> None:
        """Start over: no lower master is there any more."""
        self.waiting, self._lower_since, self._sync_since = None, None, None

    def consider(self, master: str, now: float) -> Verdict:
        """Judge an advert of lower priority from ``master`` that arrived at ``now``."""
        before = self.waiting
        self.waiting = self._judge(now)
        if self.waiting is None or self.waiting is before:
            return Verdict(self.waiting)
        return Verdict(self.waiting, self._message(self.waiting, master))

    def _judge(self, now: float) -> Waiting | None:
        if not self.instance.preempt:
            return Waiting.NOPREEMPT
        if self.suppressed:
            return Waiting.HANDED_OVER
        if not self.plane_ready:
            return Waiting.PLANE
        if self._waits_for_connections(now):
            return Waiting.SYNC
        if self._lower_since is None:
            self._lower_since = now
        return Waiting.DELAY if now < self._lower_since + self.instance.preempt_delay_s else None

    def _waits_for_connections(self, now: float) -> bool:
        limit_s = self.instance.preempt_when_synced_s
        if not limit_s or self.synced:
            return False
        if self._sync_since is None:
            self._sync_since = now
        return now < self._sync_since + limit_s

    def _message(self, waiting: Waiting, master: str) -> str:
        name, instance = self.instance.name, self.instance
        match waiting:
            case Waiting.PLANE:
                return f"({name}) waits for its data plane before it takes over from {master}"
            case Waiting.SYNC:
                return f"({name}) waits for the connections of {master}, at most {instance.preempt_when_synced_s:g} secs"
            case Waiting.DELAY:
                return f"({name}) start preempt delay ({instance.preempt_delay_s:g} secs)"
            case _:
                return ""
