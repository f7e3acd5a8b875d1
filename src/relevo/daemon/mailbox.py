"""The supervisor's side of the mail process: alerts wait here until the process has them on disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from relevo.alerts.message import Alert
from relevo.daemon import mailer
from relevo.daemon.channel import AsyncChannel
from relevo.daemon.mailer import Count, Finish, FromMailer, Password, Post, Settings, Stored, WantPassword
from relevo.daemon.messages import LogLine
from relevo.errors import HostError
from relevo.host.files import read_password
from relevo.host.fork import fork, how_it_ended, kill
from relevo.model import Mail
from relevo.observe.snapshot import MailSnapshot
from relevo.severity import Severity
from relevo.wire.framing import Unreadable

MAX_UNSTORED: Final = 10_000
"""Alerts that wait for a mail process: as many as its queue takes."""
RESTART_S: Final = 5.0
"""Seconds before a mail process that died with alerts unstored is started again."""

Log = Callable[[str, int], None]


class Mailbox:
    """Starts the mail process when it is needed, and gives it the alerts. ``folder`` is that of the queue."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.router_id = ""
        self._folder = folder
        self._log = log
        self._mail = Mail()
        self._number = 0
        self._unstored: dict[int, Post] = {}
        self._lost = 0
        self._count = Count(0, 0, 0, "")
        self._delivered, self._dropped = 0, 0  # of processes that have ended
        self._process: _Process | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._stopping = False

    def configure(self, mail: Mail, router_id: str) -> None:
        """Use these recipients and this server from now on."""
        self._mail = mail
        self.router_id = router_id or socket.gethostname()
        if self._process is not None:
            self._process.channel.send(Settings(mail, self.router_id))

    def recover(self) -> None:
        """Send the mails that a former run left."""
        with contextlib.suppress(OSError):
            if any(name.endswith(".eml") for name in os.listdir(self._folder)):
                self._start()

    def send(self, alert: Alert) -> None:
        """Queue an alert; without recipients or a server nothing happens, as in keepalived."""
        if not self._mail.recipients or self._mail.server is None:
            return
        if len(self._unstored) >= MAX_UNSTORED:
            if not self._lost:
                self._log(
                    f"SMTP alert dropped: {MAX_UNSTORED} wait for the mail process; further ones are only counted", Severity.ERROR
                )
            self._lost += 1
            return
        self._number += 1
        post = Post(self._number, alert.subject, alert.body, time.time())
        self._unstored[post.number] = post
        if self._process is not None:
            self._process.channel.send(post)
        elif self._restart is None:
            self._start()

    async def flush(self, limit_s: float) -> None:
        """Wait until all mails are sent, at most ``limit_s`` seconds; the rest stays on disk."""
        if self._process is None and self._unstored:  # it died, and another would start later
            self._start()
        self._stopping = True
        process = self._process
        if process is None:
            return
        process.channel.send(Finish(limit_s))
        await asyncio.wait({process.task}, timeout=limit_s + 1.0)
        process.kill()

    def snapshot(self) -> MailSnapshot:
        """Return the state of the queue."""
        return MailSnapshot(
            waiting=len(self._unstored) + self._count.waiting,
            delivered=self._delivered + self._count.delivered,
            dropped=self._dropped + self._count.dropped + self._lost,
            last_error=self._count.last_error,
        )

    # -- the process --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._restart = None
        if self._stopping:
            return
        ours, theirs = socket.socketpair()
        pid = fork(lambda: mailer.serve(self._folder, theirs), "relevo-mail", [theirs.fileno()])
        theirs.close()
        channel: AsyncChannel[FromMailer] = AsyncChannel(ours, mailer.decode_from_mailer)
        channel.send(Settings(self._mail, self.router_id))
        for post in self._unstored.values():
            channel.send(post)
        self._process = _Process(pid, channel, asyncio.create_task(self._listen(channel), name="mail messages"))

    async def _listen(self, channel: AsyncChannel[FromMailer]) -> None:
        await channel.open()
        try:
            async for message in channel.messages():
                self._take(message, channel)
        except Unreadable as error:
            self._log(f"mail process: a message that is none ({error}): killed", Severity.ERROR)
            if self._process is not None:
                self._process.kill()
        channel.close()
        self._ended()

    def _take(self, message: FromMailer, channel: AsyncChannel[FromMailer]) -> None:
        match message:
            case Stored(number=number):
                self._unstored.pop(number, None)
            case Count():
                self._count = message
            case LogLine(text=text, severity=severity):
                self._log(text, severity)
            case WantPassword():
                channel.send(self._password())

    def _password(self) -> Password:
        if not self._mail.password_file:
            return Password()
        try:
            return Password(read_password(self._mail.password_file))
        except HostError as error:
            return Password(error=f"{error} ({error.hint})" if error.hint else str(error))

    def _ended(self) -> None:
        """Count what the process did; start another if alerts came while it ended, or if it died with mails waiting."""
        process, self._process = self._process, None
        assert process is not None
        status = process.reap()
        self._delivered += self._count.delivered
        self._dropped += self._count.dropped
        self._count = Count(self._count.waiting, 0, 0, self._count.last_error)
        if self._stopping:
            return
        if status == 0:  # nothing waited, and alerts may have come since
            if self._unstored:
                self._start()
            return
        self._log(f"mail process {how_it_ended(status)}: next try in {RESTART_S:g} s", Severity.ERROR)
        self._restart = asyncio.get_running_loop().call_later(RESTART_S, self._start)


class _Process:
    """The process, its channel and the task that listens to it."""

    def __init__(self, pid: int, channel: AsyncChannel[FromMailer], task: asyncio.Task[None]) -> None:
        self.pid = pid
        self.channel = channel
        self.task = task

    def kill(self) -> None:
        """Kill the process; ``reap`` follows."""
        kill(self.pid)

    def reap(self) -> int:
        """Wait for the process, whose channel has ended, and return its exit status; negative is a signal."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)
