"""Tests for every machine's table: consistency of the table, and a walk through all of its pairs."""

from itertools import product

import pytest

from relevo.errors import ImpossibleTransition
from relevo.machines.machine import diagram, find_rule


class Recording(dict):
    """A transition table that notes which pairs a machine looks up."""

    def __init__(self, table):
        super().__init__(table)
        self.seen = []

    def get(self, pair, default=None):
        self.seen.append(pair)
        return super().get(pair, default)


def walk(monkeypatch, module, reach, feed):
    """Bring a machine into each state, give it each symbol, and compare what follows with the table.

    ``reach`` maps a state to a function that makes a machine there; ``feed`` gives a machine a symbol. Every pair of the
    table must be met; every absent pair must raise.
    """
    table = Recording(module.TRANSITIONS)
    monkeypatch.setattr(module, "TRANSITIONS", table)
    met = set()
    for state, symbol in product(reach, module.Symbol):
        machine = reach[state]()
        assert machine.state is state
        if (state, symbol) in table:
            feed(machine, symbol)
            assert table.seen[-1] == (state, symbol)
            assert machine.state in table[state, symbol].targets, f"{state} on {symbol}"
            met.add((state, symbol))
        else:
            with pytest.raises(ImpossibleTransition, match=f"no transition from {state} on {symbol}"):
                feed(machine, symbol)
    assert met == set(table)


def force(machine, timer, now=1000.0):
    """Let ``timer`` fire, whether or not the machine would have set it."""
    machine._timers.clear()
    machine._timers.set(timer, now)
    return machine.expire(now)


def assert_sound(module, machine, start, states):
    """Assert that actions exist, that ``states`` are all reachable, that absent pairs raise and that the diagram is whole."""
    table = module.TRANSITIONS
    for rule in table.values():
        assert callable(getattr(machine, rule.action))
    assert reachable(table, start) == set(states)
    for pair in set(product(states, module.Symbol)) - set(table):
        with pytest.raises(ImpossibleTransition):
            find_rule(table, *pair, "test")
    drawn = diagram(table, "test").splitlines()
    edges = [(state, target, symbol) for (state, symbol), rule in table.items() for target in rule.targets]
    assert drawn[-len(edges) :] == [f"    {s.name} --> {t.name}: {symbol.name}" for s, t, symbol in edges]


def reachable(table, start):
    """States that can follow ``start``, and those."""
    found, fresh = set(start), set(start)
    while fresh:
        fresh = {t for (state, _), rule in table.items() if state in fresh for t in rule.targets} - found
        found |= fresh
    return found
