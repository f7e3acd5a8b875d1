"""One check of one real server: when to probe, and when the verdict changes.

A check that is up goes down after ``retry`` + 1 failures in a row, ``delay_before_retry`` apart; one success brings it up. A
check starts up, or down with ``alpha``, and its first result decides alone (as in keepalived: without ``alpha`` one failed
first check removes the server). ``probes`` does the network part.
"""

from __future__ import annotations

import enum
from copy import copy
from dataclasses import dataclass
from typing import Final

from relevo.machines.machine import Rule, find_rule
from relevo.model.checks import CheckTiming

LOCAL_PAUSE_S: Final = 1.0
"""Seconds between two probes that do not leave this node. A router takes over again within a few seconds of its recovery, and its
servers must be in service by then, whatever ``delay_loop`` is."""


class State(enum.StrEnum):
    """Verdict on the server; UNPROVEN before the first result."""

    UNPROVEN_UP = "unproven-up"
    UNPROVEN_DOWN = "unproven-down"
    UP = "up"
    RETRYING = "retrying"
    """Up, but the last probe failed."""
    DOWN = "down"


class Symbol(enum.StrEnum):
    """Results of a probe, and the timer of the next one."""

    PASSED = "passed"
    FAILED = "failed"
    DUE = "due"


class Failure(enum.StrEnum):
    """Why a probe failed. The values are names in metrics and status; they do not change."""

    REFUSED = "connection refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    RESET = "connection reset"
    TLS = "tls"
    PROTOCOL = "not http"
    STATUS = "status"
    DIGEST = "digest"
    REGEX = "regex"
    TOO_LARGE = "too large"
    REPLY = "wrong reply"
    SCRIPT = "script failed"
    FILE = "number in a file"
    LOCAL = "local error"


@dataclass(frozen=True, slots=True)
class Weight:
    """What a check makes of the weight of its server: it is added, or with ``instead`` takes the place of the declared one."""

    value: int
    instead: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a probe: ``failure`` is ``None`` if it passed; ``detail`` is free text in either case.

    ``local``: this node could not even ask, because it has no address or route now. ``weight`` is ``None`` for that of the file.
    """

    failure: Failure | None = None
    detail: str = ""
    local: bool = False
    weight: Weight | None = None

    @property
    def passed(self) -> bool:
        """Whether the server passed the check."""
        return self.failure is None

    @property
    def reason(self) -> str:
        """The failure as text, empty if the probe passed."""
        if self.failure is None:
            return ""
        return f"{self.failure.value}: {self.detail}" if self.detail else self.failure.value


@dataclass(frozen=True, slots=True)
class Probe:
    """Start a probe; its ``Result`` is the next input."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The check went up or down."""

    up: bool
    reason: str


@dataclass(frozen=True, slots=True)
class FailureNoted:
    """A probe failed and the verdict stays: failure ``number`` in a row."""

    number: int
    reason: str


Effect = Probe | Verdict | FailureNoted

_UU, _UD, _U, _R, _D = State.UNPROVEN_UP, State.UNPROVEN_DOWN, State.UP, State.RETRYING, State.DOWN

TRANSITIONS: Final = {
    (_UU, Symbol.DUE): Rule("_probe", (_UU,)),
    (_UU, Symbol.PASSED): Rule("_prove", (_U,)),
    (_UU, Symbol.FAILED): Rule("_go_down", (_D,)),
    (_UD, Symbol.DUE): Rule("_probe", (_UD,)),
    (_UD, Symbol.PASSED): Rule("_go_up", (_U,)),
    (_UD, Symbol.FAILED): Rule("_stay_down", (_D,)),
    (_U, Symbol.DUE): Rule("_probe", (_U,)),
    (_U, Symbol.PASSED): Rule("_stay_up", (_U,)),
    (_U, Symbol.FAILED): Rule("_fail_once", (_R, _D)),
    (_R, Symbol.DUE): Rule("_probe", (_R,)),
    (_R, Symbol.PASSED): Rule("_stay_up", (_U,)),
    (_R, Symbol.FAILED): Rule("_fail_again", (_R, _D)),
    (_D, Symbol.DUE): Rule("_probe", (_D,)),
    (_D, Symbol.PASSED): Rule("_go_up", (_U,)),
    (_D, Symbol.FAILED): Rule("_stay_down", (_D,)),
}


