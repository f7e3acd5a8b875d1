"""The property can fail: it finds each root cause of a former fault that is put back."""

from collections import defaultdict

import pytest

from relevo.machines.check import CheckMachine
from relevo.machines.pool import PoolMachine
from relevo.node import addresses, checks
from relevo.node.director import Director
from relevo.node.effects import AddAddress, RemoveAddress
from relevo.node.groups import Groups
from tests.sim import test_balancer_confluence, test_confluence

MAX_HISTORIES = 3000


def former_members_count(monkeypatch):
    """A sync group remembers the faults of members that a reload took out (keepalived #1532, #2685)."""
    present = Groups.failed
    remembered = defaultdict(set)

    def failed(self, standings):
        found = present(self, standings)
        for name, group in self.machines.items():
            known = remembered[id(group)]
            known |= found[name]
            known -= {m for m in known if m in standings and not standings[m].faults}
            found[name] = set(known)
        return found

    monkeypatch.setattr(Groups, "failed", failed)


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

    def anew(self, service, failing, now, weights):
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


def a_resumed_master_waits_without_addresses(monkeypatch):
    """A director that replaces a dead one removes the addresses, and sets them again when its socket is open."""
    monkeypatch.setattr(Director, "_has_addresses", lambda self, router: router.machine.has_addresses)


FAULTS = {
    former_members_count: test_confluence,
    members_that_join_are_not_ordered: test_confluence,
    addresses_are_compared_as_text: test_confluence,
    a_resumed_master_waits_without_addresses: test_confluence,
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
