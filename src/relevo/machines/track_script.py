"""One ``vrrp_script``: when its command runs, and when its verdict changes.

The first result decides alone; afterwards ``rise`` successes or ``fall`` failures in a row change the verdict
(keepalived.conf(5), "vrrp_script"). With ``init_fail`` the script counts as failed until it has
succeeded ``rise`` times. The command starts every ``interval_s``; one that is still running then is not started a second time.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from relevo.machines.machine import Rule, find_rule
from relevo.model.trackers import VrrpScript


class State(enum.StrEnum):
    """Verdict on the script; UNKNOWN before the first result."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


class Symbol(enum.StrEnum):
    """Results of a run."""

    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The script went up or down; ``reason`` is empty after a success."""

    up: bool
    reason: str


_U, _D, _N = State.UP, State.DOWN, State.UNKNOWN

TRANSITIONS: Final = {
    (_N, Symbol.PASSED): Rule("_go_up", (_U,)),
    (_N, Symbol.FAILED): Rule("_go_down", (_D,)),
    (_U, Symbol.PASSED): Rule("_stay", (_U,)),
    (_U, Symbol.FAILED): Rule("_count", (_U, _D)),
    (_D, Symbol.PASSED): Rule("_count", (_U, _D)),
    (_D, Symbol.FAILED): Rule("_stay", (_D,)),
}


class ScriptMachine:
    """Schedules and judges the runs of ``script``. ``due`` is when the next run starts; a run in progress delays it."""

    def __init__(self, script: VrrpScript, now: float) -> None:
        self.script = script
        self.state = State.DOWN if script.init_fail else State.UNKNOWN
        self.due = now
        self.running = False
        self.reason = ""
        self.last_at: float | None = None
        self._proven = script.init_fail
        self._streak = 0

    @property
    def up(self) -> bool | None:
        """The verdict, ``None`` before there is one."""
        return None if self.state is State.UNKNOWN else self.state is State.UP

    def reconfigure(self, script: VrrpScript, now: float) -> None:
        """Use other settings. The verdict stays until the next result; another command runs at once, and decides alone."""
        former, self.script = self.script, script
        if former.script != script.script:
            self.due, self.running, self._proven = now, False, False
        else:
            self.due = min(self.due, now + script.interval_s)

    def deadline(self) -> float | None:
        """Return when the next run starts; ``None`` while one is in progress."""
        return None if self.running else self.due

    def start(self, now: float) -> None:
        """Record that a run starts."""
        self.running = True
        self.due = now + self.script.interval_s

    def receive(self, reason: str, now: float) -> Verdict | None:
        """Process the result of the run; ``reason`` says why it failed, empty after a success. Return a change."""
        self.running = False
        self.last_at = now
        self.reason = reason
        rule = find_rule(TRANSITIONS, self.state, Symbol.FAILED if reason else Symbol.PASSED, self.script.name)
        verdict: Verdict | None = getattr(self, rule.action)(Symbol.FAILED if reason else Symbol.PASSED)
        assert self.state in rule.targets
        self._proven = True
        return verdict

    def _stay(self, symbol: Symbol) -> None:
        self._streak = 0

    def _count(self, symbol: Symbol) -> Verdict | None:
        self._streak += 1
        needed = self.script.fall if symbol is Symbol.FAILED else self.script.rise
        if self._proven and self._streak < needed:
            return None
        return self._go_down(symbol) if symbol is Symbol.FAILED else self._go_up(symbol)

    def _go_up(self, symbol: Symbol) -> Verdict:
        self.state, self._streak = State.UP, 0
        return Verdict(True, "")

    def _go_down(self, symbol: Symbol) -> Verdict:
        self.state, self._streak = State.DOWN, 0
        return Verdict(False, self.reason)
