"""Shared by all machines: timers as data, and transition tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from relevo.errors import ImpossibleTransition

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rule:
    """Entry of a transition table: the method to call, and the states that may follow."""

    action: str
    targets: tuple[Any, ...]


Table = Mapping[tuple[Any, Any], Rule]


def find_rule(table: Table, state: Any, symbol: Any, who: str) -> Rule:
    """Look up a (state, symbol) pair; ``ImpossibleTransition``, naming ``who``, if the table does not list it."""
    rule = table.get((state, symbol))
    if rule is None:
        raise ImpossibleTransition(f"{who}: no transition from {state} on {symbol}")
    return rule


class Timers(Generic[T]):
    """Named deadlines. Setting a timer again replaces its deadline."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due: dict[T, float] = {}

    def copy(self) -> Timers[T]:
        """Return a copy with the same deadlines."""
        twin: Timers[T] = Timers()
        twin._due = dict(self._due)
        return twin

    def set(self, timer: T, at: float) -> None:
        """Set ``timer`` to expire at ``at``."""
        self._due[timer] = at

    def cancel(self, *timers: T) -> None:
        """Cancel timers; one that is not set is ignored."""
        for timer in timers:
            self._due.pop(timer, None)

    def clear(self) -> None:
        """Cancel all timers."""
        self._due.clear()

    def get(self, timer: T) -> float | None:
        """Return when ``timer`` expires, ``None`` if it is not set."""
        return self._due.get(timer)

    def deadline(self) -> float | None:
        """Return the earliest deadline, ``None`` without timers."""
        return min(self._due.values(), default=None)

    def pop_due(self, now: float) -> T | None:
        """Remove and return the timer with the earliest deadline, ``None`` if none is due."""
        if not self._due:
            return None
        timer = min(self._due, key=self._due.__getitem__)
        if self._due[timer] > now:
            return None
        del self._due[timer]
        return timer


def diagram(table: Table, title: str) -> str:
    """Draw a transition table as a Mermaid state diagram."""
    lines = [f"---\ntitle: {title}\n---", "stateDiagram-v2"]
    for (state, symbol), rule in table.items():
        lines += [f"    {state.name} --> {target.name}: {symbol.name}" for target in rule.targets]
    return "\n".join(lines) + "\n"
