"""Whether a backup may preempt a master of lower priority, and what it waits for.

This rule delays preemption only: when the adverts of the master stop, the backup takes over at once. The conditions have a
fixed order: ``nopreempt`` and a planned hand-over forbid preemption, the data plane must be ready, the connections must be
synced (``preempt_when_synced``), and the lower master must have been there for ``preempt_delay``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from relevo.model import VrrpInstance


class Waiting(enum.StrEnum):
    """Why a backup does not preempt. The values are names in status and metrics; they do not change."""

    NOPREEMPT = "nopreempt"
    HANDED_OVER = "handed_over"
    PLANE = "data_plane"
    SYNC = "connections"
    DELAY = "preempt_delay"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``waiting`` is ``None`` if the backup may preempt; ``message`` is a log line, empty if nothing changed."""

    waiting: Waiting | None
    message: str = ""


class Preemption:
    """The rule of one virtual router. ``synced`` and ``plane_ready`` are observations; a hand-over sets ``suppressed``."""

    def __init__(self, instance: VrrpInstance) -> None:
        self.instance = instance
        self.suppressed = False
        self.synced = False
        self.plane_ready = True
        self.waiting: Waiting | None = None
        self._lower_since: float | None = None
        self._sync_since: float | None = None

    def reset(self) -> None:
        """Restart the delays: there is no lower master any more."""
        self.waiting, self._lower_since, self._sync_since = None, None, None

    def consider(self, master: str, now: float) -> Verdict:
        """Decide about an advert of lower priority that was received from ``master``."""
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
