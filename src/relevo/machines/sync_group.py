"""A sync group: instances that are MASTER, BACKUP or FAULT together (keepalived.conf(5), "vrrp_sync_group").

The group becomes MASTER when every member asks for it, or when one becomes master by itself. It leaves MASTER with the first
member that does, and is in FAULT while any member has a fault of its own. Members send reports, the group answers with orders.
The node delivers them, and adds the cause ``GROUP_FAULT`` to the other members of a group in FAULT.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from relevo.machines.machine import Rule, find_rule
from relevo.machines.vrrp import State


class Symbol(enum.StrEnum):
    """Events of the whole group (the first four), and reports of a member."""

    START = "start"
    STOP = "stop"
    FAIL = "fail"
    RECOVER = "recover"
    ASK = "ask"
    WITHDRAW = "withdraw"
    BACKUP = "backup"
    MASTER = "master"


@dataclass(frozen=True, slots=True)
class Report:
    """Member ``name`` asks for mastery, or has entered a state; ``name`` is empty for events of the whole group."""

    symbol: Symbol
    name: str = ""


@dataclass(frozen=True, slots=True)
class OrderMember:
    """Order a member to become MASTER or BACKUP."""

    name: str
    state: State


@dataclass(frozen=True, slots=True)
class GroupTransition:
    """The group as a whole changed state."""

    before: State
    after: State


Effect = OrderMember | GroupTransition

_I, _B, _M, _F = State.INIT, State.BACKUP, State.MASTER, State.FAULT

TRANSITIONS: Final = {
    # State: INIT. Before the start, and after the stop.
    (_I, Symbol.START): Rule("_start", (_B,)),
    (_I, Symbol.STOP): Rule("_ignore", (_I,)),
    (_I, Symbol.FAIL): Rule("_ignore", (_I,)),
    (_I, Symbol.RECOVER): Rule("_ignore", (_I,)),
    (_I, Symbol.ASK): Rule("_ignore", (_I,)),
    (_I, Symbol.WITHDRAW): Rule("_ignore", (_I,)),
    (_I, Symbol.MASTER): Rule("_ignore", (_I,)),
    (_I, Symbol.BACKUP): Rule("_ignore", (_I,)),
    # State: BACKUP. Waits until all members ask, or until one becomes master by itself.
    (_B, Symbol.STOP): Rule("_stop", (_I,)),
    (_B, Symbol.FAIL): Rule("_fail", (_F,)),
    (_B, Symbol.RECOVER): Rule("_ignore", (_B,)),
    (_B, Symbol.ASK): Rule("_ask", (_M, _B)),
    (_B, Symbol.WITHDRAW): Rule("_ignore", (_B,)),
    (_B, Symbol.MASTER): Rule("_order_all", (_M,)),
    (_B, Symbol.BACKUP): Rule("_ignore", (_B,)),
    # State: MASTER. When one member becomes backup, the others follow.
    (_M, Symbol.STOP): Rule("_stop", (_I,)),
    (_M, Symbol.FAIL): Rule("_fail", (_F,)),
    (_M, Symbol.RECOVER): Rule("_ignore", (_M,)),
    (_M, Symbol.ASK): Rule("_order_all", (_M,)),
    (_M, Symbol.WITHDRAW): Rule("_ignore", (_M,)),
    (_M, Symbol.MASTER): Rule("_ignore", (_M,)),
    (_M, Symbol.BACKUP): Rule("_yield", (_B,)),
    # State: FAULT. At least one member has a fault of its own.
    (_F, Symbol.STOP): Rule("_stop", (_I,)),
    (_F, Symbol.FAIL): Rule("_ignore", (_F,)),
    (_F, Symbol.RECOVER): Rule("_recover", (_B,)),
    (_F, Symbol.ASK): Rule("_ignore", (_F,)),
    (_F, Symbol.WITHDRAW): Rule("_ignore", (_F,)),
    (_F, Symbol.MASTER): Rule("_ignore", (_F,)),
    (_F, Symbol.BACKUP): Rule("_ignore", (_F,)),
}


class SyncGroupMachine:
    """Keeps ``members`` in one state. Only the members have timers."""

    def __init__(self, name: str, members: tuple[str, ...]) -> None:
        self.name = name
        self.members = members
        self.state = State.INIT
        self.asking: set[str] = set()
        self._reporter = ""

    def receive(self, report: Report, now: float) -> list[Effect]:
        """Process a report; return orders."""
        self._reporter = report.name
        if report.symbol is Symbol.ASK:
            self.asking.add(report.name)
        elif report.symbol in (Symbol.BACKUP, Symbol.WITHDRAW):
            self.asking.discard(report.name)
        rule = find_rule(TRANSITIONS, self.state, report.symbol, self.name)
        effects: list[Effect] = getattr(self, rule.action)()
        assert self.state in rule.targets
        return effects

    def set_members(self, members: tuple[str, ...]) -> None:
        """Set the members that a reload declares. The caller calls ``unite`` once they are reconfigured."""
        self.members = members
        self.asking &= set(members)

    def unite(self, masters: Iterable[str]) -> list[Effect]:
        """Bring members that a reload put together into one state; ``masters`` are master now.

        The group is MASTER if any member is: a member that joins does not end an existing mastery.
        """
        if self.state not in (_B, _M):
            return []
        if set(masters).intersection(self.members):
            return self._order_all()
        return self._enter(_B)

    def deadline(self) -> float | None:
        """Return ``None``: a group has no timers."""
        return None

    def expire(self, now: float) -> list[Effect]:
        """Return nothing."""
        return []

    def _ignore(self) -> list[Effect]:
        return []

    def _start(self) -> list[Effect]:
        return self._enter(_B)

    def _stop(self) -> list[Effect]:
        return self._enter(_I)

    def _ask(self) -> list[Effect]:
        return self._order_all() if self.asking.issuperset(self.members) else []

    def _order_all(self) -> list[Effect]:
        orders: list[Effect] = [OrderMember(name, _M) for name in self.members]
        return [*orders, *self._enter(_M)]

    def _yield(self) -> list[Effect]:
        others = (name for name in self.members if name != self._reporter)
        return [*(OrderMember(name, _B) for name in others), *self._enter(_B)]

    def _fail(self) -> list[Effect]:
        return self._enter(_F)

    def _recover(self) -> list[Effect]:
        return self._enter(_B)

    def _enter(self, state: State) -> list[Effect]:
        before, self.state = self.state, state
        self.asking.clear()
        return [GroupTransition(before, state)] if before is not state else []
