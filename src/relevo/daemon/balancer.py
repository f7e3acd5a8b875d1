"""The balancer worker: the driver of ``relevo.node.balancer``, with probes, the data plane and a clock."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import socket
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from relevo.api.schema import ConnectionList, Connections, Sync, Table, TableAnswer, TableView
from relevo.daemon import confinement, messages
from relevo.daemon.channel import AsyncChannel, decode_to_worker
from relevo.daemon.messages import (
    BalancerReport,
    CompleteSync,
    LocalAddresses,
    LogLine,
    Masters,
    Observed,
    Orders,
    PlaneAnswer,
    PlaneCall,
    PlaneRestarted,
    QuorumEvent,
    Ready,
    Rehearse,
    Reload,
    ScriptEnded,
    ServerEvent,
    ServiceFound,
    ShutdownNotice,
    StepsTaken,
    Stop,
    SyncEvent,
    TakeSnapshot,
    ToWorker,
)
from relevo.daemon.script_checks import ScriptChecks
from relevo.errors import PlaneError
from relevo.host import privileges
from relevo.host.keys import keys_in, use_keys
from relevo.machines.check import Result
from relevo.model import Configuration, PlaneTimeouts, ServerOrder, TrackerKind
from relevo.model.checks import MiscCheck, NetworkCheck
from relevo.model.process import PlaneAtStop
from relevo.node import balancer as node
from relevo.node.balancer import Balancer
from relevo.node.checks import CheckKey
from relevo.node.effects import Log
from relevo.node.plan import BalancerBefore, balancer_steps, rehearse_balancer
from relevo.observe.balancer import ServiceView
from relevo.observe.snapshot import BalancerSnapshot
from relevo.planes import catalogue
from relevo.planes.port import Plane
from relevo.probes import Engine
from relevo.severity import Severity

AUDIT_S: Final = 5.0
"""Seconds between reconciliations without any event: the plane's process may have died."""
RETRY_S: Final = 0.2
"""Seconds before a plane that did not answer is retried."""


@dataclass(frozen=True, slots=True)
class PendingReload:
    """A reload whose operations on the table are not done yet."""

    number: int
    before: BalancerBefore
    effects: list[node.Effect]