class CheckMachine:
    """Schedules probes by ``timing``. ``first_at`` is the time of the first one; the caller adds the random warm-up.

    ``up`` is a known verdict. With ``None``, ``alpha`` decides the initial state, and the first result the verdict.
    """

    def __init__(self, timing: CheckTiming, first_at: float, *, up: bool | None = None) -> None:
        self.timing = timing
        unproven = _UD if timing.alpha else _UU
        self.state = unproven if up is None else (_U if up else _D)
        self.failures = 0
        self.last: Result | None = None
        self.last_at: float | None = None
        self.since = first_at
        self._due: float | None = first_at

    @property
    def up(self) -> bool:
        """The verdict on the server."""
        return self.state in (_UU, _U, _R)

    @property
    def is_unproven(self) -> bool:
        """Whether nothing is known of the server yet."""
        return self.state in (_UU, _UD)

    def copy(self) -> CheckMachine:
        """Return a machine in the same state."""
        return copy(self)

    def reconfigure(self, timing: CheckTiming, next_at: float) -> None:
        """Use other settings. The verdict stays until the next result; its probe starts at ``next_at`` at the latest."""
        self.timing = timing
        self._due = next_at if self._due is None else min(self._due, next_at)

    def receive(self, result: Result, now: float) -> list[Effect]:
        """Process the result of the last probe."""
        self.last, self.last_at = result, now
        return self._step(Symbol.PASSED if result.passed else Symbol.FAILED, now)

    def deadline(self) -> float | None:
        """When the next probe is due; ``None`` while one runs."""
        return self._due

    def expire(self, now: float) -> list[Effect]:
        """Start a probe when it is due."""
        if self._due is None or self._due > now:
            return []
        self._due = None
        return self._step(Symbol.DUE, now)

    def _step(self, symbol: Symbol, now: float) -> list[Effect]:
        rule = find_rule(TRANSITIONS, self.state, symbol, "check")
        before = self.up
        effects: list[Effect] = getattr(self, rule.action)(now)
        assert self.state in rule.targets
        if self.up is not before:
            self.since = now
        return effects

    def _again(self, now: float, delay_s: float, state: State) -> None:
        self.state = state
        self._due = now + delay_s

    def _reason(self) -> str:
        return self.last.reason if self.last else ""

    def _probe(self, now: float) -> list[Effect]:
        return [Probe()]

    def _prove(self, now: float) -> list[Effect]:
        return self._stay_up(now)

    def _stay_up(self, now: float) -> list[Effect]:
        self.failures = 0
        self._again(now, self.timing.delay_loop_s, _U)
        return []

    def _go_up(self, now: float) -> list[Effect]:
        self._stay_up(now)
        return [Verdict(True, "")]

    def _stay_down(self, now: float) -> list[Effect]:
        self.failures += 1
        self._again(now, self._pause_s(), _D)
        return [FailureNoted(self.failures, self._reason())]

    def _go_down(self, now: float) -> list[Effect]:
        self.failures += 1
        self._again(now, self._pause_s(), _D)
        return [Verdict(False, self._reason())]

    def _pause_s(self) -> float:
        """Return when a server that is down is asked again. If this node is cut off, it knows soon that it is not any more."""
        local = self.last is not None and self.last.local
        return min(self.timing.delay_loop_s, LOCAL_PAUSE_S) if local else self.timing.delay_loop_s

    def _fail_once(self, now: float) -> list[Effect]:
        return self._fail_again(now)

    def _fail_again(self, now: float) -> list[Effect]:
        self.failures += 1
        if self.failures > self.timing.retry:
            self.failures -= 1
            return self._go_down(now)
        self._again(now, self.timing.delay_before_retry_s, _R)
        return [FailureNoted(self.failures, self._reason())]
