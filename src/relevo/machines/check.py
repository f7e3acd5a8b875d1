"""One checker of one real server: when to probe, and when its verdict changes.

In service, ``retry`` + 1 failures in a row, ``delay_before_retry`` apart, take it out; one success brings it back. A check
starts up, or down with ``alpha``; then the first result alone decides (keepalived.conf(5), and its behaviour: without
``alpha`` one failed first check removes the server). What a probe does on the network is the probes' business.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from relevo.machines.machine import Rule, Timers, find_rule
from relevo.model.checks import CheckTiming


class State(enum.StrEnum):
    """What the check says of its server, and whether that was ever proven."""

    UNPROVEN_UP = "unproven-up"
    UNPROVEN_DOWN = "unproven-down"
    UP = "up"
    RETRYING = "retrying"
    """Up, but the last probe failed."""
    DOWN = "down"


class Symbol(enum.StrEnum):
    """Results of a probe, and the only timer."""

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
    TOO_LARGE = "too large"
    LOCAL = "local error"


@dataclass(frozen=True, slots=True)
class Result:
    """How a probe ended: ``failure`` is ``None`` when it passed; ``detail`` says more in either case."""

    failure: Failure | None = None
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether the server did what the check asks."""
        return self.failure is None

    @property
    def reason(self) -> str:
        """The failure in words, empty when passed."""
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
    """A probe failed without changing the verdict: failure ``number`` of a row."""

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
    """Schedules probes by ``timing``. ``first_at`` is the time of the first one (the caller draws the warm-up).

    ``up`` is a verdict that is known from elsewhere; ``None`` leaves it to ``alpha``, and the first result to decide alone.
    """

    def __init__(self, timing: CheckTiming, first_at: float, *, up: bool | None = None) -> None:
        self.timing = timing
        unproven = _UD if timing.alpha else _UU
        self.state = unproven if up is None else (_U if up else _D)
        self.failures = 0
        self.last: Result | None = None
        self.last_at: float | None = None
        self.since = first_at
        self._timers: Timers[Symbol] = Timers()
        self._timers.set(Symbol.DUE, first_at)

    @property
    def up(self) -> bool:
        """What the check says of the server."""
        return self.state in (_UU, _U, _R)

    def reconfigure(self, timing: CheckTiming, next_at: float) -> None:
        """Take other settings over. The verdict stays until the next result, which is asked for by ``next_at`` at the latest."""
        self.timing = timing
        due = self._timers.get(Symbol.DUE)
        self._timers.set(Symbol.DUE, next_at if due is None else min(due, next_at))

    def receive(self, result: Result, now: float) -> list[Effect]:
        """Take the result of the probe that was started last."""
        self.last, self.last_at = result, now
        return self._step(Symbol.PASSED if result.passed else Symbol.FAILED, now)

    def deadline(self) -> float | None:
        """When the next probe is due; ``None`` while one runs."""
        return self._timers.deadline()

    def expire(self, now: float) -> list[Effect]:
        """Start a probe when it is due."""
        return [] if self._timers.pop_due(now) is None else self._step(Symbol.DUE, now)

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
        self._timers.set(Symbol.DUE, now + delay_s)

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
        self._again(now, self.timing.delay_loop_s, _D)
        return [FailureNoted(self.failures, self._reason())]

    def _go_down(self, now: float) -> list[Effect]:
        self.failures += 1
        self._again(now, self.timing.delay_loop_s, _D)
        return [Verdict(False, self._reason())]

    def _fail_once(self, now: float) -> list[Effect]:
        return self._fail_again(now)

    def _fail_again(self, now: float) -> list[Effect]:
        self.failures += 1
        if self.failures > self.timing.retry:
            self.failures -= 1
            return self._go_down(now)
        self._again(now, self.timing.delay_before_retry_s, _R)
        return [FailureNoted(self.failures, self._reason())]
