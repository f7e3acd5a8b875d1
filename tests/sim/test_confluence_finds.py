"""The property can fail: root causes of faults that were once there, put back one at a time, are each found by it."""

from collections import defaultdict

import pytest

from relevo.machines.check import CheckMachine
from relevo.machines.pool import PoolMachine
from relevo.node import addresses, checks
from relevo.node.director import Director
from relevo.node.effects import AddAddress, RemoveAddress
from tests.sim import test_balancer_confluence, test_confluence

MAX_HISTORIES = 3000


def former_members_count(monkeypatch):
    """A sync group remembers the faults of members that a reload took out (keepalived #1532, #2685)."""
    failed = defaultdict(set)
    judge = Director._judge_group

    def remembering(self, group, present, now):
        for name, router in self.routers.items():
            (failed[id(group)].add if router.machine.faults else failed[id(group)].discard)(name)
            if name in group.members and router.machine.faults:
                group.once = {*getattr(group, "once", ()), name}
        kept = {name for name in getattr(group, "once", ()) if name in failed[id(group)] and name not in group.members}
        judge(self, group, present or bool(kept), now)

    monkeypatch.setattr(Director, "_judge_group", remembering)


def members_that_join_are_not_ordered(monkeypatch):
    """A member that is added to a master group waits for a silence that never comes (keepalived #2715, #285)."""
    monkeypatch.setattr(Director, "_unite", lambda self, group, now: None)


def addresses_are_compared_as_text(monkeypatch):
    """Device, label, prefix length and broadcast address of an address are not looked at (keepalived #2383, #384)."""

    def by_text(wanted, world, ours, declared):
        present = {each.set.address for each in world.addresses}
        texts = {address.address for address in wanted.values()}
        known = set(ours)
        gone = [e.set for e in world.addresses if e.set.key in known and e.set.address not in texts]
        missing = [AddAddress(address) for address in wanted.values() if address.address not in present]
        return [*missing, *map(RemoveAddress, gone)]

    monkeypatch.setattr(addresses, "reconcile", by_text)


def a_changed_pool_is_a_new_pool(monkeypatch):
    """Any edit of a service forgets its hysteresis (dpvs #945, keepalived #33)."""

    def anew(self, service, failing, now):
        down = [(at, name, why) for at, names in failing.items() for name, why in names.items()]
        self.__init__(service, now, down)
        return []

    monkeypatch.setattr(PoolMachine, "reconfigure", anew)


def a_changed_check_is_a_new_check(monkeypatch):
    """A check that is edited while its server is down puts the server back (keepalived #1163, #608, #2318)."""
    keep = checks.Checks._keep

    def anew(self, runner, server, check, now):
        changed = runner.check != check
        abandoned = keep(self, runner, server, check, now)
        if changed:
            runner.machine = CheckMachine(check.timing, now + 1.0)
            self._arm(runner)
        return abandoned

    monkeypatch.setattr(checks.Checks, "_keep", anew)


FAULTS = {
    former_members_count: test_confluence,
    members_that_join_are_not_ordered: test_confluence,
    addresses_are_compared_as_text: test_confluence,
    a_changed_pool_is_a_new_pool: test_balancer_confluence,
    a_changed_check_is_a_new_check: test_balancer_confluence,
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_root_cause_that_comes_back_is_found(fault, monkeypatch, capsys):
    fault(monkeypatch)
    for seed in range(MAX_HISTORIES):
        try:
            FAULTS[fault].history(seed)
        except AssertionError:
            with capsys.disabled():
                print(f" found after {seed + 1} histories ", end="")  # noqa: T201
            return
    pytest.fail(f"{fault.__name__}: not found in {MAX_HISTORIES} histories")
