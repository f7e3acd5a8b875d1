"""The trackers of a node: which scripts run when, and what the sources mean now, as observations for the director.

The driver runs commands, reads files and counts processes. Results come in, observations of changes go out; an observation is
repeated only when its value changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from relevo.machines.track_process import ProcessMachine
from relevo.machines.track_script import ScriptMachine, Verdict
from relevo.model import Configuration, Script, TrackerKind, TrackFile, TrackProcess, VrrpScript
from relevo.node.effects import Log
from relevo.node.observation import Observation
from relevo.node.sources import SourceKey, declared_sources, tracked_services
from relevo.severity import Severity

MIN_NUMBER: Final = -(2**31)
MAX_NUMBER: Final = 2**31
"""Range of a number in a tracked file; keepalived keeps the former one when it reads another."""


@dataclass(frozen=True, slots=True)
class RunScript:
    """Run the command of a ``vrrp_script``; the answer is ``script_ended`` with the same ``run``."""

    name: str
    run: int
    script: Script
    timeout_s: float


@dataclass(frozen=True, slots=True)
class StopScript:
    """End the command of this run; its result is not needed."""

    run: int


@dataclass(frozen=True, slots=True)
class WatchFiles:
    """Report the number in each of these files now, and after every change."""

    files: tuple[TrackFile, ...]


@dataclass(frozen=True, slots=True)
class WatchProcesses:
    """Report how many processes of each kind run now, and after every change."""

    processes: tuple[TrackProcess, ...]


Effect = Log | Observation | RunScript | StopScript | WatchFiles | WatchProcesses


class Trackers:
    """The sources of a configuration. ``observed`` are their present values, for a director that starts later."""

    def __init__(self) -> None:
        self.scripts: dict[str, ScriptMachine] = {}
        self.processes: dict[str, ProcessMachine] = {}
        self.observed: dict[SourceKey, int | None] = {}
        self._services: frozenset[str] = frozenset()
        self._files: tuple[TrackFile, ...] = ()
        self._unusable: set[str] = set()
        self._runs: dict[int, str] = {}
        self._run_of: dict[str, int] = {}
        self._last_run = 0

    def configure(self, configuration: Configuration, unusable: Mapping[str, str], now: float) -> list[Effect]:
        """Use a configuration. ``unusable`` says why a script of this name cannot run: it is not tracked, as in keepalived."""
        declared = configuration.trackers
        effects = self._configure_scripts(declared.scripts, unusable, now)
        effects += self._configure_processes(declared.processes)
        if self._files != declared.files:
            self._files = declared.files
            effects.append(WatchFiles(declared.files))
        self._services = tracked_services(configuration)
        known = declared_sources(configuration)
        self.observed = {key: value for key, value in self.observed.items() if key in known}
        return effects

    # -- scripts -----------------------------------------------------------------------------------------------

    def _configure_scripts(self, declared: tuple[VrrpScript, ...], unusable: Mapping[str, str], now: float) -> list[Effect]:
        effects: list[Effect] = []
        usable = {script.name: script for script in declared if script.name not in unusable}
        for name in [name for name in self.scripts if name not in usable]:
            del self.scripts[name]
            self.observed.pop((TrackerKind.SCRIPT, name), None)
            effects += self._stop(name)
        for name, script in usable.items():
            machine = self.scripts.get(name)
            if machine is None:
                machine = self.scripts[name] = ScriptMachine(script, now)
                if machine.up is not None:
                    effects += self._observe(TrackerKind.SCRIPT, name, machine.up)
            elif machine.script != script:
                former = machine.script
                machine.reconfigure(script, now)
                effects += self._stop(name) if former.script != script.script else []
        for name, reason in unusable.items():
            if name not in self._unusable:
                effects.append(Log(f"VRRP_Script({name}) is not tracked: {reason}", Severity.WARNING))
            effects += self._observe(TrackerKind.SCRIPT, name, None)
        self._unusable = set(unusable)
        return effects

    def _stop(self, name: str) -> list[Effect]:
        run = self._run_of.pop(name, None)
        if run is None:
            return []
        del self._runs[run]
        return [StopScript(run)]

    def script_ended(self, run: int, reason: str, now: float) -> list[Effect]:
        """Process the result of a run; ``reason`` says why it failed, empty after a success."""
        name = self._runs.pop(run, None)
        if name is None:
            return []
        del self._run_of[name]
        verdict = self.scripts[name].receive(reason, now)
        return [] if verdict is None else [self._line(name, verdict), *self._observe(TrackerKind.SCRIPT, name, verdict.up)]

    @staticmethod
    def _line(name: str, verdict: Verdict) -> Log:
        if verdict.up:
            return Log(f"VRRP_Script({name}) succeeded")
        return Log(f"VRRP_Script({name}) failed ({verdict.reason})", Severity.WARNING)

    # -- files, processes and services -------------------------------------------------------------------------

    def file_read(self, name: str, number: int) -> list[Effect]:
        """Process the number in a file. A missing file counts as 0."""
        if not MIN_NUMBER <= number <= MAX_NUMBER:
            return [Log(f"track_file {name}: the number is out of range: ignored", Severity.WARNING)]
        return self._observe(TrackerKind.FILE, name, number)

    def _configure_processes(self, declared: tuple[TrackProcess, ...]) -> list[Effect]:
        former = {name: machine.process for name, machine in self.processes.items()}
        wanted = {process.name: process for process in declared}
        for name in former.keys() - wanted.keys():
            del self.processes[name]
        for name, process in wanted.items():
            if name not in former:
                self.processes[name] = ProcessMachine(process)
            elif former[name] != process:
                self.processes[name].reconfigure(process)
        return [WatchProcesses(declared)] if former != wanted else []

    def processes_counted(self, name: str, count: int, now: float) -> list[Effect]:
        """Process the number of processes of a kind."""
        machine = self.processes.get(name)
        return self._report_processes(machine) if machine is not None and machine.receive(count, now) else []

    def _report_processes(self, machine: ProcessMachine) -> list[Effect]:
        name, up = machine.process.name, bool(machine.up)
        first = (TrackerKind.PROCESS, name) not in self.observed
        line = f"Quorum {'gained' if up else 'lost'} for tracked process {name}: {machine.count} running"
        severity = Severity.INFO if up else Severity.WARNING
        return [*([] if first and up else [Log(line, severity)]), *self._observe(TrackerKind.PROCESS, name, up)]

    def service_changed(self, name: str, up: bool) -> list[Effect]:
        """Process whether a virtual server has its quorum; one that nothing tracks is ignored."""
        return self._observe(TrackerKind.SERVICE, name, up) if name in self._services else []

    def _observe(self, kind: TrackerKind, name: str, value: int | None) -> list[Effect]:
        key = (kind, name)
        if key in self.observed and self.observed[key] == value:
            return []
        self.observed[key] = None if value is None else int(value)
        return [Observation(kind, self.observed[key], name)]

    # -- time --------------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """Return when ``expire`` must be called next."""
        due = [script.deadline() for script in self.scripts.values()]
        due += [process.deadline() for process in self.processes.values()]
        return min((at for at in due if at is not None), default=None)

    def expire(self, now: float) -> list[Effect]:
        """Start the scripts that are due, and process the delays that are over."""
        effects: list[Effect] = []
        for name, script in self.scripts.items():
            due = script.deadline()
            if due is not None and due <= now:
                script.start(now)
                self._last_run += 1
                self._runs[self._last_run], self._run_of[name] = name, self._last_run
                effects.append(RunScript(name, self._last_run, script.script.script, script.script.timeout_s))
        for process in self.processes.values():
            if process.expire(now):
                effects += self._report_processes(process)
        return effects
