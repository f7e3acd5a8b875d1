"""The pool of one virtual server: which servers are up, whether there is a quorum, and the desired entries of the plane.

The pool is up when the live weight reaches quorum + hysteresis, and down when it falls below quorum - hysteresis or to 0.
Without a quorum the sorry server replaces all live servers; if there is no sorry server, the remaining servers stay and only
the notifiers run (keepalived.conf(5), and its behaviour).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from relevo.machines.check import Weight
from relevo.machines.machine import Rule, find_rule
from relevo.model import Endpoint, Forwarding, RealServer, ServerMode, ServerOrder, ServiceKey, VirtualServer
from relevo.model.table import Desired, ServerEntry, ServiceEntry


class State(enum.StrEnum):
    """UP: the pool has its quorum."""

    UP = "up"
    DOWN = "down"


class Symbol(enum.StrEnum):
    """The live weight compared with quorum and hysteresis."""

    ENOUGH = "enough"
    BETWEEN = "between"
    TOO_LITTLE = "too_little"


CheckName = tuple[str, int]
"""Name of a check: the keyword of its kind, and its number within that kind."""
BY_ORDER: Final[CheckName] = ("relevo server", 0)
"""Stands for a check where an administrator has decided."""
MAX_WEIGHT: Final = 65_535
"""Greatest weight of a server, in IPVS too."""
NO_WEIGHTS: Final[Mapping[Endpoint, Mapping[CheckName, Weight]]] = {}


@dataclass(frozen=True, slots=True)
class CheckVerdict:
    """Check ``check`` of ``server`` went up or down; ``reason`` says why."""

    server: Endpoint
    check: CheckName
    up: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ServerChanged:
    """A server entered or left service because of ``check``, or of a reload if that is ``None``."""

    server: RealServer
    up: bool
    check: CheckName | None
    reason: str


@dataclass(frozen=True, slots=True)
class CheckChanged:
    """A check changed, but another check keeps the server down."""

    server: RealServer
    up: bool
    check: CheckName
    reason: str


@dataclass(frozen=True, slots=True)
class WeightChanged:
    """The weight of a server in service changed, by a reload or by ``check``."""

    server: RealServer
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class QuorumChanged:
    """The quorum was gained or lost with ``weight`` live."""

    up: bool
    weight: int


@dataclass(frozen=True, slots=True)
class SorryChanged:
    """The sorry server went into or out of service."""

    endpoint: Endpoint
    used: bool


Effect = ServerChanged | CheckChanged | WeightChanged | QuorumChanged | SorryChanged

TRANSITIONS: Final = {
    (State.UP, Symbol.ENOUGH): Rule("_stay", (State.UP,)),
    (State.UP, Symbol.BETWEEN): Rule("_stay", (State.UP,)),
    (State.UP, Symbol.TOO_LITTLE): Rule("_lose", (State.DOWN,)),
    (State.DOWN, Symbol.ENOUGH): Rule("_gain", (State.UP,)),
    (State.DOWN, Symbol.BETWEEN): Rule("_stay", (State.DOWN,)),
    (State.DOWN, Symbol.TOO_LITTLE): Rule("_stay", (State.DOWN,)),
}


@dataclass(frozen=True, slots=True)
class CheckWeight:
    """Check ``check`` of ``server`` says what its weight is, or with ``None`` nothing about that any more."""

    server: Endpoint
    check: CheckName
    weight: Weight | None


@dataclass(slots=True)
class ServerHealth:
    """A server of the pool; ``failing`` are its checks that are down, with reasons, ``weights`` what they make of its weight."""

    server: RealServer
    failing: dict[CheckName, str] = field(default_factory=dict)
    since: float = 0.0
    weights: dict[CheckName, Weight] = field(default_factory=dict)
    order: ServerOrder | None = None
    """What an administrator says."""

    @property
    def passes(self) -> bool:
        """Whether no check fails."""
        return not self.failing

    @property
    def up(self) -> bool:
        """Whether the server is in service."""
        return not self.failing and (self.order is None or self.order.mode is not ServerMode.MAINT)

    @property
    def weight(self) -> int:
        """The weight after what an administrator or the checks make of it: their changes add up (keepalived.conf(5))."""
        if self.order is not None:
            return self.order.weight if self.order.mode is ServerMode.WEIGHT else 0
        declared = self.server.weight
        if not self.weights:
            return declared
        changes = (each.value - declared if each.instead else each.value for each in self.weights.values())
        return min(max(declared + sum(changes), 0), MAX_WEIGHT)


class PoolMachine:
    """The pool of ``service``. ``down`` lists (server, check, reason) of the checks that start down, those with ``alpha``.

    ``weights`` are what checks make of the servers' weights from the start.
    """

    def __init__(
        self,
        service: VirtualServer,
        now: float,
        down: Iterable[tuple[Endpoint, CheckName, str]] = (),
        weights: Mapping[Endpoint, Mapping[CheckName, Weight]] = NO_WEIGHTS,
    ) -> None:
        self.service = service
        self.servers = {
            server.endpoint: ServerHealth(server, since=now, weights=dict(weights.get(server.endpoint, {})))
            for server in service.real_servers
        }
        for endpoint, check, reason in down:
            if endpoint in self.servers:
                self.servers[endpoint].failing[check] = reason
        enough = self.live_weight() >= max(service.quorum, 1)
        self.state = State.UP if enough else State.DOWN
        self.since = now

    # -- interface of every machine ----------------------------------------------------------------------------

    def receive(self, given: CheckVerdict | CheckWeight, now: float) -> list[Effect]:
        """Process the verdict of a check, or what it says of the weight; return the changes in order."""
        return self._take_weight(given, now) if isinstance(given, CheckWeight) else self._take_verdict(given, now)

    def _take_weight(self, given: CheckWeight, now: float) -> list[Effect]:
        health = self.servers[given.server]
        if health.weights.get(given.check) == given.weight:
            return []
        before = health.weight
        if given.weight is None:
            del health.weights[given.check]
        else:
            health.weights[given.check] = given.weight
        if health.weight == before or not health.up:
            return []
        return [WeightChanged(health.server, before, health.weight), *self._weigh(now)]

    def set_order(self, server: Endpoint, order: ServerOrder | None, now: float) -> list[Effect]:
        """Let an administrator say what a server does; ``None`` leaves that to the file and the checks again."""
        health = self.servers[server]
        if health.order == order:
            return []
        was_up, before = health.up, health.weight
        health.order = order
        reason = str(order or ServerMode.READY)
        if health.up is not was_up:
            health.since = now
            return [ServerChanged(health.server, health.up, BY_ORDER, reason), *self._weigh(now)]
        if health.up and health.weight != before:
            return [WeightChanged(health.server, before, health.weight), *self._weigh(now)]
        return []

    def _take_verdict(self, verdict: CheckVerdict, now: float) -> list[Effect]:
        health = self.servers[verdict.server]
        was_up = health.up
        if verdict.up:
            health.failing.pop(verdict.check, None)
        else:
            health.failing[verdict.check] = verdict.reason
        made = ServerChanged if health.up is not was_up else CheckChanged
        effects: list[Effect] = [made(health.server, verdict.up, verdict.check, verdict.reason)]
        if health.up is was_up:
            return effects
        health.since = now
        return [*effects, *self._weigh(now)]

    def reconfigure(
        self,
        service: VirtualServer,
        failing: Mapping[Endpoint, Mapping[CheckName, str]],
        now: float,
        weights: Mapping[Endpoint, Mapping[CheckName, Weight]] = NO_WEIGHTS,
    ) -> list[Effect]:
        """Use a changed declaration, with what checks say; ``failing`` are those that are down. State and hysteresis stay.

        A reload reports the same changes as a check: servers that enter or leave service, weights, quorum, sorry server.
        """
        former, sorry = self.servers, self.service.sorry_server if self.uses_sorry else None
        self.service = service
        self.servers = {}
        effects: list[Effect] = []
        for server in service.real_servers:
            said = dict(weights.get(server.endpoint, {}))
            present = former.get(server.endpoint)
            order = None if present is None else present.order
            health = ServerHealth(server, dict(failing.get(server.endpoint, {})), now, said, order)
            effects += self._compare(former.get(server.endpoint), health)
            self.servers[server.endpoint] = health
        for endpoint, gone in former.items():
            if endpoint not in self.servers and gone.up:
                effects.append(ServerChanged(gone.server, False, None, "removed from the configuration"))
        effects += [each for each in self._weigh(now) if not isinstance(each, SorryChanged)]
        return [*effects, *self._compare_sorry(sorry)]

    @staticmethod
    def _compare(before: ServerHealth | None, health: ServerHealth) -> list[Effect]:
        server = health.server
        if before is None:
            return [ServerChanged(server, True, None, "added to the configuration")] if health.up else []
        if before.up is not health.up:
            reason = "its failed check was removed" if health.up else next(iter(health.failing.values()))
            return [ServerChanged(server, health.up, None, reason)]
        health.since = before.since
        if health.up and before.weight != health.weight:
            return [WeightChanged(server, before.weight, health.weight)]
        return []

    def _compare_sorry(self, former: Endpoint | None) -> list[Effect]:
        """Return how the sorry server in service differs from the ``former`` one."""
        present = self.service.sorry_server if self.uses_sorry else None
        if present == former:
            return []
        changes = ((former, False), (present, True))
        return [SorryChanged(endpoint, used) for endpoint, used in changes if endpoint is not None]

    def deadline(self) -> float | None:
        """Return ``None``: a pool has no timers."""
        return None

    def expire(self, now: float) -> list[Effect]:
        """Return nothing."""
        return []

    # -- decisions ---------------------------------------------------------------------------------------------

    def live_weight(self) -> int:
        """Sum of the weights of the servers that are up."""
        return sum(health.weight for health in self.servers.values() if health.up)

    @property
    def uses_sorry(self) -> bool:
        """Whether the sorry server replaces the pool's servers."""
        return self.state is State.DOWN and self.service.sorry_server is not None

    def desired(self) -> list[Desired]:
        """Return the desired entries of the plane: the service, or one for each member of its group."""
        servers = self._entries()
        return [self._desired(key, servers) for key in self.service.keys]

    def _desired(self, key: ServiceKey, servers: Sequence[ServerEntry]) -> Desired:
        service = self.service
        entry = ServiceEntry(
            key=key,
            scheduler=service.scheduler,
            scheduler_flags=service.scheduler_flags,
            one_packet=service.one_packet,
            refuses_by_reset=service.refuses_by_reset,
            persistence_timeout_s=service.persistence_timeout_s,
            persistence_granularity=_granularity(service, key),
        )
        return Desired(entry, tuple(at_port(server, key) for server in servers))

    def _entries(self) -> list[ServerEntry]:
        service = self.service
        servers = [entry for health in self.servers.values() if (entry := self._entry(health)) is not None]
        if service.sorry_server is not None and (self.uses_sorry or service.sorry_server_inhibit):
            weight, forwarding = 1 if self.uses_sorry else 0, service.sorry_forwarding or service.forwarding
            if self.uses_sorry:
                servers = [entry for entry in servers if entry.endpoint != service.sorry_server]
            if all(entry.endpoint != service.sorry_server for entry in servers):
                stand_in = ServerEntry(
                    endpoint=service.sorry_server,
                    weight=weight,
                    forwarding=forwarding,
                    tunnel=service.tunnel if service.sorry_forwarding is None else service.sorry_tunnel,
                    local_addresses=self._local_addresses(forwarding),
                )
                servers.append(stand_in)
        return servers

    def _entry(self, health: ServerHealth) -> ServerEntry | None:
        server = health.server
        if not health.up and not server.inhibit_on_failure:
            return None
        drains = health.order is not None and health.order.mode is ServerMode.DRAIN
        if self.uses_sorry and health.up and not drains:  # one that drains keeps its connections
            return None
        return ServerEntry(
            endpoint=server.endpoint,
            weight=health.weight if health.up else 0,
            forwarding=server.forwarding,
            tunnel=server.tunnel,
            local_addresses=self._local_addresses(server.forwarding),
            upper_threshold=server.upper_threshold,
            lower_threshold=server.lower_threshold,
            proxy_protocol=server.proxy_protocol,
        )

    def _local_addresses(self, forwarding: Forwarding) -> tuple[str, ...]:
        return self.service.local_addresses if forwarding is Forwarding.FULLNAT else ()

    # -- actions -----------------------------------------------------------------------------------------------

    def _weigh(self, now: float) -> list[Effect]:
        rule = find_rule(TRANSITIONS, self.state, self._symbol(), self.service.name)
        effects: list[Effect] = getattr(self, rule.action)(now)
        assert self.state in rule.targets
        return effects

    def _symbol(self) -> Symbol:
        weight, quorum, hysteresis = self.live_weight(), self.service.quorum, self.service.hysteresis
        if weight >= quorum + hysteresis and weight > 0:
            return Symbol.ENOUGH
        if weight == 0 or weight < quorum - hysteresis:
            return Symbol.TOO_LITTLE
        return Symbol.BETWEEN

    def _stay(self, now: float) -> list[Effect]:
        return []

    def _lose(self, now: float) -> list[Effect]:
        return self._turn(State.DOWN, now)

    def _gain(self, now: float) -> list[Effect]:
        return self._turn(State.UP, now)

    def _turn(self, state: State, now: float) -> list[Effect]:
        self.state, self.since = state, now
        up = state is State.UP
        effects: list[Effect] = [QuorumChanged(up, self.live_weight())]
        if self.service.sorry_server is not None:
            effects.append(SorryChanged(self.service.sorry_server, not up))
        return effects


def _granularity(service: VirtualServer, key: ServiceKey) -> int:
    """Return the prefix length of a client: as declared, or one address for keys of a mixed group's other IP version."""
    if key.is_ipv6 == service.keys[0].is_ipv6:
        return service.persistence_granularity
    return 128 if key.is_ipv6 else 32


def at_port(server: ServerEntry, key: ServiceKey) -> ServerEntry:
    """Return the server with the port of ``key`` if it has none of its own."""
    if server.endpoint.port or not key.endpoint.port:
        return server
    return msgspec.structs.replace(server, endpoint=Endpoint(server.endpoint.address, key.endpoint.port))
