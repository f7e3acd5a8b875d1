"""Runs the commands of MISC_CHECK for the balancer, which may not: it names a check, and the file says what that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from relevo.daemon.messages import CancelCheck, RunCheck, ScriptEnded
from relevo.errors import HostError
from relevo.host.run_command import Command, CommandResult, Outcome, prepare, problem_of, run_command
from relevo.model import Configuration, Script
from relevo.model.checks import MiscCheck
from relevo.model.diff import check_names
from relevo.severity import Severity

STARTS_AT_ONCE: Final = 4
"""Commands that are started before the supervisor does other things."""
EACH_RUNS: Final = 2
"""Commands of a check at the same time: one may be ending because a reload has changed its check."""
MAX_RUNNING: Final = 256
"""Commands that run at the same time; further ones wait."""


class CheckScripts:
    """Runs commands; ``send`` gets the answers for the balancer, ``log`` the lines."""

    def __init__(self, send: Callable[[ScriptEnded], None], log: Callable[[str, int], None]) -> None:
        self._send = send
        self._log = log
        self._defaults = Configuration().global_defs
        self._checks: dict[tuple[str, str, int], MiscCheck] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._starting = asyncio.Semaphore(STARTS_AT_ONCE)
        self._slots = asyncio.Semaphore(MAX_RUNNING)
        self._complained: set[Script] = set()

    def configure(self, configuration: Configuration) -> None:
        """Use the checks of a configuration from now on."""
        self._defaults = configuration.global_defs
        self._complained.clear()
        self._checks = {
            (service.name, str(server.endpoint), name[1]): check
            for service in configuration.virtual_servers
            for server in service.real_servers
            for name, check in check_names(server)
            if isinstance(check, MiscCheck)
        }

    def handle(self, wanted: RunCheck | CancelCheck) -> None:
        """Run the command of a check once, or end one whose result nobody needs."""
        if isinstance(wanted, CancelCheck):
            if wanted.number in self._running:
                self._running[wanted.number].cancel()
            return
        check = self._checks.get((wanted.service, wanted.server, wanted.check))
        if check is None:  # a reload has just removed it
            self._send(ScriptEnded(wanted.number, None, "there is no such check"))
            return
        if len(self._running) >= EACH_RUNS * len(self._checks):  # a balancer that has been broken into
            self._send(ScriptEnded(wanted.number, None, "too many commands run"))
            return
        self._running[wanted.number] = asyncio.create_task(self._run(wanted.number, check), name=f"check {wanted.server}")

    def cancel_all(self) -> None:
        """End all commands: the balancer that wanted them has died, and the next one counts anew."""
        for task in self._running.values():
            task.cancel()
        self._running.clear()

    async def stop(self) -> None:
        """End all commands, and wait until they have ended."""
        running = list(self._running.values())
        self.cancel_all()
        if running:
            await asyncio.wait(running)

    async def _run(self, number: int, check: MiscCheck) -> None:
        try:
            command = self._prepared(check.script)
            if command is None:
                self._send(ScriptEnded(number, None, "it cannot run"))
                return
            async with self._slots:
                result = await run_command(
                    command.argv, limit_s=check.timeout_s, identity=command.identity, starting=self._starting
                )
        finally:
            if self._running.get(number) is asyncio.current_task():
                del self._running[number]
        self._send(_answer(number, result))

    def _prepared(self, script: Script) -> Command | None:
        """Return what to run; ``None`` if that cannot be run, which is said once."""
        try:
            command = prepare(script, self._defaults)
            problem = problem_of(command)
        except HostError as error:
            problem = str(error)
        if not problem:
            return command
        if script not in self._complained:
            self._complained.add(script)
            text = f"MISC_CHECK cannot run: {problem}. Its servers count as up, as in keepalived"
            self._log(text, Severity.WARNING)
        return None


def _answer(number: int, result: CommandResult) -> ScriptEnded:
    match result.outcome:
        case Outcome.EXITED:
            return ScriptEnded(number, result.number, result.reason)
        case Outcome.NOT_STARTED:
            return ScriptEnded(number, None, result.reason)
        case _:
            return ScriptEnded(number, -1, result.reason)
