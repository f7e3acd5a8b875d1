"""What packets of others may cost: answers to them, and lines about them. Anybody on the LAN can send adverts by the thousand."""

from __future__ import annotations

from typing import Final

LOG_EVERY_S: Final = 10.0
"""A line about adverts of one kind is written at most once in so many seconds; the next one counts those that were left out."""
MAX_SOURCES: Final = 64
"""Senders that are warned of: a LAN has a handful of routers, and forged ones have no end."""


class Quiet:
    """Answers at most once in an interval; writes at most a line of each kind in ``LOG_EVERY_S``."""

    def __init__(self) -> None:
        self._answer_at = 0.0
        self._lines: dict[str, tuple[float, int]] = {}  # kind → when the next line may be written, lines left out
        self._warned: set[str] = set()

    def may_answer(self, now: float, interval_s: float) -> bool:
        """Return whether an advert is answered now. The master's own adverts, one in an interval, say the same as an answer."""
        if now < self._answer_at:
            return False
        self._answer_at = now + interval_s
        return True

    def line(self, kind: str, text: str, now: float) -> str:
        """Return ``text`` if a line of this kind may be written now, with the count of those that were left out; else nothing."""
        due, left_out = self._lines.get(kind, (0.0, 0))
        if now < due:
            self._lines[kind] = (due, left_out + 1)
            return ""
        self._lines[kind] = (now + LOG_EVERY_S, 0)
        return f"{text} ({left_out} more since the last line)" if left_out else text

    def first_of(self, source: str) -> bool:
        """Return whether ``source`` is to be warned of: once each, and of no more than ``MAX_SOURCES``."""
        if source in self._warned or len(self._warned) >= MAX_SOURCES:
            return False
        self._warned.add(source)
        return True


class Defence:
    """When a master whose address somebody else uses announces it again: soon at first, then more and more rarely.

    Two masters that meet for a moment (a switch that fails, an advert that is lost) leave neighbours that send to the wrong one:
    a second sets that right. Two that never hear each other would take the neighbours from each other for ever.
    """

    FIRST_S: Final = 1.0
    LONGEST_S: Final = 600.0
    FORGET_S: Final = 60.0
    """Seconds without a claim after which the next one is a new conflict."""

    def __init__(self) -> None:
        self._heard_at = float("-inf")
        self._next_at = float("-inf")
        self._pause_s = self.FIRST_S

    def due(self, now: float, interval_s: float) -> float:
        """Return when a claim that came now is answered: not at once, as the advert of a new master precedes its claim."""
        if now - self._heard_at > self.FORGET_S and now >= self._next_at:
            self._pause_s = self.FIRST_S
        self._heard_at = now
        return max(now + interval_s, self._next_at)

    def done(self, now: float) -> None:
        """Record an answer."""
        self._next_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, self.LONGEST_S)
