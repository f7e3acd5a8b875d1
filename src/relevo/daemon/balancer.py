"""The balancer worker: checks the real servers, keeps the pools, and makes the data plane hold what they want."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from relevo.daemon.by_hand import ByHand
from relevo.daemon.channel import AsyncChannel, decode_to_worker
from relevo.daemon.messages import (
    BalancerReport,
    CompleteSync,
    Held,
    LogLine,
    Masters,
    PlaneAnswer,
    PlaneCall,
    PlaneRestarted,
    QuorumEvent,
    Ready,
    Reload,
    ServerEvent,
    ShutdownNotice,
    Stop,
    SyncEvent,
    TableCall,
    TableView,
    TakeSnapshot,
    TakeSyncState,
    ToWorker,
)
from relevo.errors import PlaneError
from relevo.host import privileges
from relevo.machines import check as checking
from relevo.machines import pool as pooling
from relevo.machines.check import CheckMachine, Result
from relevo.machines.pool import CheckVerdict, PoolMachine
from relevo.model import Check, Configuration, Endpoint, PlaneTimeouts, RealServer, ServiceKey, Sysctl, TcpCheck, VirtualServer
from relevo.model.table import Desired, ServerState, ServiceState, SyncRole, SyncTask
from relevo.observe.snapshot import BalancerSnapshot, CheckSnapshot, ServerSnapshot, ServiceSnapshot
from relevo.planes.port import Plane
from relevo.planes.reconcile import reconcile
from relevo.probes import run_probe

MAX_PROBES = 512
"""Probes under way at once; further ones wait their turn."""
AUDIT_S = 5.0
"""How often the plane is compared with what is wanted even if nothing happened: its process may have died."""
RETRY_S = 0.2
"""Pause before a plane that did not answer is asked again."""
FIRST_CHECK_S = 1.0
"""The first check comes this long after the start, plus a random part of the warm-up (keepalived's rule)."""
WARNING = 4


@dataclass(slots=True, eq=False)
class Watch:
    """One check of one real server, with its timer."""

    service: str
    server: RealServer
    index: int
    check: Check
    machine: CheckMachine
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None

    @property
    def identity(self) -> tuple[str, Endpoint, int]:
        """What survives a reload when the check itself is unchanged."""
        return (self.service, self.server.endpoint, self.index)

    def cancel(self) -> None:
        """Stop for good."""
        if self.timer is not None:
            self.timer.cancel()
        if self.task is not None:
            self.task.cancel()


class Balancer:
    """All virtual servers of a configuration on one plane."""

    def __init__(self, configuration: Configuration, channel: AsyncChannel[ToWorker], plane: Plane, plane_reason: str) -> None:
        self.channel = channel
        self.plane = plane
        self.plane_reason = plane_reason
        self.plane_error = ""
        self.configuration = configuration
        self.pools: dict[str, PoolMachine] = {}
        self.watches: dict[tuple[str, Endpoint, int], Watch] = {}
        self.held: frozenset[str] | None = None
        self.masters: frozenset[str] = frozenset()
        self._random = random.Random()  # noqa: S311 - spreads checks in time, protects nothing
        self._offset = time.time() - time.monotonic()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_PROBES)
        self._stopping = asyncio.Event()
        self._refused: set[str] = set()
        self._mine: set[ServiceKey] | None = None
        self._by_hand = ByHand()
        self._timeouts = configuration.global_defs.lvs_timeouts
        self._sysctls: tuple[Sysctl, ...] = ()
        self._polite = False
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until told to stop, or until the supervisor is gone."""
        await self.channel.open()
        self._configure(self.configuration)
        keeper = asyncio.create_task(self._keep_plane(), name="reconcile")
        listener = asyncio.create_task(self._listen(), name="supervisor")
        await self._stopping.wait()
        for task in (keeper, listener):
            task.cancel()
        for watch in self.watches.values():
            watch.cancel()
        self._say_farewell()
        await self.channel.drain()
        await self._leave_plane()

    async def _leave_plane(self) -> None:
        """Let go of the plane; leaving for good, take out what is ours, or with ``lvs_flush_on_stop`` everything."""
        if not self._polite:
            await self.plane.close()
            return
        try:
            if self.plane.capabilities().shared:
                observed = await self.plane.observe()
                everything = self.configuration.global_defs.lvs_flush_on_stop
                await self.plane.apply(reconcile([], observed if everything else self._ours(observed, ())))
            await self.plane.synchronise(None, self._in_sync)
            await self.plane.remove()
        except PlaneError as error:
            self._log(f"the data plane was not cleared: {error}", WARNING)
            await self.channel.drain()

    def _say_farewell(self) -> None:
        omega = tuple(
            (service.name, server.endpoint.spelled(service.protocol))
            for service in self.configuration.virtual_servers
            if service.omega
            for server in service.real_servers
            if self.pools[service.name].servers[server.endpoint].up
        )
        self.channel.send(ShutdownNotice(omega))

    async def _listen(self) -> None:
        async for message in self.channel.messages():
            match message:
                case TakeSnapshot():
                    self.channel.send(BalancerReport(await self.snapshot()))
                case PlaneCall() | TableCall() | CompleteSync() | TakeSyncState():
                    self._task(self._serve(message))
                case Reload(configuration=configuration):
                    self._configure(configuration)
                case Held(addresses=addresses):
                    self.held = addresses
                    self._wake.set()
                case Masters(instances=instances):
                    self.masters = instances
                    self._wake.set()
                case PlaneRestarted():
                    self._wake.set()
                case Stop(keep_plane=keep):
                    self._polite = not keep
                    break
        self._stopping.set()

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, call: PlaneCall | TableCall | CompleteSync | TakeSyncState) -> None:
        """Do what the supervisor, or somebody at its control socket, asks of the plane."""
        try:
            answer = await self._answer(call)
        except (PlaneError, ValueError, OSError) as error:
            answer = PlaneAnswer(call.number, error=str(error))
        self.channel.send(answer)

    async def _answer(self, call: PlaneCall | TableCall | CompleteSync | TakeSyncState) -> PlaneAnswer:
        match call:
            case PlaneCall(ends=True):
                return PlaneAnswer(call.number, await self.plane.end(call.meant))
            case PlaneCall():
                fits = call.meant.test()
                found = [connection for connection in await self.plane.connections() if fits(connection)]
                return PlaneAnswer(call.number, len(found), found[: call.limit or None])
            case TableCall():
                return await self._change_table(call)
            case CompleteSync():
                return PlaneAnswer(call.number, await self.plane.complete_sync())
            case TakeSyncState():
                return PlaneAnswer(call.number, sync=await self.plane.sync_state(counted=True))

    async def _change_table(self, call: TableCall) -> PlaneAnswer:
        """Change the table as somebody asks who does not write it into the file, and show it."""
        refused = {each.operation: each.reason for each in await self.plane.apply(call.operations)}
        reasons = [refused.get(operation, "") for operation in call.operations]
        for operation, reason in zip(call.operations, reasons, strict=True):
            self._by_hand.note(operation, reason)
        problem = await self.plane.set_timeouts(call.timeouts) if call.timeouts != PlaneTimeouts() else ""
        zeroes = call.zero is not None or call.zero_all
        view = None
        if call.show or zeroes:
            observed = await self.plane.observe()
            if zeroes:
                self._by_hand.zero(observed, call.zero)
            view = TableView(self._by_hand.shown(observed), await self.plane.settings())
        return PlaneAnswer(call.number, table=view, refused=reasons, error=problem)

    # -- configuration -----------------------------------------------------------------------------------------

    def _configure(self, configuration: Configuration) -> None:
        """Take a configuration over. A check that did not change keeps its state, its verdict and its timer."""
        now = time.monotonic()
        self.configuration = configuration
        former, self.watches = self.watches, {}
        pools: dict[str, PoolMachine] = {}
        for service in configuration.virtual_servers:
            watches = [
                self._watch(former, service, server, index, check, now)
                for server in service.real_servers
                for index, check in enumerate(server.checks)
            ]
            down = [(w.server.endpoint, w.index, _why_down(w.machine)) for w in watches if not w.machine.up]
            pools[service.name] = self._pool(service, down, now)
            self.watches.update({watch.identity: watch for watch in watches})
        for identity, watch in former.items():
            if self.watches.get(identity) is not watch:
                watch.cancel()
        self.pools = pools
        for watch in self.watches.values():
            if watch.timer is None and watch.task is None:
                self._arm(watch)
        self._wake.set()

    def _watch(
        self,
        former: dict[tuple[str, Endpoint, int], Watch],
        service: VirtualServer,
        server: RealServer,
        index: int,
        check: Check,
        now: float,
    ) -> Watch:
        present = former.get((service.name, server.endpoint, index))
        if present is not None and present.check == check:
            present.server = server
            return present
        first = now + min(FIRST_CHECK_S, check.timing.delay_loop_s) + self._random.random() * check.timing.warmup_s
        return Watch(service.name, server, index, check, CheckMachine(check.timing, first))

    def _pool(self, service: VirtualServer, down: list[tuple[Endpoint, int, str]], now: float) -> PoolMachine:
        present = self.pools.get(service.name)
        if present is not None and present.service == service:
            return present
        machine = PoolMachine(service, now, down)
        if present is not None:
            for endpoint, health in machine.servers.items():
                if endpoint in present.servers and present.servers[endpoint].up is health.up:
                    health.since = present.servers[endpoint].since
        return machine

    # -- checks ------------------------------------------------------------------------------------------------

    def _arm(self, watch: Watch) -> None:
        due = watch.machine.deadline()
        if due is not None:
            watch.timer = asyncio.get_running_loop().call_at(due, self._due, watch)

    def _due(self, watch: Watch) -> None:
        watch.timer = None
        for _ in watch.machine.expire(time.monotonic()):
            watch.task = asyncio.create_task(self._probe(watch), name=f"check {watch.server.endpoint}")
        if watch.task is None:
            self._arm(watch)

    async def _probe(self, watch: Watch) -> None:
        async with self._slots:
            try:
                result = await run_probe(watch.check)
            except Exception as error:  # a checker that breaks is a failed check, not the end of checking
                result = Result(checking.Failure.LOCAL, f"{type(error).__name__}: {error}")
        watch.task = None
        for effect in watch.machine.receive(result, time.monotonic()):
            match effect:
                case checking.Verdict(up=up, reason=reason):
                    self._log_verdict(watch, up, reason)
                    self._verdict(watch, up, reason)
                case checking.FailureNoted(number=number, reason=reason):
                    self._log_failure(watch, number, reason)
        self._arm(watch)

    def _spelled(self, watch: Watch) -> str:
        return watch.server.endpoint.spelled(self.pools[watch.service].service.protocol)

    def _log_verdict(self, watch: Watch, up: bool, reason: str) -> None:
        server = self._spelled(watch)
        what = "TCP connection" if isinstance(watch.check, TcpCheck) else watch.check.name
        if up:
            self._log(f"{what} to {server} success.")
            return
        self._log(f"{what} to {server} failed ({reason}).", WARNING)
        if watch.machine.timing.retry:
            tries = f"{watch.machine.timing.retry} {'retry' if watch.machine.timing.retry == 1 else 'retries'}"
            self._log(f"Check on service {server} for VS {watch.service} failed after {tries}.", WARNING)

    def _log_failure(self, watch: Watch, number: int, reason: str) -> None:
        if watch.machine.up and number == 1:
            self._log(f"{watch.check.name} on service {self._spelled(watch)} failed ({reason}): trying again.")

    def _verdict(self, watch: Watch, up: bool, reason: str) -> None:
        pool = self.pools.get(watch.service)
        if pool is None or watch.server.endpoint not in pool.servers:
            return
        for effect in pool.receive(CheckVerdict(watch.server.endpoint, watch.index, up, reason), time.monotonic()):
            self._execute(pool, watch, effect)
        self._wake.set()

    def _execute(self, pool: PoolMachine, watch: Watch, effect: pooling.Effect) -> None:
        name, service = pool.service.name, pool.service
        match effect:
            case pooling.ServerChanged() | pooling.CheckChanged():
                moved = isinstance(effect, pooling.ServerChanged)
                if moved:
                    change, word = ("Adding", "to") if effect.up else ("Removing", "from")
                    self._log(f"{change} service {self._spelled(watch)} {word} VS {name}")
                event = ServerEvent(name, self._spelled(watch), effect.up, moved, watch.check.name, effect.reason)
                self.channel.send(event)
            case pooling.QuorumChanged(up=up, weight=weight):
                quorum, hysteresis = service.quorum, service.hysteresis
                if up:
                    self._log(f"Gained quorum {quorum}+{hysteresis}={quorum + hysteresis} <= {weight} for VS {name}")
                else:
                    self._log(f"Lost quorum {quorum}-{hysteresis}={quorum - hysteresis} > {weight} for VS {name}", WARNING)
                self.channel.send(QuorumEvent(name, up, weight))
            case pooling.SorryChanged(endpoint=endpoint, used=used):
                spelled = endpoint.spelled(service.protocol)
                self._log(f"{'Adding' if used else 'Removing'} sorry server {spelled} {'to' if used else 'from'} VS {name}")

    # -- the plane ---------------------------------------------------------------------------------------------

    async def _keep_plane(self) -> None:
        """Reconcile whenever something changed, and every so often. The supervisor hears of the first time."""
        told = False
        while True:
            self._wake.clear()
            try:
                await self._reconcile()
                pause = AUDIT_S
            except Exception as error:  # a fault of ours is no reason to leave the table alone from now on
                text = str(error) if isinstance(error, PlaneError | OSError) else f"{type(error).__name__}: {error}"
                if text != self.plane_error:
                    self._log(text, WARNING)
                self.plane_error = text
                pause = RETRY_S
            if not told:
                self.channel.send(Ready())
                told = True
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _reconcile(self) -> None:
        if self.held is not None:
            await self.plane.hold(self.held, self._moved())
        await self._match_settings()
        problem = await self.plane.synchronise(self._sync_task(), self._in_sync)
        observed = await self.plane.observe()
        desired = [item for pool in self.pools.values() for item in pool.desired()]
        operations = reconcile(desired, self._ours(observed, desired))
        refused = []
        if operations:
            refused = await self.plane.apply(operations)
            for operation in operations:
                self._by_hand.forget(operation)
            observed = await self.plane.observe()
        for notice in self.plane.notices():
            self._log(notice.text, WARNING if notice.grave else 6)
        if self.plane_error:
            self._log("the data plane answers again")
            self.plane_error = ""
        complaints = {f"connection synchronisation: {problem}"} if problem else set()
        complaints |= {f"data plane refused {type(r.operation).__name__}: {r.reason}" for r in refused}
        complaints |= {state.listening for state in observed if state.listening.startswith("cannot")}
        for complaint in sorted(complaints - self._refused):
            self._log(complaint, WARNING)
        self._refused = complaints

    async def _match_settings(self) -> None:
        """Let the plane have what a reload changed; what it was made with it has."""
        wanted = self.configuration.global_defs
        if wanted.lvs_timeouts != self._timeouts:
            former, self._timeouts = self._timeouts, wanted.lvs_timeouts
            problem = await self.plane.set_timeouts(wanted.lvs_timeouts.in_place_of(former))
            if problem:
                self._log(f"lvs_timeouts: {problem}", WARNING)
        if wanted.lvs_sysctls != self._sysctls:
            self._sysctls = wanted.lvs_sysctls
            for reason in await self.plane.set_sysctls(wanted.lvs_sysctls):
                self._log(f"lvs_sysctls: {reason}", WARNING)

    def _ours(self, observed: list[ServiceState], desired: Sequence[Desired]) -> list[ServiceState]:
        """Return, of the services of a table that others use too, those that are or were wanted here.

        With ``lvs_flush`` the first look takes all of them for ours, as keepalived clears the table at its start.
        """
        if not self.plane.capabilities().shared:
            wanted = {item.service.key for item in desired}
            return [s for s in observed if s.service.key in wanted or s.service.key not in self._by_hand.services]
        if self._mine is None:
            flush = self.configuration.global_defs.lvs_flush
            self._mine = {state.service.key for state in observed} if flush else set()
        self._mine.update(item.service.key for item in desired)
        return [state for state in observed if state.service.key in self._mine]

    def _sync_task(self) -> SyncTask | None:
        """Send where the instance is master, listen where it is not; without an instance do both."""
        wanted = self.configuration.global_defs.lvs_sync_daemon
        if wanted is None:
            return None
        routers = {i.name: i.virtual_router_id for i in self.configuration.vrrp_instances}
        roles = frozenset(SyncRole)
        if wanted.instance:
            roles = frozenset((SyncRole.MASTER if wanted.instance in self.masters else SyncRole.BACKUP,))
        ports = {sysctl.name: sysctl.values[0] for sysctl in self.configuration.global_defs.lvs_sysctls}.get("sync_ports", 1)
        return SyncTask(
            ports=ports,
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

    def _in_sync(self, in_sync: bool) -> None:
        what = "every connection of the master is here" if in_sync else "connections of the master may be missing here"
        self._log(f"connection synchronisation: {what}")
        self.channel.send(SyncEvent(in_sync))

    def _moved(self) -> frozenset[str]:
        """Addresses that VRRP moves between nodes."""
        instances = self.configuration.vrrp_instances
        return frozenset(a.address for i in instances for a in (*i.addresses, *i.excluded_addresses))

    # -- reports -----------------------------------------------------------------------------------------------

    def _log(self, text: str, level: int = 6) -> None:
        self.channel.send(LogLine(text, level))

    async def snapshot(self) -> BalancerSnapshot:
        """Return what this worker and the plane know."""
        try:
            observed = {state.service.key: state for state in await self.plane.observe()}
            sync = await self.plane.sync_state(counted=False)
        except PlaneError as error:
            observed, sync, self.plane_error = {}, None, str(error)
        return BalancerSnapshot(
            plane=self.plane.capabilities().name,
            plane_reason=self.plane_reason,
            plane_error=self.plane_error,
            plane_notes=self.plane.notes(),
            packets=self.plane.packets(),
            sync=sync,
            services=tuple(
                self._service_snapshot(pool, key, observed.get(key)) for pool in self.pools.values() for key in pool.service.keys
            ),
        )

    def _service_snapshot(self, pool: PoolMachine, key: ServiceKey, state: ServiceState | None) -> ServiceSnapshot:
        service = pool.service
        held = {s.server.endpoint: s for s in state.servers} if state else {}
        port = key.endpoint.port
        servers = [
            self._server_snapshot(
                service, health.server, health.up, health.since, held.get(Endpoint(at.address, at.port or port))
            )
            for at, health in pool.servers.items()
        ]
        sorry = service.sorry_server
        if sorry is not None and (sorry := Endpoint(sorry.address, sorry.port or port)) in held:
            stand_in = RealServer(endpoint=sorry, forwarding=service.forwarding)
            servers.append(self._server_snapshot(service, stand_in, True, pool.since, held[sorry], sorry=True))
        return ServiceSnapshot(
            protocol=key.protocol.value,
            address=key.endpoint.address,
            port=port,
            mark=key.mark,
            group=service.group,
            scheduler=service.scheduler,
            scheduler_flags=service.scheduler_flags,
            one_packet=service.one_packet,
            persistence_timeout_s=service.persistence_timeout_s,
            persistence_granularity=service.persistence_granularity,
            up=pool.state is pooling.State.UP,
            since_at=pool.since + self._offset,
            quorum=service.quorum,
            live_weight=pool.live_weight(),
            uses_sorry_server=pool.uses_sorry,
            listening=state.listening if state else "",
            refused=state.refused if state else {},
            connections=state.traffic.connections if state else 0,
            servers=tuple(servers),
        )

    def _server_snapshot(
        self, service: VirtualServer, server: RealServer, up: bool, since: float, held: ServerState | None, *, sorry: bool = False
    ) -> ServerSnapshot:  # fmt: skip
        watches = [self.watches.get((service.name, server.endpoint, i)) for i in range(len(server.checks))]
        return ServerSnapshot(
            address=server.endpoint.address,
            port=held.server.endpoint.port if held else server.endpoint.port,
            up=up,
            in_plane=held is not None,
            weight=held.server.weight if held else 0,
            declared_weight=server.weight,
            forwarding=server.forwarding.value,
            active=held.active if held else 0,
            inactive=held.inactive if held else 0,
            persistent=held.persistent if held else 0,
            connections=held.traffic.connections if held else 0,
            bytes_in=held.traffic.bytes_in if held else 0,
            bytes_out=held.traffic.bytes_out if held else 0,
            since_at=since + self._offset,
            sorry=sorry,
            checks=tuple(self._check_snapshot(watch) for watch in watches if watch is not None),
        )

    def _check_snapshot(self, watch: Watch) -> CheckSnapshot:
        machine = watch.machine
        last = machine.last
        return CheckSnapshot(
            kind=watch.check.name,
            target=str(watch.check.connect),
            up=machine.up,
            state=machine.state.value,
            failures=machine.failures,
            last_result="" if last is None else (last.reason or last.detail or "ok"),
            last_at=None if machine.last_at is None else machine.last_at + self._offset,
        )


def _why_down(machine: CheckMachine) -> str:
    return machine.last.reason if machine.last and machine.last.reason else "not checked yet"


def serve(
    configuration: Configuration,
    sock: socket.socket,
    plane: Plane,
    plane_reason: str,
    held: frozenset[str] | None,
    masters: frozenset[str],
) -> None:
    """Be the balancer worker. ``held`` are the virtual addresses here now, ``None`` where VRRP moves none; ``masters`` the
    instances that are master.
    """
    privileges.confine(privileges.BALANCERS[plane.capabilities().name])
    gc.collect()
    gc.freeze()
    channel: AsyncChannel[ToWorker] = AsyncChannel(sock, decode_to_worker)

    async def work() -> None:
        balancer = Balancer(configuration, channel, plane, plane_reason)
        balancer.held, balancer.masters = held, masters
        await balancer.run()

    asyncio.run(work())
