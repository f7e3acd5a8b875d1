"""Floods of adverts, and of forged synchronisation: a socket that gets more than directors send is told whom to listen to.

A director runs before other processes, so that a flood which it reads packet by packet takes a core, and the adverts of the
master are lost in the full queue of the socket. In a flood the kernel passes on what known senders send, and one in ``SAMPLE``
packets of all others, by which a new router is found and the end of the flood is seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

SAMPLE: Final = 1024
USELESS_PER_S: Final = 500
"""Useless packets in a second that are a flood: refused, of no router here, or more than are answered."""
SENDER_PER_S: Final = 2000
"""Packets in a second of a sender that is a flood by itself: twenty routers with adverts every 10 ms."""
MAX_SENDERS: Final = 16
"""Senders that are remembered."""
KNOWN_S: Final = 60.0
"""Seconds for which a sender of valid adverts is remembered."""
QUIET_S: Final = 10.0
"""Seconds without a useless packet after which a flood has ended."""


class FloodGuard:
    """Counts what one socket receives. ``limited_to`` are the senders that are read in a flood; ``None`` is everybody.

    More than ``sender_per_s`` packets in a second of one sender are a flood, useful or not.
    """

    def __init__(self, sender_per_s: float = SENDER_PER_S) -> None:
        self._sender_per_s = sender_per_s
        self.limited_to: tuple[str, ...] | None = None
        self._second = 0.0  # when the present second of counting began
        self._useless = 0
        self._by_sender: Counter[str] = Counter()
        self._known: dict[str, float] = {}  # sender of valid adverts → when it was last heard
        self._quiet_at = 0.0

    @property
    def deadline(self) -> float | None:
        """When the flood has ended, if nothing comes until then."""
        return None if self.limited_to is None else self._quiet_at

    def take(self, sender: str, *, useful: bool, trusted: Callable[[], Collection[str]], now: float) -> bool:
        """Count a packet; return whether ``limited_to`` has changed. The ``trusted`` senders are read in any case."""
        if now - self._second >= 1.0:
            self._second, self._useless = now, 0
            self._by_sender.clear()
        if len(self._by_sender) < USELESS_PER_S:
            self._by_sender[sender] += 1
        if useful and (sender in self._known or len(self._known) < MAX_SENDERS):
            self._known[sender] = now
        if not useful:
            self._useless += 1
            self._quiet_at = now + QUIET_S
        floods = self._by_sender[sender] > self._sender_per_s
        if self.limited_to is None:
            if self._useless <= USELESS_PER_S and not floods:
                return False
            self._quiet_at = now + QUIET_S
        if floods:
            self._known.pop(sender, None)
        for each in [each for each, at in self._known.items() if now - at > KNOWN_S]:
            del self._known[each]
        wanted = tuple(sorted({*self._known, *trusted()} - {""}))[: 2 * MAX_SENDERS]
        if wanted == self.limited_to:
            return False
        self.limited_to = wanted
        return True

    def expire(self, now: float) -> bool:
        """Return whether the flood has ended, so that everybody is read again."""
        if self.limited_to is None or now < self._quiet_at:
            return False
        self.limited_to = None
        return True
