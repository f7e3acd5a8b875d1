"""Notify scripts: one at a time, in the order of the events. ``host.run_command`` runs each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from relevo.errors import HostError
from relevo.host.run_command import CommandResult, not_started, prepare, run_command
from relevo.model import GlobalDefs, Script
from relevo.severity import Severity

MAX_WAITING: Final = 1000
"""Scripts that may wait for a slow one; further ones are dropped, logged and counted."""

Log = Callable[[str, int], None]


class Notifier:
    """A queue of scripts. ``failed`` counts those that were dropped, could not start, or did not exit with status 0."""

    def __init__(self, log: Log) -> None:
        self.failed = 0
        self._log = log
        self._globals = GlobalDefs()
        self._queue: asyncio.Queue[tuple[Script, tuple[str, ...]]] = asyncio.Queue(MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def configure(self, global_defs: GlobalDefs) -> None:
        """Use the script user, the time limit and ``enable_script_security`` of ``global_defs`` from now on."""
        self._globals = global_defs

    def run(self, script: Script | None, *arguments: str) -> None:
        """Queue a script; ``arguments`` follow its own."""
        if script is None:
            return
        try:
            self._queue.put_nowait((script, arguments))
        except asyncio.QueueFull:
            self.failed += 1
            self._log(f"script {script.argv[0]} not run: {MAX_WAITING} others are waiting", Severity.WARNING)
            return
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="notify scripts")

    async def flush(self, limit_s: float) -> None:
        """Wait until every queued script has run, at most ``limit_s``; then kill the one that runs."""
        if self._task is not None:
            _, running = await asyncio.wait({self._task}, timeout=limit_s)
            if running:
                self._task.cancel()
                await asyncio.wait(running)

    async def _work(self) -> None:
        while not self._queue.empty():
            script, arguments = self._queue.get_nowait()
            result = await self._run(script, arguments)
            if not result.succeeded:
                self.failed += 1
                self._log(f"script {script.argv[0]}: {result.reason}", Severity.WARNING)

    async def _run(self, script: Script, arguments: tuple[str, ...]) -> CommandResult:
        try:
            command = prepare(script, self._globals)
        except HostError as error:
            return not_started(str(error))
        argv = (*command.argv, *arguments)
        return await run_command(argv, limit_s=self._globals.script_timeout_s, identity=command.identity)
