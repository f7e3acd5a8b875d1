"""Notify scripts: one after the other, in the order of the events, each with a time limit, never through a shell."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import signal
import stat
from collections.abc import Callable
from typing import Final

from relevo.model import GlobalDefs, Script
from relevo.severity import Severity

KILL_AFTER_S: Final = 2.0
"""Grace between TERM and KILL, as keepalived gives its scripts."""
MAX_WAITING: Final = 1000
"""Scripts that may wait for a slow one; further events are dropped and said so."""
DEFAULT_USER: Final = "keepalived_script"

Log = Callable[[str, int], None]


class Notifier:
    """Runs scripts in order."""

    def __init__(self, log: Log) -> None:
        self.failed = 0
        self._log = log
        self._globals = GlobalDefs()
        self._queue: asyncio.Queue[tuple[Script, tuple[str, ...]]] = asyncio.Queue(MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def configure(self, global_defs: GlobalDefs) -> None:
        """Use this identity, limit and caution from now on."""
        self._globals = global_defs

    def run(self, script: Script | None, *arguments: str) -> None:
        """Queue a script with further ``arguments`` behind its own."""
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
        """Wait until every queued script has run, or for ``limit_s``."""
        if self._task is not None:
            _, running = await asyncio.wait({self._task}, timeout=limit_s)
            if running:
                self._task.cancel()
                await asyncio.wait(running)

    async def _work(self) -> None:
        while not self._queue.empty():
            script, arguments = self._queue.get_nowait()
            error = await self._run(script, arguments)
            if error:
                self.failed += 1
                self._log(f"script {script.argv[0]}: {error}", Severity.WARNING)

    async def _run(self, script: Script, arguments: tuple[str, ...]) -> str:
        """Run one script; return an empty string or what went wrong."""
        try:
            identity = self._identity(script)
        except KeyError as error:
            return f"not run: no such user or group: {error}"
        if self._globals.enable_script_security and (danger := insecure(script.argv[0], identity)):
            return f"not run: {danger}"
        try:
            process = await asyncio.create_subprocess_exec(
                *script.argv,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                **identity,  # type: ignore[arg-type]
            )
        except (OSError, ValueError) as error:
            return f"not run: {getattr(error, 'strerror', None) or error}"
        return await self._wait(process)

    async def _wait(self, process: asyncio.subprocess.Process) -> str:
        limit = self._globals.script_timeout_s
        try:
            async with asyncio.timeout(limit):
                status = await process.wait()
        except TimeoutError:
            await _end(process)
            return f"killed: it ran longer than {limit:g} s"
        except asyncio.CancelledError:
            await asyncio.shield(_end(process))
            raise
        if status < 0:
            return f"ended by signal {-status}"
        return f"exited with status {status}" if status else ""

    def _identity(self, script: Script) -> dict[str, object]:
        if os.geteuid() != 0:
            return {}
        user = script.user or self._globals.script_user
        group = script.group or (self._globals.script_group if not script.user else "")
        if not user:
            try:
                pwd.getpwnam(DEFAULT_USER)
            except KeyError:
                return {}
            user = DEFAULT_USER
        entry = pwd.getpwnam(user)
        gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
        return {"user": entry.pw_uid, "group": gid, "extra_groups": []}


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a script and what it started: TERM to its session, then KILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            async with asyncio.timeout(KILL_AFTER_S):
                await process.wait()
        except TimeoutError:
            continue


def insecure(path: str, identity: dict[str, object]) -> str:
    """Say why a script that would run as root could be changed by others; empty when it could not."""
    if os.geteuid() != 0 or identity.get("user", 0) != 0:
        return ""
    part = os.path.realpath(path)
    while True:
        try:
            found = os.stat(part)
        except OSError as error:
            return f"{part}: {error.strerror}"
        writable = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0)
        # In a sticky directory of root's, as /tmp is, nobody can exchange what belongs to root.
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if found.st_uid != 0 or (writable and not sticky):
            return f"{part} can be written by others than root"
        if part == "/":
            return ""
        part = os.path.dirname(part)
