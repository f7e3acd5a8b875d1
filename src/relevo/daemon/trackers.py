"""The driver of ``relevo.node.trackers`` in the supervisor: runs scripts, reads files, counts processes.

Scripts run here and not in the director, whose timers they must not delay. The director gets what changes, as observations.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relevo.errors import HostError
from relevo.host import track_files
from relevo.host.run_command import Command, CommandResult, Outcome, prepare, problem_of, run_command
from relevo.host.track_files import read_number
from relevo.host.track_processes import ProcessWatcher
from relevo.host.watched_files import FileWatcher
from relevo.model import Configuration, TrackFile
from relevo.node.effects import Log
from relevo.node.observation import Observation
from relevo.node.trackers import Effect, RunScript, StopScript, Trackers, WatchFiles, WatchProcesses
from relevo.severity import Severity

if TYPE_CHECKING:
    from relevo.node.sources import SourceKey

SWEEP_S: Final = 1.0
"""Seconds between two looks at what the kernel does not report."""
STARTS_AT_ONCE: Final = 4
"""Scripts that are started before the supervisor does other things: to start one takes some milliseconds."""
COALESCE_S: Final = 0.01
"""Seconds in which several changes of a file are one: only the last number matters."""

Observe = Callable[[Observation], None]
WriteLog = Callable[[str, int], None]


class TrackerDriver:
    """Executes the effects of ``Trackers``; ``observe`` gets the observations, ``log`` the lines.

    ``connector`` is a socket to the process connector that was opened in another network namespace.
    """

    def __init__(self, observe: Observe, log: WriteLog, connector: socket.socket | None = None) -> None:
        self.trackers = Trackers()
        self._observe = observe
        self._log = log
        self._connector = connector
        self._commands: dict[str, Command] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._files: FileWatcher | None = None
        self._processes: ProcessWatcher | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._watched: tuple[TrackFile, ...] = ()
        self._dirty: set[str] = set()
        self._stopped = False
        self._starting = asyncio.Semaphore(STARTS_AT_ONCE)

    @property
    def observed(self) -> dict[SourceKey, int | None]:
        """Return the present values of all sources, for a new director."""
        return self.trackers.observed

    def configure(self, configuration: Configuration, *, starting: bool = False) -> None:
        """Use a configuration from now on."""
        unusable = self._prepare(configuration)
        for file in configuration.trackers.files:
            try:
                track_files.write_first_number(file, starting=starting)
            except HostError as error:
                self._log(f"track_file {file.name}: {error}", Severity.WARNING)
        self._execute(self.trackers.configure(configuration, unusable, time.monotonic()))

    def _prepare(self, configuration: Configuration) -> dict[str, str]:
        """Find the programs and users of all scripts; return why some of them cannot run, by name."""
        self._commands, unusable = {}, {}
        for script in configuration.trackers.scripts:
            try:
                command = prepare(script.script, configuration.global_defs)
            except HostError as error:
                unusable[script.name] = str(error)
                continue
            problem = problem_of(command)
            if problem:
                unusable[script.name] = problem
            else:
                self._commands[script.name] = command
        return unusable

    def service_changed(self, name: str, up: bool) -> None:
        """Pass on whether a virtual server has its quorum."""
        self._execute(self.trackers.service_changed(name, up))

    async def stop(self) -> None:
        """End everything that runs."""
        self._stopped = True
        for timer in (self._timer, self._sweeping):
            if timer is not None:
                timer.cancel()
        loop = asyncio.get_running_loop()
        if self._files is not None:
            loop.remove_reader(self._files.fileno())
            self._files.close()
        self._close_processes()
        running = list(self._running.values())
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    # -- effects -----------------------------------------------------------------------------------------------

    def _execute(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Log(text=text, severity=severity):
                    self._log(text, severity)
                case Observation():
                    self._observe(effect)
                case RunScript():
                    self._running[effect.run] = asyncio.create_task(self._run(effect), name=f"vrrp_script {effect.name}")
                case StopScript(run=run):
                    self._running[run].cancel()
                case WatchFiles(files=files):
                    self._watch_files(files)
                case WatchProcesses():
                    self._watch_processes(effect)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self.trackers.deadline()
        delay_s = None if due is None or self._stopped else max(0.0, due - time.monotonic())
        self._timer = None if delay_s is None else asyncio.get_running_loop().call_later(delay_s, self._expire)

    def _expire(self) -> None:
        self._execute(self.trackers.expire(time.monotonic()))

    async def _run(self, wanted: RunScript) -> None:
        command = self._commands[wanted.name]
        try:
            result = await run_command(command.argv, limit_s=wanted.timeout_s, identity=command.identity, starting=self._starting)
        finally:
            del self._running[wanted.run]
        self._execute(self.trackers.script_ended(wanted.run, _reason(result), time.monotonic()))

    # -- files and processes -----------------------------------------------------------------------------------

    def _watch_files(self, files: tuple[TrackFile, ...]) -> None:
        loop = asyncio.get_running_loop()
        if self._files is not None:
            loop.remove_reader(self._files.fileno())
        elif files:
            self._files = FileWatcher()
        if self._files is None:
            return
        self._watched = files
        self._files.watch(file.path for file in files)
        loop.add_reader(self._files.fileno(), self._note_changed_files)
        self._read({file.path for file in files})
        self._begin_sweeping()

    def _note_changed_files(self) -> None:
        assert self._files is not None
        waiting = bool(self._dirty)
        self._dirty.update(self._files.changed())
        if self._dirty and not waiting:
            asyncio.get_running_loop().call_later(COALESCE_S, self._read_dirty)

    def _read_dirty(self) -> None:
        dirty, self._dirty = self._dirty, set()
        if not self._stopped:
            self._read(dirty)

    def _read(self, paths: set[str]) -> None:
        for file in self._watched:
            if file.path in paths:
                self._execute(self.trackers.file_read(file.name, read_number(file.path)))

    def _watch_processes(self, wanted: WatchProcesses) -> None:
        if not wanted.processes:
            self._close_processes()
            return
        loop = asyncio.get_running_loop()
        if self._processes is None:
            self._processes = ProcessWatcher(self._connector)
            self._processes.open()
            descriptor = self._processes.fileno()
            if descriptor is not None:
                loop.add_reader(descriptor, self._read_process_events)
        self._processes.watch(wanted.processes)
        self._count()
        self._begin_sweeping()

    def _close_processes(self) -> None:
        if self._processes is None:
            return
        descriptor = self._processes.fileno()
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
        self._processes.close()
        self._processes = None

    def _read_process_events(self) -> None:
        assert self._processes is not None
        self._processes.read_events()
        self._count()

    def _count(self) -> None:
        assert self._processes is not None
        for name, count in self._processes.counts().items():
            self._execute(self.trackers.processes_counted(name, count, time.monotonic()))

    def _begin_sweeping(self) -> None:
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Look at files in directories that cannot be watched, and at processes where the kernel reports none."""
        self._sweeping = None
        if self._files is not None:
            self._read(set(self._files.sweep()))
        if self._processes is not None and not self._processes.by_events:
            self._processes.sweep()
            self._count()
        if self._files is not None or self._processes is not None:
            self._begin_sweeping()


def _reason(result: CommandResult) -> str:
    """Return why a run counts as failed, in keepalived's words; empty if it succeeded."""
    if result.succeeded:
        return ""
    if result.outcome is Outcome.SIGNALLED:
        return f"due to signal {result.number}"
    return "timed out" if result.outcome is Outcome.TIMED_OUT else result.reason
