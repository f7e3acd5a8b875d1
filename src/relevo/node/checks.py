"""The checks of all real servers: which are due, and which a reload keeps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator
from copy import copy
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Final

from relevo.machines import check as checking
from relevo.machines.check import CheckMachine, Failure, Result, Weight
from relevo.machines.pool import CheckName
from relevo.model import Check, Endpoint, RealServer, VirtualServer
from relevo.model.checks import FAULT_WEIGHT, FileCheck
from relevo.model.diff import check_names

FIRST_CHECK_S: Final = 1.0
"""The first check comes this long after the start, plus a random part of the warm-up (keepalived's rule)."""

SLOTS_PER_S: Final = 200
"""Checks begin together with those of the same slot of time: ten thousand of them would wake the process for each otherwise."""

LATE_SAMPLES: Final = 2000

CheckKey = tuple[str, Endpoint, CheckName]
"""Service, server and check; a reload keeps it."""


@dataclass(slots=True, eq=False)
class CheckRunner:
    """One check of one real server. ``running`` while its probe runs.

    Of equal checks of several services one is the ``leader``: its probes count for all ``followers``, which have none.
    """

    key: CheckKey
    server: RealServer
    check: Check
    machine: CheckMachine
    running: bool = False
    weight: Weight | None = None
    """What it makes of the server's weight."""
    suspended: bool = False
    leader: CheckRunner | None = None
    followers: list[CheckRunner] | None = None

    @property
    def why_down(self) -> str:
        """Return why a check is down."""
        last = self.machine.last
        return last.reason if last is not None and last.reason else "not checked yet"


def weigh(check: FileCheck, number: int) -> Result:
    """Return what the number in a file means for a server (keepalived.conf(5), "FILE_CHECK")."""
    if check.weight == 0:
        fails = (number != 0) is not check.reverse
        return Result(Failure.FILE, f"{check.track_file} has {number}") if fails else Result(detail=str(number))
    change = number * check.weight * (-1 if check.reverse else 1)
    if change <= FAULT_WEIGHT:
        return Result(Failure.FILE, f"{check.track_file} has {number}")
    return Result(detail=str(number), weight=Weight(change))


def _is_scheduled(at: float, runner: CheckRunner) -> bool:
    """Whether a check has not been started, put off or given to another one since it was scheduled for ``at``."""
    return runner.machine.deadline() == at and not runner.running and not runner.suspended and runner.leader is None


def _knows_more(one: CheckRunner, other: CheckRunner) -> bool:
    return (one.running, one.machine.last is not None) > (other.running, other.machine.last is not None)


class Checks:
    """All checks of a configuration. ``draw`` returns a random number in [0, 1) to spread the first checks in time."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self.runners: dict[CheckKey, CheckRunner] = {}
        self._draw = draw
        self._slots: dict[int, list[tuple[float, CheckRunner]]] = {}  # what is due, by slots of time
        self._next: list[int] = []  # the slots, as a heap
        self.numbers: dict[str, int] = {}  # in files, by name
        self._by_file: dict[str, list[CheckRunner]] = {}
        self._late: deque[float] = deque(maxlen=LATE_SAMPLES)

    @property
    def lateness_s(self) -> float:
        """How late checks begin: of the last ones, 99 in 100 began within this time after they were due."""
        found = sorted(self._late)
        return found[len(found) * 99 // 100] if found else 0.0

    def copy(self) -> Checks:
        """Return a copy that can be configured without any effect on this one. It starts no probe."""
        twin = copy(self)
        twin.runners = {key: replace(runner, machine=runner.machine.copy()) for key, runner in self.runners.items()}
        twin._slots, twin._next = {}, []
        twin.numbers = dict(self.numbers)
        return twin

    def configure(
        self, services: tuple[VirtualServer, ...], known: dict[tuple[str, Endpoint], bool], now: float
    ) -> list[CheckKey]:
        """Use the checks of these services; return the checks whose running probes must be cancelled.

        An existing check keeps its state; changed settings take effect with the next probe, which comes soon. A new check of a
        ``known`` server begins with the verdict on that server: an edit of the file does not change it.
        """
        former, self.runners = self.runners, {}
        self._by_file = {}
        abandoned: list[CheckKey] = []
        for service in services:
            for server in service.real_servers:
                verdict = known.get((service.name, server.endpoint))
                for name, check in check_names(server):
                    key = (service.name, server.endpoint, name)
                    present = former.get(key)
                    if present is None:
                        self._add(key, server, check, verdict, now)
                    elif self._keep(present, server, check, now):
                        abandoned.append(key)
        gone = [key for key, runner in former.items() if key not in self.runners and runner.running]
        self._share()
        return [*gone, *abandoned]

    def suspend(self, services: Collection[str], now: float) -> tuple[list[str], list[str]]:
        """Ask nothing for these services from now on, and for all others; return which begin and which end to wait.

        Checks that go on ask soon: what they know may be old.
        """
        began: dict[str, None] = {}
        ended: dict[str, None] = {}
        for (service, *_), runner in self.runners.items():
            suspended = service in services
            if suspended is runner.suspended or isinstance(runner.check, FileCheck):
                continue
            runner.suspended = suspended
            (began if suspended else ended)[service] = None
            if not suspended and not runner.running:
                runner.machine.reconfigure(runner.check.timing, self._first_at(runner.check, now))
                self._arm(runner)
        if began or ended:
            self._share()
        return list(began), list(ended)

    def _share(self) -> None:
        """Let one of each set of equal checks ask for all: the same server in a hundred services is asked once.

        One that is asking, or has asked, goes on doing so. A new check begins with what it knows.
        """
        leaders: dict[Check, CheckRunner] = {}
        for runner in self.runners.values():
            runner.followers = None
            if not isinstance(runner.check, FileCheck) and not runner.suspended:
                present = leaders.setdefault(runner.check, runner)
                if present is not runner and _knows_more(runner, present):
                    leaders[runner.check] = runner
        for runner in self.runners.values():
            leader = None if runner.suspended else leaders.get(runner.check)
            if leader is runner or leader is None:
                led, runner.leader = runner.leader is not None, None
                if led:
                    self._arm(runner)
                continue
            runner.leader = leader
            if leader.followers is None:
                leader.followers = []
            leader.followers.append(runner)
            if runner.machine.last is None and leader.machine.last is not None:
                self._inform(runner, leader)

    def _inform(self, runner: CheckRunner, leader: CheckRunner) -> None:
        """Let a new check begin with what an equal one knows; if its server has a verdict already, soon have a result for it."""
        if runner.machine.is_unproven:
            runner.machine, runner.weight = leader.machine.copy(), leader.weight
            return
        due = runner.machine.deadline()
        if due is not None and not leader.running:
            leader.machine.reconfigure(leader.check.timing, due)
            self._arm(leader)

    def _add(self, key: CheckKey, server: RealServer, check: Check, verdict: bool | None, now: float) -> None:
        machine = CheckMachine(check.timing, self._first_at(check, now), up=verdict)
        runner = self.runners[key] = CheckRunner(key, server, check, machine)
        self._look_or_arm(runner, now)

    def _keep(self, runner: CheckRunner, server: RealServer, check: Check, now: float) -> bool:
        """Keep a check; return whether a probe with its former settings is running."""
        self.runners[runner.key] = runner
        runner.server = server
        if runner.check == check:
            if isinstance(check, FileCheck):
                self._by_file.setdefault(check.track_file, []).append(runner)
            return False
        runner.check = check
        runner.machine.reconfigure(check.timing, self._first_at(check, now))
        abandoned, runner.running = runner.running, False
        self._look_or_arm(runner, now)
        return abandoned

    def _look_or_arm(self, runner: CheckRunner, now: float) -> None:
        """Schedule the first probe; what a file says is known at once."""
        if not isinstance(runner.check, FileCheck):
            self._arm(runner)
            return
        self._by_file.setdefault(runner.check.track_file, []).append(runner)
        number = self.numbers.get(runner.check.track_file)
        if number is not None:
            result = weigh(runner.check, number)
            runner.machine.receive(result, now)
            runner.weight = result.weight

    def _first_at(self, check: Check, now: float) -> float:
        return now + min(FIRST_CHECK_S, check.timing.delay_loop_s) + self._draw() * check.timing.warmup_s

    def deadline(self) -> float | None:
        """Return when the next checks are due: those of about the same time begin together."""
        while self._next:
            slot = self._next[0]
            if any(_is_scheduled(at, runner) and self.runners.get(runner.key) is runner for at, runner in self._slots[slot]):
                return slot / SLOTS_PER_S
            self._drop_slot()
        return None

    def due(self, now: float) -> Iterator[CheckRunner]:
        """Yield the checks whose probes must start now."""
        while self._next and self._next[0] / SLOTS_PER_S <= now:
            for at, runner in self._drop_slot():
                if _is_scheduled(at, runner) and self.runners.get(runner.key) is runner:
                    runner.machine.expire(max(at, now))  # they may differ in the last digit
                    self._late.append(max(0.0, now - at))
                    runner.running = True
                    yield runner

    def _drop_slot(self) -> list[tuple[float, CheckRunner]]:
        return self._slots.pop(heappop(self._next))

    def file_read(self, name: str, number: int | None) -> list[tuple[CheckRunner, Result]]:
        """Take the number in a file; return the checks of that file with their results. One that cannot be read has 0."""
        self.numbers[name] = number or 0
        runners = self._by_file.get(name, ())
        return [(runner, weigh(runner.check, number or 0)) for runner in runners if isinstance(runner.check, FileCheck)]

    def finish(self, key: CheckKey, result: Result, now: float) -> list[tuple[CheckRunner, list[checking.Effect]]]:
        """Process the result of a probe, for all checks that it is for: none if the check is gone or the probe was cancelled."""
        runner = self.runners.get(key)
        if runner is None or not runner.running:
            return []
        runner.running = False
        found = [(runner, runner.machine.receive(result, now))]
        if runner.followers is not None:
            found += [(each, each.machine.receive(result, now)) for each in runner.followers if not each.running]
        self._arm(runner)
        return found

    def _arm(self, runner: CheckRunner) -> None:
        due = runner.machine.deadline()
        if due is not None:
            slot = math.ceil(due * SLOTS_PER_S - 1e-6)
            if slot not in self._slots:
                self._slots[slot] = []
                heappush(self._next, slot)
            self._slots[slot].append((due, runner))
