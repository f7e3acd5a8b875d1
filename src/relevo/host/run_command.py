"""Runs one command: as a given user, in a session of its own, within a time limit, and never through a shell.

The callers decide which commands run, in which order, how many at once, and what a failure means to them.
"""

from __future__ import annotations

import asyncio
import enum
import grp
import os
import pwd
import signal
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

KILL_AFTER_S: Final = 2.0
"""Seconds between TERM and KILL, as keepalived gives its scripts."""
DEFAULT_USER: Final = "keepalived_script"
"""User of scripts that name none, where it exists (keepalived.conf(5), "script_user")."""


class Outcome(enum.StrEnum):
    """How a command ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed_out"
    NOT_STARTED = "not_started"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """``number`` is the exit status of EXITED and the signal of SIGNALLED, else 0; ``reason`` is empty after status 0."""

    outcome: Outcome
    number: int = 0
    reason: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the command exited with status 0."""
        return self.outcome is Outcome.EXITED and self.number == 0


@dataclass(frozen=True, slots=True)
class Identity:
    """User and group id of a command. It gets no supplementary groups."""

    uid: int
    gid: int


def find_identity(user: str, group: str = "") -> Identity | None:
    """Look up the identity of a command: ``user`` with ``group`` or else with the user's own group.

    Without ``user`` it is DEFAULT_USER, where there is one. ``None`` leaves the identity of this process, which only root can
    change. ``KeyError`` names a user or group that does not exist.
    """
    if os.geteuid() != 0:
        return None
    if not user:
        try:
            pwd.getpwnam(DEFAULT_USER)
        except KeyError:
            return None
        user = DEFAULT_USER
    entry = pwd.getpwnam(user)
    return Identity(entry.pw_uid, grp.getgrnam(group).gr_gid if group else entry.pw_gid)


async def run_command(argv: Sequence[str], *, limit_s: float, identity: Identity | None = None) -> CommandResult:
    """Run ``argv`` to its end; ``argv[0]`` is a path. Arguments reach the program as they are.

    Input and output are /dev/null. After ``limit_s`` seconds, or when the caller is cancelled, the session gets TERM and then
    KILL. Processes that the command leaves behind when it ends in time go on.
    """
    credentials: dict[str, Any] = {}
    if identity is not None:
        credentials = {"user": identity.uid, "group": identity.gid, "extra_groups": []}
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            **credentials,
        )
    except (OSError, ValueError) as error:  # ValueError: an argument has a NUL byte
        return not_started(getattr(error, "strerror", None) or str(error))
    return await _wait(process, limit_s)


def not_started(reason: str) -> CommandResult:
    """Return the result of a command that was not run."""
    return CommandResult(Outcome.NOT_STARTED, reason=f"not run: {reason}")


async def _wait(process: asyncio.subprocess.Process, limit_s: float) -> CommandResult:
    try:
        async with asyncio.timeout(limit_s):
            status = await process.wait()
    except TimeoutError:
        await _kill_session(process)
        return CommandResult(Outcome.TIMED_OUT, reason=f"killed: it ran longer than {limit_s:g} s")
    except asyncio.CancelledError:
        await asyncio.shield(_kill_session(process))
        raise
    if status < 0:
        return CommandResult(Outcome.SIGNALLED, -status, f"ended by signal {-status}")
    return CommandResult(Outcome.EXITED, status, f"exited with status {status}" if status else "")


async def _kill_session(process: asyncio.subprocess.Process) -> None:
    """Send TERM to a command and its children, then KILL, also where only the command itself has ended."""
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


def insecure(path: str, identity: Identity | None) -> str:
    """Return why others than root could change a command that runs as root; empty when they cannot, or it runs as another."""
    if os.geteuid() != 0 or (identity is not None and identity.uid != 0):
        return ""
    part = os.path.realpath(path)
    while True:
        try:
            found = os.stat(part)
        except OSError as error:
            return f"{part}: {error.strerror}"
        writable = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0)
        # Below a sticky directory of root's, such as /tmp, others cannot replace a file of root's.
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if found.st_uid != 0 or (writable and not sticky):
            return f"{part} can be written by others than root"
        if part == "/":
            return ""
        part = os.path.dirname(part)
