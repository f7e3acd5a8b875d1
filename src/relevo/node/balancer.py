"""The service side of a node: checks, pools, and the desired table of the data plane.

The driver runs probes and calls the plane. This module decides which probe is due, which servers are in service, and which
operations the plane's table needs. A change by a reload gives the same log lines and events as one by a check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

from relevo.machines import check as checking
from relevo.machines import pool as pooling
from relevo.machines.check import Result, Weight
from relevo.machines.pool import BY_ORDER, CheckName, CheckVerdict, CheckWeight, PoolMachine
from relevo.model import Check, Configuration, Endpoint, PlaneTimeouts, ServerOrder, ServiceKey, Sysctl, VirtualServer
from relevo.model.diff import difference
from relevo.model.table import Desired, Operation, ServiceState, SyncRole, SyncTask
from relevo.node.checks import CheckKey, CheckRunner, Checks
from relevo.node.effects import Log
from relevo.node.manual import ManualChanges
from relevo.node.sources import tracked_services
from relevo.node.table import reconcile
from relevo.severity import Severity

# -- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Run ``check``; call ``finish_probe`` with its ``key`` and result."""

    key: CheckKey
    check: Check


@dataclass(frozen=True, slots=True)
class AbandonProbe:
    """Cancel this probe; its result is not needed."""

    key: CheckKey


@dataclass(frozen=True, slots=True)
class MatchTable:
    """The table may differ from the desired one: reconcile it now."""


@dataclass(frozen=True, slots=True)
class ServerChanged:
    """A check of a server changed. With ``transition`` the server entered or left service by it."""

    service: str
    server: str
    up: bool
    transition: bool
    check: str
    reason: str


@dataclass(frozen=True, slots=True)
class ServerFound:
    """A server is in service from the start (keepalived.conf(5), "rs_init_notifies")."""

    service: str
    server: str


@dataclass(frozen=True, slots=True)
class QuorumChanged:
    """A virtual server gained or lost its quorum; ``weight`` is the live weight."""

    service: str
    up: bool
    weight: int


@dataclass(frozen=True, slots=True)
class ServiceFound:
    """A virtual server that a VRRP instance tracks since now, and whether it has its quorum."""

    service: str
    up: bool


@dataclass(frozen=True, slots=True)
class PlaneReady:
    """The plane has the desired table for the first time."""


Effect = Log | StartProbe | AbandonProbe | MatchTable | ServerChanged | ServerFound | QuorumChanged | ServiceFound | PlaneReady


