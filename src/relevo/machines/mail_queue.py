"""Order and retries of outgoing alerts.

Mails leave strictly in the order in which they were queued: one that cannot be delivered delays the others, so that a reader
sees DOWN before UP. A temporary failure is retried after a delay that doubles up to a limit; a permanent failure drops that
mail alone. ``alerts`` stores and sends the mails.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from relevo.machines.machine import Rule, Timers, find_rule

FIRST_RETRY_S: Final = 2.0
LONGEST_RETRY_S: Final = 60.0
"""A mail server is used again at most this long after it comes back."""
MAX_QUEUED: Final = 10_000
"""Mails kept while the server is away. A flapping cluster must not fill the disk: further mails are dropped and counted."""


class State(enum.StrEnum):
    """IDLE: empty. WAITING: until the next retry."""

    IDLE = "idle"
    SENDING = "sending"
    WAITING = "waiting"


class Symbol(enum.StrEnum):
    """Inputs and the timer."""

    QUEUED = "queued"
    SENT = "sent"
    FAILED = "failed"
    REJECTED = "rejected"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Queued:
    """Mail ``number`` is stored; numbers grow."""

    number: int


@dataclass(frozen=True, slots=True)
class Sent:
    """The server accepted mail ``number``."""

    number: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Delivery failed; ``permanent`` if the server will never accept this mail."""

    number: int
    reason: str
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Deliver:
    """Deliver mail ``number`` now; the answer is ``Sent`` or ``Failed``."""

    number: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove mail ``number``: it was ``delivered``, or dropped for ``reason``."""

    number: int
    delivered: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Postponed:
    """Mail ``number`` will be retried in ``delay_s``."""

    number: int
    delay_s: float
    reason: str


Input = Queued | Sent | Failed
Effect = Deliver | Forget | Postponed

_I, _S, _W = State.IDLE, State.SENDING, State.WAITING

TRANSITIONS: Final = {
    (_I, Symbol.QUEUED): Rule("_send_next", (_S,)),
    (_S, Symbol.QUEUED): Rule("_line_up", (_S,)),
    (_S, Symbol.SENT): Rule("_delivered", (_S, _I)),
    (_S, Symbol.FAILED): Rule("_wait", (_W,)),
    (_S, Symbol.REJECTED): Rule("_drop", (_S, _I)),
    (_W, Symbol.QUEUED): Rule("_line_up", (_W,)),
    (_W, Symbol.RETRY): Rule("_send_next", (_S,)),
}


class MailQueueMachine:
    """One queue to one mail server."""

    def __init__(self) -> None:
        self.state = State.IDLE
        self.attempts = 0
        self.last_error = ""
        self.refused = 0
        self._waiting: OrderedDict[int, None] = OrderedDict()
        self._timers: Timers[Symbol] = Timers()
        self._given: Input | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def receive(self, given: Input, now: float) -> list[Effect]:
        """Process an input; return effects in order."""
        self._given = given
        match given:
            case Queued(number=number):
                if len(self._waiting) >= MAX_QUEUED:
                    self.refused += 1
                    return [Forget(number, False, f"more than {MAX_QUEUED} mails are waiting")]
                self._waiting[number] = None
                return self._step(Symbol.QUEUED, now)
            case Sent():
                return self._step(Symbol.SENT, now)
            case Failed(permanent=permanent):
                return self._step(Symbol.REJECTED if permanent else Symbol.FAILED, now)

    def deadline(self) -> float | None:
        """When the next attempt is due."""
        return self._timers.deadline()

    def expire(self, now: float) -> list[Effect]:
        """Retry if that is due."""
        timer = self._timers.pop_due(now)
        return [] if timer is None else self._step(timer, now)

    def _step(self, symbol: Symbol, now: float) -> list[Effect]:
        rule = find_rule(TRANSITIONS, self.state, symbol, "mail queue")
        effects: list[Effect] = getattr(self, rule.action)(now)
        assert self.state in rule.targets
        return effects

    def _send_next(self, now: float) -> list[Effect]:
        if not self._waiting:
            self.state = _I
            return []
        self.state = _S
        return [Deliver(next(iter(self._waiting)))]

    def _line_up(self, now: float) -> list[Effect]:
        return []

    def _done(self, delivered: bool, now: float) -> list[Effect]:
        number, _ = self._waiting.popitem(last=False)
        reason = "" if delivered else self.last_error
        self.attempts = 0
        return [Forget(number, delivered, reason), *self._send_next(now)]

    def _delivered(self, now: float) -> list[Effect]:
        self.last_error = ""
        return self._done(True, now)

    def _drop(self, now: float) -> list[Effect]:
        self._note_error()
        return self._done(False, now)

    def _wait(self, now: float) -> list[Effect]:
        self._note_error()
        delay = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(self.attempts, 16))
        self.attempts += 1
        self.state = _W
        self._timers.set(Symbol.RETRY, now + delay)
        return [Postponed(next(iter(self._waiting)), delay, self.last_error)]

    def _note_error(self) -> None:
        assert isinstance(self._given, Failed)
        self.last_error = self._given.reason
