"""The service side of a simulated host: a balancer, real servers that go up and down, and a table."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Final

from relevo.machines.check import Failure, Result
from relevo.model import Check, Configuration
from relevo.model.plan import Step
from relevo.model.table import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    Operation,
    ServerState,
    ServiceState,
)
from relevo.node.balancer import AbandonProbe, Balancer, Effect, MatchTable, StartProbe
from relevo.node.checks import CheckKey
from relevo.node.plan import BalancerBefore, balancer_steps, rehearse_balancer

PROBE_S: Final = 0.02
"""Duration of a probe."""

Answers = Callable[[Check], bool]


class ServiceHost:
    """Drives a balancer on a virtual clock. ``answers`` says whether the server passes a check now."""

    def __init__(self, answers: Answers, draw: Callable[[], float] = lambda: 0.0, now: float = 0.0) -> None:
        self.now = now
        self.balancer = Balancer(draw)
        self.effects: list[Effect] = []
        self.table: dict[object, ServiceState] = {}
        self._answers = answers
        self._probes: list[tuple[float, int, CheckKey, Check]] = []
        self._order = count()
        self._operations: list[Operation] = []

    def plan(self, configuration: Configuration) -> list[Step]:
        """Return what a reload would do."""
        return rehearse_balancer(self.balancer, configuration, list(self.table.values()), self.now, shared=True)

    def configure(self, configuration: Configuration) -> list[Step]:
        """Start with a configuration, or reload one; return what that did."""
        before, observed = BalancerBefore(self.balancer), list(self.table.values())
        effects = self.balancer.configure(configuration, self.now)
        self._operations.clear()
        self._execute(effects)
        return balancer_steps(before, effects, self._operations, observed, self.balancer)

    def run(self, until: float) -> None:
        """Process every event up to then."""
        while (time := self._next()) <= until:
            self.now = max(self.now, time)
            while self._probes and self._probes[0][0] <= self.now:
                _, _, key, check = heapq.heappop(self._probes)
                result = Result() if self._answers(check) else Result(Failure.REFUSED)
                self._execute(self.balancer.finish_probe(key, result, self.now))
            self._execute(self.balancer.expire(self.now))
        self.now = until

    def _next(self) -> float:
        due = self.balancer.deadline()
        probes = self._probes[0][0] if self._probes else float("inf")
        return min(probes, float("inf") if due is None else due)

    def _execute(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case StartProbe(key=key, check=check):
                    heapq.heappush(self._probes, (self.now + PROBE_S, next(self._order), key, check))
                case AbandonProbe(key=key):
                    self._probes = [each for each in self._probes if each[2] != key]
                    heapq.heapify(self._probes)
                case MatchTable():
                    self._match()
                case _:
                    self.effects.append(effect)

    def _match(self) -> None:
        observed = list(self.table.values())
        operations = self.balancer.operations(observed, shared=True)
        self._operations += operations
        for operation in operations:
            self._apply(operation)
        self.effects += self.balancer.reconciled(list(self.table.values()), operations, [], "")

    def _apply(self, operation: Operation) -> None:
        match operation:
            case AddService(service=service):
                self.table[service.key] = ServiceState(service=service)
            case EditService(service=service):
                self.table[service.key] = ServiceState(service=service, servers=self.table[service.key].servers)
            case DeleteService(key=key):
                del self.table[key]
            case AddServer(key=key, server=server) | EditServer(key=key, server=server):
                self._set(operation.key, server.endpoint, ServerState(server=server))
            case DeleteServer(key=key, endpoint=endpoint):
                self._set(key, endpoint, None)

    def _set(self, key: object, endpoint: object, state: ServerState | None) -> None:
        service = self.table[key]
        others = tuple(each for each in service.servers if each.server.endpoint != endpoint)
        self.table[key] = ServiceState(service=service.service, servers=others if state is None else (*others, state))