class Balancer:
    """All virtual servers of a configuration. ``draw`` returns a number in [0, 1), for spreading checks in time."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self.configuration = Configuration()
        self.pools: dict[str, PoolMachine] = {}
        self.checks = Checks(draw)
        self.manual = ManualChanges()
        self.masters: frozenset[str] = frozenset()
        self.orders: tuple[ServerOrder, ...] = ()
        self._local: frozenset[str] | None = None
        self._suspends = False  # whether a service has suspended checks, or may have
        self.plane_error = ""
        self.plane_ready = False
        self._mine: set[ServiceKey] | None = None
        self._problems: set[str] = set()
        self._timeouts: PlaneTimeouts | None = None
        self._sysctls: tuple[Sysctl, ...] = ()

    def copy(self) -> Balancer:
        """Return a copy that can be configured without any effect on this one; they share what does not change."""
        twin = copy(self)
        twin.pools = {name: copy(pool) for name, pool in self.pools.items()}  # a pool gets new servers, not changed ones
        twin.checks = self.checks.copy()
        twin._mine = None if self._mine is None else set(self._mine)
        return twin

    # -- inputs ------------------------------------------------------------------------------------------------

    def configure(self, configuration: Configuration, now: float) -> list[Effect]:
        """Use a configuration, at the start or by a reload."""
        starting = self._timeouts is None
        if starting:
            self._timeouts = configuration.global_defs.lvs_timeouts  # the plane was made with these
        former, self.configuration = self.configuration, configuration
        known = {
            (name, endpoint): health.passes for name, pool in self.pools.items() for endpoint, health in pool.servers.items()
        }
        abandoned = self.checks.configure(configuration.virtual_servers, known, now)
        effects: list[Effect] = [AbandonProbe(key) for key in abandoned]
        for gone in difference(former, configuration).services.removed:
            effects += self._remove(self.pools[gone.name])
        suspended = self._suspend(now)
        failing, weights = self._failing(), self._weights()
        pools = {
            service.name: self._pool(service, failing, weights, now, effects, starting)
            for service in configuration.virtual_servers
        }
        present, self.pools = self.pools, pools
        effects += self._follow_orders(now)
        if starting and configuration.global_defs.rs_init_notifies:
            effects += self._starting_servers()
        return [*effects, *suspended, *self._found(former, present), MatchTable()]

    def set_masters(self, instances: frozenset[str]) -> list[Effect]:
        """Set the instances that are master on this node. They decide the roles in connection synchronisation."""
        changed, self.masters = instances != self.masters, instances
        return [MatchTable()] if changed else []

    def set_orders(self, orders: Iterable[ServerOrder], now: float) -> list[Effect]:
        """Let an administrator say what servers do; these are all orders that there are."""
        self.orders = tuple(orders)
        return [*self._follow_orders(now), MatchTable()]

    def _follow_orders(self, now: float) -> list[Effect]:
        orders = {(order.service, order.server): order for order in self.orders}
        effects: list[Effect] = []
        for name, pool in self.pools.items():
            for endpoint, health in pool.servers.items():
                order = orders.get((name, str(endpoint))) if orders else None
                if order != health.order:
                    for effect in pool.set_order(endpoint, order, now):
                        effects += self._report(pool.service, effect)
        return effects

    def set_local(self, addresses: frozenset[str] | None, now: float) -> list[Effect]:
        """Set the virtual addresses that are on this node; ``None`` without VRRP."""
        self._local = addresses
        return self._suspend(now)

    def _suspend(self, now: float) -> list[Effect]:
        """Suspend the checks of services with ``ha_suspend`` whose addresses are on another node (keepalived.conf(5))."""
        waiting = [s for s in self.configuration.virtual_servers if s.ha_suspend]
        if not waiting and not self._suspends:
            return []
        self._suspends = bool(waiting)
        elsewhere = self.floating() - self._local if self._local is not None else frozenset()
        names = {s.name for s in waiting if all(key.endpoint.address in elsewhere for key in s.keys)}
        began, ended = self.checks.suspend(names, now)
        return [
            *(Log(f"Suspending healthcheckers for VS {name}: its address is on another node") for name in began),
            *(Log(f"Activating healthcheckers for VS {name}") for name in ended),
        ]

    def finish_probe(self, key: CheckKey, result: Result, now: float) -> list[Effect]:
        """Process the result of a probe."""
        effects: list[Effect] = []
        for runner, verdicts in self.checks.finish(key, result, now):
            effects += self._take_verdicts(runner, result, verdicts, now)
        return effects

    def file_read(self, name: str, number: int | None, now: float) -> list[Effect]:
        """Take the number in a ``track_file``, ``None`` if it cannot be read."""
        effects: list[Effect] = []
        for runner, result in self.checks.file_read(name, number):
            effects += self._take_verdicts(runner, result, runner.machine.receive(result, now), now)
        return effects

    def _take_verdicts(self, runner: CheckRunner, result: Result, verdicts: list[checking.Effect], now: float) -> list[Effect]:
        """Act on a result: a server comes with its new weight, and leaves with the old one."""
        effects: list[Effect] = []
        if result.passed:
            effects += self._weigh(runner, result.weight, now)
        for verdict in verdicts:
            match verdict:
                case checking.Verdict(up=up, reason=reason):
                    effects += self._log_verdict(runner, up, reason)
                    effects += self._judge(runner, up, reason, now)
                case checking.FailureNoted(number=number, reason=reason):
                    effects += self._log_failure(runner, number, reason)
        if not runner.machine.up:
            effects += self._weigh(runner, None, now)
        return effects

    def deadline(self) -> float | None:
        """Return when ``expire`` must be called next."""
        return self.checks.deadline()

    def expire(self, now: float) -> list[Effect]:
        """Start the probes that are due."""
        return [StartProbe(runner.key, runner.check) for runner in self.checks.due(now)]

    # -- pools -------------------------------------------------------------------------------------------------

    def _failing(self) -> dict[str, dict[Endpoint, dict[CheckName, str]]]:
        """Return the checks that are down, with their reasons, by service and server."""
        failing: dict[str, dict[Endpoint, dict[CheckName, str]]] = {}
        for (service, endpoint, name), runner in self.checks.runners.items():
            if not runner.machine.up:
                failing.setdefault(service, {}).setdefault(endpoint, {})[name] = runner.why_down
        return failing

    def _weights(self) -> dict[str, dict[Endpoint, dict[CheckName, Weight]]]:
        """Return what checks make of weights, by service and server."""
        weights: dict[str, dict[Endpoint, dict[CheckName, Weight]]] = {}
        for (service, endpoint, name), runner in self.checks.runners.items():
            if runner.weight is not None:
                weights.setdefault(service, {}).setdefault(endpoint, {})[name] = runner.weight
        return weights

    def _pool(
        self,
        service: VirtualServer,
        failing: dict[str, dict[Endpoint, dict[CheckName, str]]],
        weights: dict[str, dict[Endpoint, dict[CheckName, Weight]]],
        now: float,
        effects: list[Effect],
        starting: bool,
    ) -> PoolMachine:
        present = self.pools.get(service.name)
        down, said = failing.get(service.name, {}), weights.get(service.name, {})
        if present is not None:
            if present.service != service:
                for effect in present.reconfigure(service, down, now, said):
                    effects += self._report(service, effect)
            return present
        if not starting:
            effects.append(Log(f"Adding VS {service.name} by a reload"))
        return PoolMachine(service, now, [(at, name, why) for at, names in down.items() for name, why in names.items()], said)

    def _found(self, former: Configuration, present: Mapping[str, PoolMachine]) -> list[Effect]:
        """Return the states of the services that VRRP instances track since now."""
        known = tracked_services(former)
        names = [name for name in sorted(tracked_services(self.configuration)) if name in self.pools]
        new = (name for name in names if name not in known or self.pools[name] is not present.get(name))
        return [ServiceFound(name, self.pools[name].state is pooling.State.UP) for name in new]

    def _starting_servers(self) -> list[Effect]:
        return [
            ServerFound(pool.service.name, endpoint.formatted(pool.service.protocol))
            for pool in self.pools.values()
            for endpoint, health in pool.servers.items()
            if health.up
        ]

    def _remove(self, pool: PoolMachine) -> list[Effect]:
        service = pool.service
        effects: list[Effect] = [Log(f"Removing VS {service.name} by a reload")]
        if pool.state is pooling.State.UP:
            effects.append(QuorumChanged(service.name, False, 0))
        if service.omega:
            formatted = [at.formatted(service.protocol) for at, health in pool.servers.items() if health.up]
            reason = "its virtual server was removed"
            effects += [ServerChanged(service.name, server, False, True, "reload", reason) for server in formatted]
        return effects

    def _judge(self, runner: CheckRunner, up: bool, reason: str, now: float) -> list[Effect]:
        service, endpoint, name = runner.key
        pool = self.pools[service]
        effects: list[Effect] = []
        for effect in pool.receive(CheckVerdict(endpoint, name, up, reason), now):
            effects += self._report(pool.service, effect)
        return [*effects, MatchTable()]

    def _weigh(self, runner: CheckRunner, weight: Weight | None, now: float) -> list[Effect]:
        """Take what a check makes of the weight of its server."""
        if weight == runner.weight:
            return []
        runner.weight = weight
        service, endpoint, name = runner.key
        pool = self.pools[service]
        effects: list[Effect] = []
        for effect in pool.receive(CheckWeight(endpoint, name, weight), now):
            effects += self._report(pool.service, effect)
        return [*effects, MatchTable()]

    def shutdown_notice(self) -> tuple[tuple[str, str], ...]:
        """Return (service, server) of the live servers of ``omega`` services, for their down-notifiers at a stop."""
        return tuple(
            (pool.service.name, endpoint.formatted(pool.service.protocol))
            for pool in self.pools.values()
            if pool.service.omega
            for endpoint, health in pool.servers.items()
            if health.up
        )

    # -- log lines and events -------------------------------------------------------------------------------------------------

    def _report(self, service: VirtualServer, effect: pooling.Effect) -> list[Effect]:
        """Return the log lines of a change, in keepalived's words, and its event."""
        name = service.name
        match effect:
            case pooling.ServerChanged(server=server, up=up, check=check, reason=reason):
                formatted = server.endpoint.formatted(service.protocol)
                change, word = ("Adding", "to") if up else ("Removing", "from")
                because = "" if check is not None and check != BY_ORDER else f" ({reason})"
                line = Log(f"{change} service {formatted} {word} VS {name}{because}")
                return [line, ServerChanged(name, formatted, up, True, check[0] if check is not None else "reload", reason)]
            case pooling.CheckChanged(server=server, up=up, check=check, reason=reason):
                return [ServerChanged(name, server.endpoint.formatted(service.protocol), up, False, check[0], reason)]
            case pooling.WeightChanged(server=server, before=before, after=after):
                formatted = server.endpoint.formatted(service.protocol)
                return [Log(f"Changing weight from {before} to {after} for active service {formatted} of VS {name}")]
            case pooling.QuorumChanged(up=up, weight=weight):
                return [self._quorum_line(service, up, weight), QuorumChanged(name, up, weight)]
            case pooling.SorryChanged(endpoint=endpoint, used=used):
                formatted = endpoint.formatted(service.protocol)
                change, word = ("Adding", "to") if used else ("Removing", "from")
                return [Log(f"{change} sorry server {formatted} {word} VS {name}")]

    @staticmethod
    def _quorum_line(service: VirtualServer, up: bool, weight: int) -> Log:
        quorum, hysteresis = service.quorum, service.hysteresis
        if up:
            return Log(f"Gained quorum {quorum}+{hysteresis}={quorum + hysteresis} <= {weight} for VS {service.name}")
        text = f"Lost quorum {quorum}-{hysteresis}={quorum - hysteresis} > {weight} for VS {service.name}"
        return Log(text, Severity.WARNING)

    def _formatted(self, runner: CheckRunner) -> str:
        return runner.server.endpoint.formatted(self.pools[runner.key[0]].service.protocol)

    def _log_verdict(self, runner: CheckRunner, up: bool, reason: str) -> list[Effect]:
        server, service = self._formatted(runner), runner.key[0]
        what = runner.check.attempt
        if up:
            return [Log(f"{what} to {server} success.")]
        lines: list[Effect] = [Log(f"{what} to {server} failed ({reason}).", Severity.WARNING)]
        retry = runner.machine.timing.retry
        if retry:
            tries = f"{retry} {'retry' if retry == 1 else 'retries'}"
            lines.append(Log(f"Check on service {server} for VS {service} failed after {tries}.", Severity.WARNING))
        return lines

    def _log_failure(self, runner: CheckRunner, number: int, reason: str) -> list[Effect]:
        if runner.check.timing.log_all_failures:
            return [Log(f"{runner.check.name} on service {self._formatted(runner)} failed ({reason}), {number} in a row.")]
        if not runner.machine.up or number != 1:
            return []
        return [Log(f"{runner.check.name} on service {self._formatted(runner)} failed ({reason}): trying again.")]

    # -- the plane ---------------------------------------------------------------------------------------------

    def desired(self) -> list[Desired]:
        """Return the desired table of the plane."""
        return [item for pool in self.pools.values() for item in pool.desired()]

    def operations(self, observed: Sequence[ServiceState], *, shared: bool) -> list[Operation]:
        """Return the operations from the observed to the desired table; other programs' services in a ``shared`` table stay."""
        desired = self.desired()
        return reconcile(desired, self.ours(observed, desired, shared=shared))

    def ours(self, observed: Iterable[ServiceState], desired: Sequence[Desired], *, shared: bool) -> list[ServiceState]:
        """Return the observed services that the present or a former configuration declares.

        With ``lvs_flush`` the first call returns all services, because keepalived clears the table at its start.
        """
        wanted = {item.service.key for item in desired}
        if not shared:
            return [s for s in observed if s.service.key in wanted or s.service.key not in self.manual.services]
        observed = list(observed)
        if self._mine is None:
            self._mine = {state.service.key for state in observed} if self.configuration.global_defs.lvs_flush else set()
        self._mine |= wanted
        return [state for state in observed if state.service.key in self._mine]

    def removals(self, observed: Sequence[ServiceState], *, shared: bool) -> list[Operation]:
        """Return the operations that remove our services at a stop, or all services with ``lvs_flush_on_stop``."""
        everything = self.configuration.global_defs.lvs_flush_on_stop
        return reconcile([], observed if everything else self.ours(observed, (), shared=shared))

    def reconciled(
        self,
        observed: Iterable[ServiceState],
        operations: Sequence[Operation],
        refused: Iterable[tuple[Operation, str]],
        problem: str,
    ) -> list[Effect]:
        """Record a reconciliation; ``problem`` is the reason why synchronisation does not work. A problem is logged once."""
        for operation in operations:
            self.manual.forget(operation)
        effects: list[Effect] = []
        if self.plane_error:
            effects.append(Log("the data plane answers again"))
            self.plane_error = ""
        problems = {f"connection synchronisation: {problem}"} if problem else set()
        problems |= {f"data plane refused {type(operation).__name__}: {reason}" for operation, reason in refused}
        problems |= {state.listening for state in observed if state.listening.startswith("cannot")}
        effects += [Log(each, Severity.WARNING) for each in sorted(problems - self._problems)]
        self._problems = problems
        if not self.plane_ready:
            self.plane_ready = True
            effects.append(PlaneReady())
        return effects

    def plane_failed(self, reason: str) -> list[Effect]:
        """Record that the plane does not answer."""
        new, self.plane_error = reason != self.plane_error, reason
        return [Log(reason, Severity.WARNING)] if new else []

    def wanted_timeouts(self) -> PlaneTimeouts | None:
        """Return the time-outs to set, ``None`` if nothing changed since the last call or the plane's creation."""
        wanted, former = self.configuration.global_defs.lvs_timeouts, self._timeouts
        if former is None or wanted == former:
            return None
        self._timeouts = wanted
        return wanted.in_place_of(former)

    def wanted_sysctls(self) -> tuple[Sysctl, ...] | None:
        """Return the settings of IPVS, ``None`` if nothing changed since the last call."""
        wanted = self.configuration.global_defs.lvs_sysctls
        if wanted == self._sysctls:
            return None
        self._sysctls = wanted
        return wanted

    def floating(self) -> frozenset[str]:
        """Return the virtual addresses of all VRRP instances."""
        instances = self.configuration.vrrp_instances
        return frozenset(a.address for i in instances for a in (*i.addresses, *i.excluded_addresses))

    def sync_task(self) -> SyncTask | None:
        """Return the roles and settings of synchronisation: master where the instance is master, else backup.

        Without an instance the node has both roles.
        """
        wanted = self.configuration.global_defs.lvs_sync_daemon
        if wanted is None:
            return None
        routers = {i.name: i.virtual_router_id for i in self.configuration.vrrp_instances}
        roles = frozenset(SyncRole)
        if wanted.instance:
            roles = frozenset((SyncRole.MASTER if wanted.instance in self.masters else SyncRole.BACKUP,))
        settings = {sysctl.name: sysctl.values[0] for sysctl in self.configuration.global_defs.lvs_sysctls}
        return SyncTask(
            ports=settings.get("sync_ports", 1),
            roles=roles,
            interface=wanted.interface,
            sync_id=routers.get(wanted.instance, 0) if wanted.sync_id is None else wanted.sync_id,
            max_length=wanted.max_length,
            group=wanted.group,
            port=wanted.port,
            ttl=wanted.ttl,
            peers=wanted.peers,
            key_file=wanted.key_file,
        )
