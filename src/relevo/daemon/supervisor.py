"""The supervisor: it connects workers, configuration, alerts and the control socket.

The crash of a worker moves no address and drops no packet: the addresses of a dead director stay, and its successor resumes as
master. ``processes`` manages processes, ``commands`` handles requests of clients, ``configuration`` reads the file.
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
from collections.abc import Callable, Coroutine
from typing import Any, Final

from relevo import __version__
from relevo.alerts.dispatch import Dispatcher
from relevo.alerts.fifo import Fifos
from relevo.alerts.journal import Journal
from relevo.alerts.notify import Notifier
from relevo.api.client import SOCKET_NAME
from relevo.api.schema import Reloaded
from relevo.api.server import ControlServer
from relevo.daemon import balancer, confinement, director, dumps, messages
from relevo.daemon.alerting import Event, alert
from relevo.daemon.around import Around, enter
from relevo.daemon.check_scripts import CheckScripts
from relevo.daemon.commands import Commands
from relevo.daemon.mailbox import Mailbox
from relevo.daemon.messages import (
    BalancerReport,
    CancelCheck,
    DirectorReport,
    FromWorker,
    InstanceEvent,
    LocalAddresses,
    LocalAddressesEvent,
    LogLine,
    Masters,
    Observed,
    PlaneAnswer,
    PlaneReady,
    PlaneRestarted,
    Ready,
    Resume,
    RunCheck,
    StepsTaken,
    Stop,
    Synced,
    SyncEvent,
)
from relevo.daemon.options import Options, part_of
from relevo.daemon.processes import Worker, Workers
from relevo.daemon.reload import Reloads, being_read, own_steps, read_candidate, remove_marker, unlogged
from relevo.daemon.scheduled_reload import ScheduledReload
from relevo.daemon.shared import Shared
from relevo.daemon.trackers import TrackerDriver
from relevo.errors import ControlError, HostError
from relevo.host import privileges, systemd
from relevo.host.addresses import AddressTable
from relevo.host.echo_range import EchoRange
from relevo.host.files import remove_pid_file
from relevo.host.keys import keys_in
from relevo.host.run_command import wait_by_descriptors
from relevo.host.unix_socket import private_listener
from relevo.model import Configuration, TrackerKind
from relevo.model.checks import PingCheck
from relevo.model.process import PlaneAtStop
from relevo.node.observation import Observation
from relevo.observe.snapshot import (
    BalancerSnapshot,
    DirectorSnapshot,
    Snapshot,
)
from relevo.planes import catalogue
from relevo.planes.port import shortcomings
from relevo.planes.proxy import worker as proxy_worker
from relevo.severity import Severity

FLUSH_S: Final = 3.0
"""Seconds that a stop waits for mails and scripts; unsent mails stay on disk."""


class Supervisor:
    """``connector`` is a socket to the process connector, for a daemon that has entered another network namespace."""

    def __init__(self, options: Options, configuration: Configuration, connector: socket.socket | None = None) -> None:
        self.options = options
        self.configuration = part_of(configuration, options)
        self.journal = Journal(console=options.console, facility=options.facility)
        self.mailbox = Mailbox(options.state / "mail", self.log)
        self.notifier = Notifier(self.log)
        self.fifos = Fifos(self.log)
        self.dispatcher = Dispatcher(self.mailbox, self.notifier, self.fifos)
        self.around = Around(self.log)
        self.trackers = TrackerDriver(self._observe, self.log, connector)
        self.echo_range = EchoRange()
        self.check_scripts = CheckScripts(lambda ended: self.workers.send("balancer", ended), self.log)
        self.workers = Workers(self)
        self._shared_snapshot = Shared(self._take_snapshot)
        self.commands = Commands(self)
        self.reloads = Reloads(self)
        self.scheduled = ScheduledReload(self._begin_reload, self.log)
        self.started_at = self.reloaded_at = time.time()
        self.reload_error = ""
        self.plane = catalogue.Choice("", "")
        self.local: frozenset[str] | None = frozenset() if self.configuration.vrrp_instances else None
        self.masters: set[str] = set()
        self.mastery_changed = asyncio.Event()
        self._placed: frozenset[tuple[int, str, int]] = frozenset()
        self._plane_ready = not self.configuration.virtual_servers
        self._synced = False
        self._starting = True
        self._proxy_path = catalogue.proxy_socket(options.runtime)
        self._proxy_listener: socket.socket | None = None
        self._control = ControlServer(options.runtime / SOCKET_NAME, self.commands.handle)
        self._at_stop = options.at_stop
        self._reloading = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._finished: asyncio.Future[int] | None = None

    def log(self, text: str, severity: int = Severity.INFO, process: str = "") -> None:
        """Write a log line."""
        self.journal.write(text, severity, process)

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the sockets, install signal handlers and start the workers."""
        loop = asyncio.get_running_loop()
        self._finished = loop.create_future()
        self.log(f"Starting Relevo v{__version__} with {self.options.file}", Severity.NOTICE)
        processes = self.configuration.global_defs.processes
        await self.around.run(processes.startup_script, self.configuration, processes.startup_script_timeout_s)
        self.plane = self._choose_plane()
        await self._control.open()
        privileges.raise_descriptor_limit()
        for each in confinement.shortcomings():
            self.log(each, Severity.NOTICE)
        self._open_proxy_socket()
        self.dispatcher.configure(self.configuration)
        self.fifos.configure(self.configuration.global_defs)
        self.mailbox.recover()
        self._handle_signals(loop)
        self.check_scripts.configure(self.configuration)
        self._allow_echo()
        self.trackers.configure(self.configuration, starting=True)
        remove_marker(self.configuration.global_defs.reload.marker)  # of a daemon that was killed while it read
        self.scheduled.configure(self.configuration.global_defs.reload)
        gc.collect()
        gc.freeze()
        confinement.settle()
        self.spawned("main", os.getpid())
        self.workers.start_missing()
        self._starting = False

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """Install handlers for keepalived's signals (keepalived(8), "SIGNALS")."""
        loop.add_signal_handler(signal.SIGTERM, self.stop, self.options.at_stop)
        loop.add_signal_handler(signal.SIGINT, self.stop, self.options.at_stop)
        loop.add_signal_handler(signal.SIGHUP, self._begin_reload)
        for number, kind in dumps.SIGNALS.items():
            loop.add_signal_handler(number, self._begin_dump, kind)
        loop.add_signal_handler(dumps.CLEAR, lambda: self.log(dumps.NOT_CLEARED, Severity.NOTICE))

    def _begin_reload(self) -> None:
        self._task(self.reload(), "reload")

    def _begin_dump(self, kind: dumps.Kind) -> None:
        self._task(dumps.dump(self.options.runtime, kind, self.snapshot, self.log), "dump")

    def stop(self, at_stop: PlaneAtStop = PlaneAtStop.KEEP_CONNECTIONS) -> None:
        """Stop gracefully; a second request stops immediately."""
        if self.workers.stopping:
            for worker in self.workers.present.values():
                worker.kill()
            return
        self.workers.stopping, self._at_stop = True, at_stop
        self.log("Stopping", Severity.NOTICE)
        systemd.notify("STOPPING=1")
        self._task(self._stop(), "stop")

    async def _stop(self) -> None:
        self.scheduled.close()
        await self.complete_sync()
        for role in ("director", "balancer", "proxy"):
            await self.workers.end(role, Stop(self._at_stop))
        await self.check_scripts.stop()
        self.echo_range.restore()
        await self.trackers.stop()
        await self.notifier.flush(FLUSH_S)
        await self.mailbox.flush(FLUSH_S)
        await self.fifos.close(FLUSH_S)
        await self.around.match_firewall(self.configuration, None)
        processes = self.configuration.global_defs.processes
        await self.around.run(processes.shutdown_script, self.configuration, processes.shutdown_script_timeout_s)
        await self._control.close()
        self._proxy_path.unlink(missing_ok=True)
        for file in self.options.pid_files.values():
            remove_pid_file(file)
        self.log(f"Stopped Relevo v{__version__}", Severity.NOTICE)
        assert self._finished is not None
        self._finished.set_result(0)

    async def complete_sync(self) -> None:
        """Sync every connection to the peers before the addresses are removed."""
        try:
            total = await self.commands.complete_sync()
        except ControlError as error:
            self.log(f"connection synchronisation is not complete: {error}", Severity.WARNING)
        else:
            if total:
                self.log(f"synced {total} connections to the peers")

    async def finished(self) -> int:
        """Wait for the end of the stop; return the exit status."""
        assert self._finished is not None
        return await self._finished

    def _task(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- workers: see ``processes.Owner`` ------------------------------------------------------------------------

    def roles(self) -> list[str]:
        """Return the roles of the workers that this configuration needs."""
        return self.roles_of(self.configuration)

    def roles_of(self, configuration: Configuration) -> list[str]:
        """Return the roles of the workers that a configuration needs on this plane."""
        roles = ["proxy"] if catalogue.needs_process(self.plane.name) and configuration.virtual_servers else []
        roles += ["balancer"] if configuration.virtual_servers else []
        return roles + (["director"] if configuration.vrrp_instances else [])

    def _open_proxy_socket(self) -> None:
        """Listen for the balancer, where a proxy is needed; only the balancer can connect."""
        if "proxy" in self.roles() and self._proxy_listener is None:
            self._proxy_path.parent.mkdir(mode=0o700, exist_ok=True)  # the folder above is private
            self._proxy_listener = private_listener(self._proxy_path)
            confinement.give(confinement.BALANCERS["proxy"], self._proxy_path, self._proxy_path.parent)

    def talks(self, role: str) -> bool:
        """Whether a worker has a channel: the balancer controls the proxy, not the supervisor."""
        return role != "proxy"

    def title(self, role: str) -> str:
        """Return the name of a worker's process."""
        settings = self.configuration.global_defs.processes
        declared = {"director": settings.director.name, "balancer": settings.balancer.name}.get(role, "")
        return declared or f"relevo-{role}"

    def spawned(self, role: str, pid: int) -> None:
        """Write the PID file of a process, if it has one."""
        self.around.write_pid(self.options.pid_files.get(role), pid)

    def respawns(self) -> bool:
        """Whether a worker that dies is started again."""
        return self.options.respawn

    def stop_limit_s(self) -> float:
        """Return the seconds that a worker may take to stop."""
        return self.configuration.global_defs.processes.child_wait_time_s

    def inherits(self, role: str) -> list[int]:
        """Return descriptors that a worker needs besides its channel."""
        return [self._proxy_listener.fileno()] if role == "proxy" and self._proxy_listener is not None else []

    def body(self, role: str, sock: socket.socket) -> Callable[[], None]:
        """Return the function that a worker runs, with the present state."""
        sources = tuple(Observed(kind, name, value) for (kind, name), value in self.trackers.observed.items())
        resume = Resume(frozenset(self.masters), self._placed, self._plane_ready, self._synced, sources, self._starting)
        match role:
            case "director":
                return lambda: director.serve(self.configuration, sock, resume)
            case "balancer":
                return lambda: self._balance(sock, resume)
            case _:
                return lambda: self._proxy(sock)

    def _balance(self, sock: socket.socket, resume: Resume) -> None:
        plane = catalogue.make(self.plane.name, self.options.runtime, self.configuration)
        numbers = {each.name: each.value or 0 for each in resume.sources if each.kind is TrackerKind.FILE}
        balancer.serve(
            self.configuration, sock, plane, self.plane.reason, self.local, resume.masters, numbers, self.commands.orders
        )

    def _proxy(self, sock: socket.socket) -> None:
        assert self._proxy_listener is not None
        for each in confinement.confine(confinement.PROXY):
            sys.stderr.write(f"relevo-proxy: {each}\n")
        proxy_worker.serve(self._proxy_listener, sock)

    def lost(self, role: str) -> None:
        """Wait for nothing from a worker that died; without its balancer a node's connections are not in sync."""
        self.reloads.lost(role)
        self.commands.lost(role)
        if role == "balancer":
            self.check_scripts.cancel_all()
            self._set_synced(False)

    def restarted(self, role: str) -> None:
        """Have the balancer fill the table of a new proxy process."""
        if role == "proxy":
            self.workers.send("balancer", PlaneRestarted())

    def given_up(self, role: str) -> None:
        """Remove the virtual addresses of a dead director: a peer takes over, and two nodes must not have them."""
        if role != "director":
            return
        self.masters.clear()
        try:
            with contextlib.closing(AddressTable()) as table:
                observed = {each.set.key: each.set for each in table.addresses({})}
                for key in self._placed & observed.keys():
                    table.remove(observed[key])
        except HostError as error:
            self.log(str(error), Severity.ERROR)
        self._placed = frozenset()
        self._set_local(frozenset())

    # -- messages ----------------------------------------------------------------------------------------------

    def handle(self, worker: Worker, message: FromWorker) -> None:
        """Process a message of a worker."""
        match message:
            case LogLine(text=text, severity=severity):
                self.log(text, severity, worker.role)
            case InstanceEvent():
                self._mastery(message)
            case LocalAddressesEvent(addresses=addresses, placed=placed):
                self._placed = placed
                self._set_local(addresses)
            case _ if isinstance(message, Event):
                alert(self.dispatcher, self.trackers, message)
            case PlaneReady():
                self._plane_ready = True  # the plane forwards packets from now on, also if the balancer dies
                self.workers.send("director", message)
            case SyncEvent(in_sync=in_sync):
                self._set_synced(in_sync)
            case RunCheck() | CancelCheck():
                self.check_scripts.handle(message)
            case Ready():
                worker.ready = True
                self._notify_systemd(ready=True)
            case _:
                self._take_answer(worker, message)

    def _take_answer(self, worker: Worker, message: FromWorker) -> None:
        match message:
            case PlaneAnswer():
                self.commands.answered(message)
            case StepsTaken():
                self.reloads.answered(worker.role, message)
            case DirectorReport(snapshot=snapshot) | BalancerReport(snapshot=snapshot):
                if worker.report is not None and not worker.report.done():
                    worker.report.set_result(snapshot)

    def _mastery(self, event: InstanceEvent) -> None:
        (self.masters.add if event.state == "MASTER" else self.masters.discard)(event.name)
        self.mastery_changed.set()
        self.workers.send("balancer", Masters(frozenset(self.masters)))
        if self.dispatcher.instance(event.name, event.state, event.priority, event.reason):
            self._notify_systemd()

    def _notify_systemd(self, *, ready: bool = False) -> None:
        masters = ", ".join(sorted(self.masters)) or "none"
        systemd.notify(("READY=1\n" if ready else "") + f"STATUS=master of: {masters}")

    def _set_local(self, addresses: frozenset[str] | None) -> None:
        self.local = addresses
        self._task(self.around.match_firewall(self.configuration, addresses), "firewall")
        if addresses is not None:
            self.workers.send("balancer", LocalAddresses(addresses))

    def _observe(self, observation: Observation) -> None:
        """Pass the value of a tracker to the director, and the number in a file to the balancer too."""
        assert isinstance(observation.kind, TrackerKind)
        observed = Observed(observation.kind, observation.name, observation.value)
        self.workers.send("director", observed)
        if observation.kind is TrackerKind.FILE:
            self.workers.send("balancer", observed)

    def _allow_echo(self) -> None:
        """Let the balancer send echo requests if a check needs them."""
        servers = (server for service in self.configuration.virtual_servers for server in service.real_servers)
        if any(isinstance(check, PingCheck) for server in servers for check in server.checks):
            role = confinement.BALANCERS[self.plane.name]
            if text := self.echo_range.allow(confinement.identity(role)[1]):
                self.log(text, Severity.WARNING)
        else:
            self.echo_range.restore()

    def _set_synced(self, synced: bool) -> None:
        """Forward the state of synchronisation to the director, for ``preempt_when_synced``."""
        self._synced = synced
        self.workers.send("director", Synced(synced))

    # -- configuration -----------------------------------------------------------------------------------------

    def _choose_plane(self) -> catalogue.Choice:
        choice = catalogue.choose(self.configuration)
        if self.configuration.virtual_servers:
            self.log(f"data plane: {choice.name} ({choice.reason})", Severity.NOTICE)
            for lacking in shortcomings(self.configuration, catalogue.capabilities(choice.name)):
                self.log(lacking.message, Severity.WARNING)
        return choice

    async def reload(self) -> Reloaded | str:
        """Read the configuration again; return what that did, or why nothing was changed."""
        async with self._reloading:
            if self.workers.stopping:
                return "the daemon is stopping"
            systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            with being_read(self.configuration.global_defs.reload.marker, self.log):
                candidate = await read_candidate(self.options.file, self.options, self.configuration, self.plane.name)
            self.reload_error = candidate.refusal
            if candidate.refusal:
                self.log(f"reload refused, nothing changed: {candidate.refusal}", Severity.ERROR)
                self._notify_systemd(ready=True)
                return candidate.refusal
            for finding in candidate.findings:
                self.log(finding, Severity.WARNING)
            done = await self._use(candidate.configuration)
            for line in unlogged(done.steps):
                self.log(f"reload: {line}")
            self.log("Reloaded the configuration", Severity.NOTICE)
            self._notify_systemd(ready=True)
            return done

    async def _use(self, configuration: Configuration) -> Reloaded:
        """Use another configuration, in every part of the daemon."""
        former, roles = self.configuration, self.roles()
        self.configuration = configuration
        self.reloaded_at = time.time()
        self.dispatcher.configure(configuration)
        self.check_scripts.configure(configuration)
        self.commands.forget_orders(configuration)
        self._allow_echo()
        self.fifos.configure(configuration.global_defs)
        self.scheduled.configure(configuration.global_defs.reload)
        self.dispatcher.repeat_states()
        if self.local is None and configuration.vrrp_instances:
            self._set_local(frozenset())
        self._open_proxy_socket()
        self.workers.send("balancer", messages.Keys(keys_in(configuration.key_files())))
        answers = self.reloads.ask(lambda number: messages.Reload(configuration, number))
        wanted = self.roles()
        for role in [role for role in self.workers.present if role not in wanted]:
            self._task(self.workers.end(role, Stop(PlaneAtStop.REMOVE)), f"end {role}")
        self.workers.start_missing()
        self._task(self.around.match_firewall(configuration, self.local), "firewall")
        self.trackers.configure(configuration)  # the director must know them before it gets their values
        steps, problems = await answers
        for problem in problems:
            self.log(f"reload: {problem}", Severity.WARNING)
        return Reloaded([*steps, *own_steps(former, configuration, roles, wanted)], problems)

    # -- status ------------------------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """Return everything that the daemon knows; those who ask at the same time get the same."""
        return await self._shared_snapshot.get()

    async def _take_snapshot(self) -> Snapshot:
        """Collect the snapshots of the workers; one that does not answer is marked."""
        reports, workers = await self.workers.snapshots()
        return Snapshot(
            version=__version__,
            router_id=self.mailbox.router_id,
            pid=os.getpid(),
            file=self.options.file,
            started_at=self.started_at,
            taken_at=time.time(),
            reloaded_at=self.reloaded_at,
            reload_error=self.reload_error,
            workers=workers,
            director=reports.get("director") or DirectorSnapshot(),
            balancer=reports.get("balancer") or BalancerSnapshot(plane=self.plane.name, plane_reason=self.plane.reason),
            mail=self.mailbox.snapshot(),
            scripts_failed=self.notifier.failed,
        )


def run(options: Options, configuration: Configuration) -> int:
    """Run the daemon until it is stopped; return its exit status."""

    connector = enter(part_of(configuration, options))

    async def main() -> int:
        wait_by_descriptors()
        supervisor = Supervisor(options, configuration, connector)
        await supervisor.start()
        return await supervisor.finished()

    return asyncio.run(main())