class BalancerWorker:
    """Executes the effects of a ``Balancer``, and passes it the results of probes and the answers of the plane."""

    def __init__(self, configuration: Configuration, channel: AsyncChannel[ToWorker], plane: Plane, plane_reason: str) -> None:
        self.channel = channel
        self.plane = plane
        self.plane_reason = plane_reason
        self.balancer = Balancer(random.Random().random)  # noqa: S311 - spreads checks in time, protects nothing
        self.local: frozenset[str] | None = None
        self._first = configuration
        self._timer: asyncio.TimerHandle | None = None
        self._offset = time.time() - time.monotonic()
        self._wake = asyncio.Event()
        self._engine: Engine[CheckKey] = Engine(self._finish)
        self._scripts = ScriptChecks(channel.send)
        self._stopping = asyncio.Event()
        self._at_stop = PlaneAtStop.KEEP  # also when the supervisor dies
        self._tasks: set[asyncio.Task[None]] = set()
        self._reload: PendingReload | None = None

    # -- life --------------------------------------------------------------------------------------------------

    async def run(self, lacking: list[str]) -> None:
        """Run until ``Stop`` arrives or the supervisor ends; ``lacking`` says what the system refused to this process."""
        await self.channel.open()
        for each in lacking:
            self._log(each, Severity.WARNING)
        self.balancer.set_local(self.local, time.monotonic())
        self._execute(self.balancer.configure(self._first, time.monotonic()))
        keeper = asyncio.create_task(self._keep_plane(), name="reconcile")
        listener = asyncio.create_task(self._listen(), name="supervisor")
        await self._stopping.wait()
        for task in (keeper, listener):
            task.cancel()
        self._engine.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._reload is not None:  # the reload that removed every service, and with them this process
            with contextlib.suppress(PlaneError, OSError):
                await self._reconcile()
        self.channel.send(ShutdownNotice(self.balancer.shutdown_notice()))
        await self.channel.drain()
        await self._leave_plane()

    async def _leave_plane(self) -> None:
        """Release the plane; ``PlaneAtStop`` decides what stays."""
        if self._at_stop is PlaneAtStop.KEEP:
            await self.plane.close()
            return
        try:
            if self.plane.capabilities().shared:
                await self.plane.apply(self.balancer.removals(await self.plane.observe(), shared=True))
            await self.plane.synchronise(None, self._report_sync)
            await self.plane.remove(keep_connections=self._at_stop is PlaneAtStop.KEEP_CONNECTIONS)
        except PlaneError as error:
            self._log(f"the data plane was not cleared: {error}", Severity.WARNING)
            await self.channel.drain()

    async def _listen(self) -> None:
        async for message in self.channel.messages():
            match message:
                case TakeSnapshot():
                    self.channel.send(BalancerReport(await self.snapshot()))
                case PlaneCall():
                    self._task(self._serve(message))
                case Reload(configuration=configuration, number=number):
                    before = BalancerBefore(self.balancer)
                    effects = self.balancer.configure(configuration, time.monotonic())
                    self._reload = PendingReload(number, before, effects)
                    self._execute(effects)
                case messages.Keys(keys=keys):
                    use_keys(keys)
                case Rehearse(configuration=configuration, number=number):
                    self._task(self._rehearse(configuration, number))
                case Stop(plane=at_stop):
                    self._at_stop = at_stop
                    break
                case _:
                    self._observe(message)
        self._stopping.set()

    def _observe(self, message: ToWorker) -> None:
        """Take what has changed around this process."""
        match message:
            case LocalAddresses(addresses=addresses):
                self.local = addresses
                self._execute(self.balancer.set_local(addresses, time.monotonic()))
                self._wake.set()
            case Masters(instances=instances):
                self._execute(self.balancer.set_masters(instances))
            case PlaneRestarted():
                self._wake.set()
            case Orders(orders=orders):
                self._execute(self.balancer.set_orders(orders, time.monotonic()))
            case ScriptEnded():
                self._finish(self._scripts.ended(message))
            case Observed(kind=TrackerKind.FILE, name=name, value=value):
                self._execute(self.balancer.file_read(name, value, time.monotonic()))
            case _:
                pass  # for the director

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- effects -----------------------------------------------------------------------------------------------

    def _execute(self, effects: list[node.Effect]) -> None:
        for effect in effects:
            match effect:
                case node.StartProbe(key=key, check=MiscCheck() as check):
                    self._scripts.start(key, check)
                case node.StartProbe(key=key, check=NetworkCheck() as check):
                    self._engine.start(key, check)
                case node.AbandonProbe(key=key):
                    self._engine.cancel(key)
                    self._scripts.cancel(key)
                case node.MatchTable():
                    self._wake.set()
                case _:
                    self._report(effect)
        self._arm()

    def _report(self, effect: node.Effect) -> None:
        match effect:
            case Log(text=text, severity=severity):
                self._log(text, severity)
            case node.ServerChanged():
                event = ServerEvent(effect.service, effect.server, effect.up, effect.transition, effect.check, effect.reason)
                self.channel.send(event)
            case node.ServerFound(service=service, server=server):
                self.channel.send(messages.ServerFound(service, server))
            case node.QuorumChanged():
                self.channel.send(QuorumEvent(effect.service, effect.up, effect.weight))
            case node.ServiceFound(service=service, up=up):
                self.channel.send(ServiceFound(service, up))
            case node.PlaneReady():
                self.channel.send(messages.PlaneReady(True))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self.balancer.deadline()
        self._timer = None if due is None else asyncio.get_running_loop().call_at(due, self._expire)

    def _expire(self) -> None:
        self._execute(self.balancer.expire(time.monotonic()))

    def _finish(self, results: list[tuple[CheckKey, Result]]) -> None:
        now = time.monotonic()
        self._execute([effect for key, result in results for effect in self.balancer.finish_probe(key, result, now)])

    # -- the plane ---------------------------------------------------------------------------------------------

    async def _keep_plane(self) -> None:
        """Reconcile after every change, and every ``AUDIT_S``."""
        first = True
        while True:
            self._wake.clear()
            try:
                await self._reconcile()
                pause = AUDIT_S
            except Exception as error:  # an error must not end reconciliation
                text = str(error) if isinstance(error, PlaneError | OSError) else f"{type(error).__name__}: {error}"
                self._execute(self.balancer.plane_failed(text))
                self._fail_reload(text)
                pause = RETRY_S
            if first:
                self.channel.send(Ready())
                first = False
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _fail_reload(self, reason: str) -> None:
        if self._reload is not None:
            self.channel.send(StepsTaken(self._reload.number, error=f"the data plane: {reason}"))
            self._reload = None

    async def _reconcile(self) -> None:
        if self.local is not None:
            await self.plane.set_local(self.local, self.balancer.floating())
        await self._match_settings()
        problem = await self.plane.synchronise(self.balancer.sync_task(), self._report_sync)
        observed = await self.plane.observe()
        reload = self._reload
        operations = self.balancer.operations(observed, shared=self.plane.capabilities().shared)
        steps = [] if reload is None else balancer_steps(reload.before, reload.effects, operations, observed, self.balancer)
        refused = []
        if operations:
            refused = [(each.operation, each.reason) for each in await self.plane.apply(operations)]
            observed = await self.plane.observe()
        if reload is not None:
            self.channel.send(StepsTaken(reload.number, tuple(steps), "; ".join(reason for _, reason in refused)))
            if self._reload is reload:  # not another one that came meanwhile
                self._reload = None
        for event in self.plane.events():
            self._log(event.text, Severity.WARNING if event.grave else Severity.INFO)
        self._execute(self.balancer.reconciled(observed, operations, refused, problem))

    async def _match_settings(self) -> None:
        """Set the plane's settings that a reload changed."""
        timeouts = self.balancer.wanted_timeouts()
        if timeouts is not None:
            problem = await self.plane.set_timeouts(timeouts)
            if problem:
                self._log(f"lvs_timeouts: {problem}", Severity.WARNING)
        sysctls = self.balancer.wanted_sysctls()
        if sysctls is not None:
            for reason in await self.plane.set_sysctls(sysctls):
                self._log(f"lvs_sysctls: {reason}", Severity.WARNING)

    def _report_sync(self, in_sync: bool) -> None:
        what = "every connection of the master is here" if in_sync else "connections of the master may be missing here"
        self._log(f"connection synchronisation: {what}")
        self.channel.send(SyncEvent(in_sync))

    # -- calls -------------------------------------------------------------------------------------------------

    async def _rehearse(self, configuration: Configuration, number: int) -> None:
        try:
            observed, shared = await self.plane.observe(), self.plane.capabilities().shared
        except (PlaneError, OSError) as error:
            self.channel.send(StepsTaken(number, error=str(error)))
            return
        steps = rehearse_balancer(self.balancer, configuration, observed, time.monotonic(), shared=shared)
        self.channel.send(StepsTaken(number, tuple(steps)))

    async def _serve(self, call: PlaneCall) -> None:
        """Execute a call of the supervisor or of a client of the control socket."""
        try:
            answer = await self._answer(call.number, call.request)
        except (PlaneError, ValueError, OSError) as error:
            answer = PlaneAnswer(call.number, error=str(error))
        self.channel.send(answer)

    async def _answer(self, number: int, request: Connections | Table | Sync | CompleteSync) -> PlaneAnswer:
        match request:
            case Connections():
                return PlaneAnswer(number, connections=await self._connections(request))
            case Table():
                return PlaneAnswer(number, table=await self._change_table(request))
            case Sync():
                return PlaneAnswer(number, sync=await self.plane.sync_state(counted=True))
            case CompleteSync():
                return PlaneAnswer(number, total=await self.plane.complete_sync())

    async def _connections(self, request: Connections) -> ConnectionList:
        if request.drop:
            return ConnectionList(await self.plane.drop(request.filter))
        matches = request.filter.test()
        found = [connection for connection in await self.plane.connections() if matches(connection)]
        return ConnectionList(len(found), found[: request.limit or None])

    async def _change_table(self, request: Table) -> TableAnswer:
        """Change the table manually, and return it."""
        manual = self.balancer.manual
        refused = {each.operation: each.reason for each in await self.plane.apply(request.operations)}
        reasons = [refused.get(operation, "") for operation in request.operations]
        for operation, reason in zip(request.operations, reasons, strict=True):
            manual.note(operation, reason)
        problem = await self.plane.set_timeouts(request.timeouts) if request.timeouts != PlaneTimeouts() else ""
        zeroes = request.zero is not None or request.zero_all
        view = None
        if request.show or zeroes:
            observed = await self.plane.observe()
            if zeroes:
                manual.zero(observed, request.zero)
            view = TableView(manual.since_zero(observed), await self.plane.settings())
        return TableAnswer(reasons, problem, view)

    # -- reports -----------------------------------------------------------------------------------------------

    def _log(self, text: str, severity: Severity = Severity.INFO) -> None:
        self.channel.send(LogLine(text, severity))

    async def snapshot(self) -> BalancerSnapshot:
        """Return the state of this worker and the plane."""
        error = self.balancer.plane_error
        try:
            observed = {state.service.key: state for state in await self.plane.observe()}
            sync = await self.plane.sync_state(counted=False)
        except PlaneError as failure:
            observed, sync, error = {}, None, str(failure)
        return BalancerSnapshot(
            plane=self.plane.capabilities().name,
            plane_reason=self.plane_reason,
            plane_error=error,
            plane_attachments=self.plane.attachments(),
            packets=self.plane.drop_counters(),
            sync=sync,
            check_lateness_s=self.balancer.checks.lateness_s,
            services=ServiceView(self.balancer, observed, self._offset).services(),
        )


