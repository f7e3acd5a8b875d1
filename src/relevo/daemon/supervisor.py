"""The supervisor: reads the configuration, forks the workers and restarts a dead one, reloads, and owns the alerts.

Workers are forked, not started anew: they share what is imported, and are there within milliseconds. The death of one
moves no address and stops no packet: a director that dies leaves its addresses, and its successor goes on as master.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from relevo import __version__
from relevo.alerts.dispatch import Dispatcher
from relevo.alerts.journal import Journal
from relevo.alerts.notify import Notifier
from relevo.alerts.outbox import Outbox
from relevo.alerts.spool import Spool
from relevo.config import Compiled, Severity, compile_text, exit_status
from relevo.daemon import balancer, director, planes
from relevo.daemon.channel import AsyncChannel, decode_from_worker
from relevo.daemon.control import CALL_S, ControlServer, private_listener
from relevo.daemon.messages import (
    BalancerReport,
    CompleteSync,
    DirectorReport,
    FromWorker,
    GroupEvent,
    HandOver,
    Held,
    HeldEvent,
    InstanceEvent,
    LogLine,
    Masters,
    PlaneAnswer,
    PlaneAtStop,
    PlaneCall,
    PlaneReady,
    PlaneRestarted,
    QuorumEvent,
    Ready,
    Reload,
    Resume,
    ServerEvent,
    ShutdownNotice,
    Stop,
    Synced,
    SyncEvent,
    TableCall,
    TakeSnapshot,
    TakeSyncState,
)
from relevo.errors import ConfigurationError, HostError, PlaneError
from relevo.host import libc, privileges, systemd
from relevo.host.addresses import AddressTable
from relevo.host.files import read_configuration, read_included
from relevo.observe.snapshot import (
    BalancerSnapshot,
    DirectorSnapshot,
    MailSnapshot,
    Snapshot,
    WorkerSnapshot,
)
from relevo.planes.port import shortcomings
from relevo.planes.proxy import worker as proxy_worker

STOP_S: Final = 5.0
"""How long workers may take to leave politely (keepalived's ``child_wait_time``)."""
FLUSH_S: Final = 3.0
"""How long the stop waits for mails and scripts; unsent mails stay on disk."""
SNAPSHOT_S: Final = 1.0
"""How long a worker may take to report."""
QUICK_DEATH_S: Final = 0.2
"""A worker that dies sooner than this, or before it was ready, did not get going."""
COMPLETE_SYNC_S: Final = 20.0
"""How long telling the peers of all connections may hold up a hand-over: a million take sixteen, with a key hardly one."""
HAND_OVER_S: Final = 3.0
"""How long a successor may take; a master waits for it a second at most."""
MAX_QUICK_DEATHS: Final = 3
"""After so many in a row its addresses are given up, and restarts slow down."""
SLOW_RESTART_S: Final = 5.0
BLOCKING: Final = (Severity.MISSING, Severity.FATAL)
"""Findings with which nothing may start, or be reloaded."""

_INFO, _NOTICE, _WARNING, _ERROR = 6, 5, 4, 3


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line decides."""

    file: str
    runtime: Path
    state: Path
    console: bool = True
    strict: bool = False


class BecomeWorker(SystemExit):
    """Unwinds the supervisor's loop in a forked child, which then runs ``work`` instead."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(0)
        self.work = work


@dataclass(slots=True)
class Worker:
    """A child process."""

    role: str
    pid: int
    channel: AsyncChannel[FromWorker] | None
    alive: socket.socket | None
    started_at: float
    restarts: int = 0
    quick_deaths: int = 0
    ready: bool = False
    reader: asyncio.Task[None] | None = None
    report: asyncio.Future[Any] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """One daemon."""

    def __init__(self, options: Options, compiled: Compiled) -> None:
        self.options = options
        self.compiled = compiled
        self.configuration = compiled.configuration
        self.journal = Journal(console=options.console)
        self.outbox = Outbox(Spool(options.state / "mail"), self.log)
        self.notifier = Notifier(self.log)
        self.dispatcher = Dispatcher(self.outbox, self.notifier)
        self.workers: dict[str, Worker] = {}
        self.started_at = self.reloaded_at = time.time()
        self.reload_error = ""
        self.plane = planes.Choice("", "")
        self.held: frozenset[str] | None = frozenset() if self.configuration.vrrp_instances else None
        self._masters: set[str] = set()
        self._placed: frozenset[tuple[int, str, int]] = frozenset()
        self._plane_ready = not self.configuration.virtual_servers
        self._synced = False
        self._mastery_changed = asyncio.Event()
        self._proxy_path = options.runtime / "proxy.sock"
        self._proxy_listener: socket.socket | None = None
        self._control = ControlServer(
            options.runtime / "control.sock",
            {
                "status": self._status,
                "reload": self._reload_by_command,
                "stop": self._stop_by_command,
                "connections": self._connections,
                "table": self._table,
                "plane": self._name_plane,
                "failover": self._failover,
                "sync": self._sync_state,
            },
        )
        self._stopping = False
        self._at_stop = PlaneAtStop.KEEP_CONNECTIONS
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls = 0
        self._answers: dict[int, asyncio.Future[PlaneAnswer]] = {}
        self._finished: asyncio.Future[int] | None = None

    def log(self, text: str, level: int = _INFO, process: str = "") -> None:
        """Write a log line."""
        self.journal.write(text, level, process)

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring everything up."""
        loop = asyncio.get_running_loop()
        self._finished = loop.create_future()
        self.log(f"Starting Relevo v{__version__} with {self.options.file}", _NOTICE)
        self.plane = self._choose_plane()
        await self._control.open()
        privileges.raise_descriptor_limit()
        self._proxy_listener = private_listener(self._proxy_path) if self._needs_proxy() else None
        self.dispatcher.configure(self.configuration)
        self.outbox.recover()
        for number, action in ((signal.SIGTERM, self.stop), (signal.SIGINT, self.stop), (signal.SIGHUP, self.reload)):
            loop.add_signal_handler(number, action)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        gc.collect()
        gc.freeze()
        for role in self._roles():
            self._spawn(role)

    def _spawn_missing(self, role: str) -> None:
        if role in self._roles() and role not in self.workers and not self._stopping:
            self._spawn(role)

    def _roles(self) -> list[str]:
        roles = []
        if self._needs_proxy():
            roles.append("proxy")
        if self.configuration.virtual_servers:
            roles.append("balancer")
        if self.configuration.vrrp_instances:
            roles.append("director")
        return roles

    def _needs_proxy(self) -> bool:
        return self.plane.name == "proxy" and bool(self.configuration.virtual_servers)

    def _choose_plane(self) -> planes.Choice:
        choice = planes.choose(self.configuration)
        if self.configuration.virtual_servers:
            self.log(f"data plane: {choice.name} ({choice.reason})", _NOTICE)
            for lacking in shortcomings(self.configuration, planes.capabilities(choice.name)):
                self.log(lacking.message, _WARNING)
        return choice

    def stop(self) -> None:
        """Leave politely; told twice, at once."""
        if self._stopping:
            for worker in self.workers.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
            return
        self._stopping = True
        self.log("Stopping", _NOTICE)
        systemd.notify("STOPPING=1")
        self._task(self._stop(), "stop")

    async def _stop(self) -> None:
        await self._complete_sync()
        await self._end_worker("director")
        await self._end_worker("balancer")
        await self._end_worker("proxy")
        await self.notifier.flush(FLUSH_S)
        await self.outbox.flush(FLUSH_S)
        await self._control.close()
        self._proxy_path.unlink(missing_ok=True)
        self.log(f"Stopped Relevo v{__version__}", _NOTICE)
        assert self._finished is not None
        self._finished.set_result(0)

    async def _end_worker(self, role: str) -> None:
        worker = self.workers.get(role)
        if worker is None:
            return
        if worker.channel is not None:
            worker.channel.send(Stop(self._at_stop))
        elif worker.alive is not None:
            worker.alive.close()
        try:
            async with asyncio.timeout(STOP_S):
                await worker.ended.wait()
        except TimeoutError:
            self.log(f"{role} worker does not end: killed", _WARNING)
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            self._give_addresses_up(role)
        if worker.reader is not None:
            await asyncio.wait({worker.reader}, timeout=1.0)

    async def finished(self) -> int:
        """Wait for the end; return the exit status."""
        assert self._finished is not None
        return await self._finished

    def _task(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- workers -----------------------------------------------------------------------------------------------

    def _spawn(self, role: str, former: Worker | None = None) -> None:
        """Fork a worker. In the child this raises ``BecomeWorker``."""
        ours, theirs = socket.socketpair()
        resume = Resume(frozenset(self._masters), self._placed, self._plane_ready, self._synced)
        keep = [theirs.fileno()]
        if role == "proxy" and self._proxy_listener is not None:
            keep.append(self._proxy_listener.fileno())
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            raise BecomeWorker(lambda: self._be(role, theirs, keep, resume, supervisor))
        theirs.close()
        worker = Worker(role, pid, None, None, time.time())
        if former is not None:
            worker.restarts, worker.quick_deaths = former.restarts + 1, former.quick_deaths
        self.workers[role] = worker
        if role == "proxy":
            worker.alive = ours
        else:
            worker.channel = AsyncChannel(ours, decode_from_worker)
            worker.reader = asyncio.create_task(self._listen(worker), name=f"{role} messages")
            self._task_of(worker)

    def _task_of(self, worker: Worker) -> None:
        assert worker.reader is not None
        self._tasks.add(worker.reader)
        worker.reader.add_done_callback(self._tasks.discard)

    def _be(self, role: str, sock: socket.socket, keep: list[int], resume: Resume, supervisor: int) -> None:
        """Run in the child: become the worker ``role``."""
        _forget_parent(keep, supervisor)
        libc.set_process_name(f"relevo-{role}")
        match role:
            case "director":
                director.serve(self.configuration, sock, resume)
            case "balancer":
                plane = planes.make(self.plane.name, self.options.runtime, self.configuration)
                balancer.serve(self.configuration, sock, plane, self.plane.reason, self.held, resume.masters)
            case "proxy":
                assert self._proxy_listener is not None
                privileges.confine(privileges.RELAY)
                proxy_worker.serve(self._proxy_listener, sock)

    def _reap(self) -> None:
        for role, worker in list(self.workers.items()):
            try:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
            except ChildProcessError:
                continue
            if pid:
                worker.ended.set()
                self._worker_ended(role, worker, os.waitstatus_to_exitcode(status))

    def _worker_ended(self, role: str, worker: Worker, status: int) -> None:
        if worker.channel is None and worker.alive is not None:
            worker.alive.close()
        if self._stopping or self.workers.get(role) is not worker:
            return
        if role == "balancer":
            self._set_synced(False)
        if role not in self._roles():
            del self.workers[role]
            return
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        quick = time.time() - worker.started_at < QUICK_DEATH_S or not (worker.ready or worker.channel is None)
        worker.quick_deaths = worker.quick_deaths + 1 if quick else 0
        if worker.quick_deaths >= MAX_QUICK_DEATHS:
            self.log(f"{role} worker {how}, {worker.quick_deaths} times in a row: next try in {SLOW_RESTART_S:g} s", _ERROR)
            self._give_addresses_up(role)
            loop = asyncio.get_running_loop()
            loop.call_later(SLOW_RESTART_S, lambda: None if self._stopping else self._spawn(role, worker))
            return
        self.log(f"{role} worker {how}: restarting it", _ERROR)
        self._spawn(role, worker)
        if role == "proxy" and (listener := self.workers.get("balancer")) is not None and listener.channel is not None:
            listener.channel.send(PlaneRestarted())

    def _give_addresses_up(self, role: str) -> None:
        """Take the virtual addresses away: a peer will take over, and both must not answer."""
        if role != "director":
            return
        self._masters.clear()
        try:
            table = AddressTable()
            observed = {each.set.key: each.set for each in table.addresses({})}
            for key in self._placed & observed.keys():
                table.remove(observed[key])
            table.close()
        except HostError as error:
            self.log(str(error), _ERROR)
        self._placed = frozenset()
        self._set_held(frozenset())

    # -- messages ----------------------------------------------------------------------------------------------

    async def _listen(self, worker: Worker) -> None:
        assert worker.channel is not None
        await worker.channel.open()
        async for message in worker.channel.messages():
            self._handle(worker, message)
        worker.channel.close()
        if worker.report is not None and not worker.report.done():
            worker.report.set_result(None)  # it will not answer any more

    def _handle(self, worker: Worker, message: FromWorker) -> None:
        match message:
            case LogLine(text=text, level=level):
                self.log(text, level, worker.role)
            case InstanceEvent():
                (self._masters.add if message.state == "MASTER" else self._masters.discard)(message.name)
                self._mastery_changed.set()
                self._tell_balancer(Masters(frozenset(self._masters)))
                if self.dispatcher.instance(message.name, message.state, message.priority, message.reason):
                    self._tell_systemd()
            case HeldEvent(addresses=addresses, placed=placed):
                self._placed = placed
                self._set_held(addresses)
            case GroupEvent() | ServerEvent() | QuorumEvent() | ShutdownNotice():
                self._alert(message)
            case PlaneReady():
                self._set_plane_ready()
            case SyncEvent(in_sync=in_sync):
                self._set_synced(in_sync)
            case DirectorReport() | BalancerReport() | PlaneAnswer():
                self._answered(worker, message)
            case Ready():
                worker.ready = True
                self._tell_systemd(ready=True)

    def _alert(self, message: GroupEvent | ServerEvent | QuorumEvent | ShutdownNotice) -> None:
        match message:
            case GroupEvent(name=name, state=state):
                self.dispatcher.group(name, state)
            case ServerEvent():
                self.dispatcher.server(message.service, message.server, message.up, message.moved, message.check, message.reason)
            case QuorumEvent(service=service, up=up, weight=weight):
                self.dispatcher.quorum(service, up, weight)
            case ShutdownNotice(servers=servers):
                self.dispatcher.farewell(servers)

    def _answered(self, worker: Worker, message: DirectorReport | BalancerReport | PlaneAnswer) -> None:
        """Give a worker's answer to whoever waits for it, if somebody still does."""
        if isinstance(message, PlaneAnswer):
            waiting = self._answers.get(message.number)
            if waiting is not None and not waiting.done():  # its time may be over in this very moment
                waiting.set_result(message)
        elif worker.report is not None and not worker.report.done():
            worker.report.set_result(message.snapshot)

    def _tell_systemd(self, *, ready: bool = False) -> None:
        masters = ", ".join(sorted(self._masters)) or "none"
        systemd.notify(("READY=1\n" if ready else "") + f"STATUS=master of: {masters}")

    def _set_held(self, addresses: frozenset[str] | None) -> None:
        self.held = addresses
        if addresses is not None:
            self._tell_balancer(Held(addresses))

    def _set_synced(self, synced: bool) -> None:
        """The director may have to wait for it before it takes over (``preempt_when_synced``)."""
        self._synced = synced
        self._tell_director(Synced(synced))

    def _set_plane_ready(self) -> None:
        """From now on packets are forwarded, whatever becomes of the balancer: a director may take over for them."""
        self._plane_ready = True
        self._tell_director(PlaneReady(True))

    def _tell_director(self, message: Synced | PlaneReady) -> None:
        worker = self.workers.get("director")
        if worker is not None and worker.channel is not None:
            worker.channel.send(message)

    def _tell_balancer(self, message: Held | Masters) -> None:
        worker = self.workers.get("balancer")
        if worker is not None and worker.channel is not None:
            worker.channel.send(message)

    # -- reload ------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration again."""
        self._task(self._reload_once(), "reload")

    async def _reload_by_command(self, arguments: dict[str, Any]) -> dict[str, Any]:
        await self._reload_once()
        return {"error": self.reload_error} if self.reload_error else {"reloaded": True}

    async def _stop_by_command(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self._at_stop = PlaneAtStop(arguments.get("plane", PlaneAtStop.REMOVE))
        self.stop()
        return {"stopping": True}

    async def _reload_once(self) -> None:
        async with self._reloading:
            if self._stopping:
                return
            systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self.reload_error = self._take_configuration()
            if self.reload_error:
                self.log(f"reload refused, nothing changed: {self.reload_error}", _ERROR)
            self._tell_systemd(ready=True)

    def _take_configuration(self) -> str:
        """Switch to what the file says now; return an empty string, or why nothing was changed."""
        try:
            compiled = compile_file(self.options.file)
            problem = blocking_problem(compiled, strict=self.options.strict)
            if problem:
                return problem
            plane = planes.choose(compiled.configuration)
        except (ConfigurationError, PlaneError) as error:
            return str(error)
        if plane.name != self.plane.name:
            return f"the data plane cannot change from {self.plane.name} to {plane.name} while running; restart instead"
        for finding in compiled.findings.in_order():
            self.log(f"{finding.place}: {finding.severity.value}: {finding.message}", _WARNING)
        self.compiled, self.configuration = compiled, compiled.configuration
        self.reloaded_at = time.time()
        self.dispatcher.configure(self.configuration)
        if self.held is None and self.configuration.vrrp_instances:
            self._set_held(frozenset())
        self._match_workers()
        self.log("Reloaded the configuration", _NOTICE)
        return ""

    def _match_workers(self) -> None:
        """Give workers the new configuration; start those that are needed now, end those that are not."""
        wanted = self._roles()
        if "proxy" in wanted and self._proxy_listener is None:
            self._proxy_listener = private_listener(self._proxy_path)
        for role, worker in list(self.workers.items()):
            if worker.channel is not None:
                worker.channel.send(Reload(self.configuration))
            if role not in wanted:
                self._task(self._end_worker(role), f"end {role}")
        # Not from here: a fork inside a task would unwind the child through the task's clean-up, which is not its own.
        for role in wanted:
            if role not in self.workers:
                asyncio.get_running_loop().call_soon(self._spawn_missing, role)

    # -- commands for the plane ---------------------------------------------------------------------------------

    async def _connections(self, arguments: dict[str, Any]) -> PlaneAnswer | dict[str, str]:
        """List or end connections: ``{"meant": {…}, "limit": 0, "ends": false}``."""
        return await self._relay(PlaneCall, arguments)

    async def _table(self, arguments: dict[str, Any]) -> PlaneAnswer | dict[str, str]:
        """Show the plane's table, after changes by hand: what ``relevo ipvsadm`` does (``TableCall``)."""
        return await self._relay(TableCall, arguments)

    async def _relay(self, kind: type[PlaneCall | TableCall], arguments: dict[str, Any]) -> PlaneAnswer | dict[str, str]:
        """Let the balancer do what somebody at the control socket asks of the plane."""
        self._calls += 1
        try:
            call = msgspec.convert({**arguments, "number": self._calls, "type": kind.__name__}, kind)
        except msgspec.ValidationError as error:
            return {"error": str(error)}
        answer = await self._call_plane(call, CALL_S)
        return {"error": answer.error} if answer.error else answer

    async def _name_plane(self, arguments: dict[str, Any]) -> dict[str, str]:
        """Say which plane is in charge; nobody else has to be asked."""
        return {"plane": self.plane.name}

    async def _call_plane(self, call: PlaneCall | TableCall | CompleteSync | TakeSyncState, limit_s: float) -> PlaneAnswer:
        """Ask the balancer and wait for its answer; where there is none, an answer that says so."""
        worker = self.workers.get("balancer")
        if worker is None or worker.channel is None:
            return PlaneAnswer(call.number, error="the configuration has no virtual server")
        answered: asyncio.Future[PlaneAnswer] = asyncio.get_running_loop().create_future()
        self._answers[call.number] = answered
        worker.channel.send(call)
        try:
            async with asyncio.timeout(limit_s):
                return await answered
        except TimeoutError:
            return PlaneAnswer(call.number, error=f"the balancer did not answer within {limit_s:g} s")
        finally:
            del self._answers[call.number]

    async def _sync_state(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Say how connection synchronisation goes, as the plane knows it now."""
        self._calls += 1
        answer = await self._call_plane(TakeSyncState(self._calls), CALL_S)
        if answer.error:
            return {"error": answer.error}
        return {"plane": self.plane.name, "taken_at": time.time(), "state": answer.sync}

    # -- planned hand-over --------------------------------------------------------------------------------------

    async def _complete_sync(self) -> None:
        """Let the peers know every connection before an address goes."""
        if self.configuration.global_defs.lvs_sync_daemon is None or not self._masters or "balancer" not in self.workers:
            return
        self._calls += 1
        answer = await self._call_plane(CompleteSync(self._calls), COMPLETE_SYNC_S)
        if answer.error:
            self.log(f"connection synchronisation is not complete: {answer.error}", _WARNING)
        elif answer.total:
            self.log(f"told the peers of {answer.total} connections")

    async def _failover(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Hand an instance over: ``{"instance": "VI_1", "back": false}``; answers when another is master."""
        try:
            wanted = msgspec.convert({**arguments, "type": "HandOver"}, HandOver)
        except msgspec.ValidationError as error:
            return {"error": str(error)}
        known = [instance.name for instance in self.configuration.vrrp_instances]
        director = self.workers.get("director")
        if wanted.instance not in known or director is None or director.channel is None:
            return {"error": f"there is no vrrp_instance '{wanted.instance}'; there is {' '.join(known) or 'none'}"}
        if wanted.back:
            director.channel.send(wanted)
            return {"handed_over": False}
        if wanted.instance not in self._masters:
            return {"error": f"{wanted.instance} is not master here: ask the node that is"}
        await self._complete_sync()
        director.channel.send(wanted)
        try:
            async with asyncio.timeout(HAND_OVER_S):
                while wanted.instance in self._masters:
                    self._mastery_changed.clear()
                    await self._mastery_changed.wait()
        except TimeoutError:
            return {"error": f"nobody took {wanted.instance} over within {HAND_OVER_S:g} s: it is still master here"}
        return {"handed_over": True}

    # -- status ------------------------------------------------------------------------------------------------

    async def _status(self, arguments: dict[str, Any]) -> Snapshot:
        return await self.snapshot()

    async def snapshot(self) -> Snapshot:
        """Ask the workers and put everything together; a worker that does not answer is marked."""
        present = dict(self.workers)  # others may come while these are asked
        reports = dict(zip(present, await asyncio.gather(*map(self._report, present.values())), strict=True))
        workers = tuple(
            WorkerSnapshot(
                role=role,
                pid=worker.pid,
                restarts=worker.restarts,
                since_at=worker.started_at,
                answered=worker.channel is None or reports.get(role) is not None,
            )
            for role, worker in present.items()
        )
        return Snapshot(
            version=__version__,
            router_id=self.outbox.router_id,
            pid=os.getpid(),
            file=self.options.file,
            started_at=self.started_at,
            taken_at=time.time(),
            reloaded_at=self.reloaded_at,
            reload_error=self.reload_error,
            workers=workers,
            director=reports.get("director") or DirectorSnapshot(),
            balancer=reports.get("balancer") or BalancerSnapshot(plane=self.plane.name, plane_reason=self.plane.reason),
            mail=MailSnapshot(
                waiting=len(self.outbox.machine),
                delivered=self.outbox.delivered,
                dropped=self.outbox.dropped,
                last_error=self.outbox.machine.last_error,
            ),
            scripts_failed=self.notifier.failed,
        )

    async def _report(self, worker: Worker) -> Any:
        if worker.channel is None or worker.reader is None or worker.reader.done():
            return None  # a dead one whose end is read before its signal comes would be waited for
        if worker.report is None or worker.report.done():
            worker.report = asyncio.get_running_loop().create_future()
            worker.channel.send(TakeSnapshot())
        try:
            async with asyncio.timeout(SNAPSHOT_S):
                return await asyncio.shield(worker.report)
        except TimeoutError:
            return None


def compile_file(file: str) -> Compiled:
    """Read and compile a configuration file; ``ConfigurationError`` when it cannot be read."""
    return compile_text(read_configuration(file), file, read_included)


def blocking_problem(compiled: Compiled, *, strict: bool) -> str:
    """Say why a configuration must not be used, or nothing.

    keepalived's tolerance: what is not understood is left out. A missing argument is fatal there, and so it is here.
    """
    for finding in compiled.findings.in_order():
        if finding.severity in BLOCKING:
            return f"{finding.place}: {finding.message}"
    if strict and exit_status(compiled.findings):
        worst = compiled.findings.in_order()[0]
        return f"{worst.place}: {worst.message} (--strict)"
    return ""


def _forget_parent(keep: list[int], supervisor: int) -> None:
    """Undo what the child got from the supervisor: signal handlers, descriptors, its loop."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Terminals and service managers signal the whole group: what that means is decided by the supervisor, who tells us.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    kept = {0, 1, 2, *keep}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))
    if os.getppid() != supervisor:
        os._exit(1)  # the supervisor died between fork and here


def run(options: Options, compiled: Compiled) -> int:
    """Run the daemon until it is stopped; return its exit status."""
    supervisor = Supervisor(options, compiled)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    async def main() -> int:
        await supervisor.start()
        return await supervisor.finished()

    try:
        return loop.run_until_complete(main())
    except BecomeWorker as child:
        _live_as(child, loop, supervisor)


def _live_as(child: BecomeWorker, *keep: object) -> NoReturn:
    """Run a worker in the forked child and end there.

    ``keep`` holds the supervisor's loop and objects alive: finalised here, they would act on descriptors that are the
    worker's by now, and on an epoll that is still the supervisor's.
    """
    status = 1
    try:
        asyncio.events._set_running_loop(None)
        asyncio.set_event_loop(None)
        child.work()
        status = 0
    except KeyboardInterrupt:
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)
