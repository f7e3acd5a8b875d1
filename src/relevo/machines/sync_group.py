"""A sync group: instances that are MASTER, BACKUP or FAULT together (keepalived.conf(5), "vrrp_sync_group").

The group becomes MASTER when a member asks and all are able; it leaves MASTER, and enters FAULT, with the first member
that does. Members report, the group orders; who carries an order to a member is the director worker.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from relevo.machines.machine import Rule, find_rule
from relevo.machines.vrrp import State

GROUP_FAULT: Final = "another member of the sync group is in FAULT"
"""Cause under which the group's fault is reported to its members."""


class Symbol(enum.StrEnum):
    """What a member reports."""

    ASK = "ask"
    WITHDRAW = "withdraw"
    BACKUP = "backup"
    FAULT = "fault"
    RECOVER = "recover"
    MASTER = "master"


@dataclass(frozen=True, slots=True)
class Report:
    """Member ``name`` asks for mastery, or has entered a state."""

    name: str
    symbol: Symbol


@dataclass(frozen=True, slots=True)
class OrderMember:
    """Order a member into MASTER or BACKUP."""

    name: str
    state: State


@dataclass(frozen=True, slots=True)
class FailMember:
    """Tell a member that the group is in fault."""

    name: str


@dataclass(frozen=True, slots=True)
class RecoverMember:
    """Tell a member that the group's fault is over."""

    name: str


@dataclass(frozen=True, slots=True)
class GroupTransition:
    """The group as a whole changed state."""

    before: State
    after: State


Effect = OrderMember | FailMember | RecoverMember | GroupTransition

_B, _M, _F = State.BACKUP, State.MASTER, State.FAULT

TRANSITIONS: Final = {
    (_B, Symbol.ASK): Rule("_ask", (_M, _B)),
    (_B, Symbol.WITHDRAW): Rule("_ignore", (_B,)),
    (_B, Symbol.MASTER): Rule("_order_all", (_M,)),
    (_B, Symbol.BACKUP): Rule("_ignore", (_B,)),
    (_B, Symbol.FAULT): Rule("_fault", (_F,)),
    (_B, Symbol.RECOVER): Rule("_ignore", (_B,)),
    (_M, Symbol.ASK): Rule("_order_all", (_M,)),
    (_M, Symbol.WITHDRAW): Rule("_ignore", (_M,)),
    (_M, Symbol.MASTER): Rule("_ignore", (_M,)),
    (_M, Symbol.BACKUP): Rule("_yield", (_B,)),
    (_M, Symbol.FAULT): Rule("_fault", (_F,)),
    (_M, Symbol.RECOVER): Rule("_ignore", (_M,)),
    (_F, Symbol.ASK): Rule("_ignore", (_F,)),
    (_F, Symbol.WITHDRAW): Rule("_ignore", (_F,)),
    (_F, Symbol.MASTER): Rule("_ignore", (_F,)),
    (_F, Symbol.BACKUP): Rule("_ignore", (_F,)),
    (_F, Symbol.FAULT): Rule("_fault", (_F,)),
    (_F, Symbol.RECOVER): Rule("_recover", (_B, _F)),
}


class SyncGroupMachine:
    """Keeps ``members`` together. It has no timers: its members do."""

    def __init__(self, name: str, members: tuple[str, ...]) -> None:
        self.name = name
        self.members = members
        self.state = State.BACKUP
        self.failed: set[str] = set()
        self.asking: set[str] = set()
        self._reporter = ""

    def receive(self, report: Report, now: float) -> list[Effect]:
        """Take a member's report; return orders."""
        self._reporter = report.name
        if report.symbol is Symbol.ASK:
            self.asking.add(report.name)
        elif report.symbol in (Symbol.BACKUP, Symbol.FAULT, Symbol.WITHDRAW):
            self.asking.discard(report.name)
        if report.symbol is Symbol.FAULT:
            self.failed.add(report.name)
        elif report.symbol is Symbol.RECOVER:
            self.failed.discard(report.name)
        rule = find_rule(TRANSITIONS, self.state, report.symbol, self.name)
        effects: list[Effect] = getattr(self, rule.action)()
        assert self.state in rule.targets
        return effects

    def deadline(self) -> float | None:
        """Return ``None``: nothing happens here by time alone."""
        return None

    def expire(self, now: float) -> list[Effect]:
        """Return nothing."""
        return []

    def _others(self) -> tuple[str, ...]:
        return tuple(name for name in self.members if name != self._reporter)

    def _ignore(self) -> list[Effect]:
        return []

    def _ask(self) -> list[Effect]:
        return self._order_all() if self.asking.issuperset(self.members) else []

    def _order_all(self) -> list[Effect]:
        orders: list[Effect] = [OrderMember(name, State.MASTER) for name in self.members]
        return [*orders, *self._enter(State.MASTER)]

    def _yield(self) -> list[Effect]:
        return [*(OrderMember(name, State.BACKUP) for name in self._others()), *self._enter(State.BACKUP)]

    def _fault(self) -> list[Effect]:
        return [*(FailMember(name) for name in self._others()), *self._enter(State.FAULT)]

    def _recover(self) -> list[Effect]:
        if self.failed:
            return []
        return [*(RecoverMember(name) for name in self.members), *self._enter(State.BACKUP)]

    def _enter(self, state: State) -> list[Effect]:
        before, self.state = self.state, state
        self.asking.clear()
        return [GroupTransition(before, state)] if before is not state else []