def serve(
    configuration: Configuration,
    sock: socket.socket,
    plane: Plane,
    plane_reason: str,
    local: frozenset[str] | None,
    masters: frozenset[str],
    numbers: dict[str, int],
    orders: tuple[ServerOrder, ...] = (),
) -> None:
    """Run the balancer worker.

    ``local`` are the virtual addresses on this node, ``None`` without VRRP; ``masters`` are the instances that are master,
    ``numbers`` those in the tracked files, by name, ``orders`` what an administrator says of servers.
    """
    settings = configuration.global_defs.processes.balancer
    lacking = privileges.apply_settings(settings)
    if settings.realtime_priority is not None and (refused := privileges.enable_realtime(settings.realtime_priority)):
        lacking.append(f"the system refuses real-time priority: {refused}")
    use_keys(keys_in(configuration.key_files()))
    role = confinement.BALANCERS[plane.capabilities().name]
    try:
        catalogue.prepare(plane, confinement.identity(role))
        lacking += confinement.confine(role)
    except PlaneError as error:
        lacking.append(f"{error}: the balancer keeps its user and files, to try again")
        lacking += confinement.drop_capabilities(role)
    gc.collect()
    gc.freeze()
    channel: AsyncChannel[ToWorker] = AsyncChannel(sock, decode_to_worker)

    async def work() -> None:
        worker = BalancerWorker(configuration, channel, plane, plane_reason)
        worker.local = local
        worker.balancer.masters = masters
        worker.balancer.checks.numbers = numbers
        worker.balancer.orders = orders
        await worker.run(lacking)

    asyncio.run(work())
