"""The mail process: it writes alerts to the queue on disk, and sends them. It has no privileges.

Alerts carry words of others (reasons that real servers give), mail servers are others' too, and the libraries for both are
large. The process is started for an alert, and ends when nothing has waited for a while.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Final

import msgspec

from relevo.alerts.message import Alert
from relevo.daemon import confinement
from relevo.daemon.channel import AsyncChannel
from relevo.daemon.messages import LogLine
from relevo.errors import ConfigurationError
from relevo.host.landlock import OWN, READ
from relevo.model import Mail
from relevo.severity import Severity
from relevo.wire.framing import decoder

IDLE_S: Final = 5.0
"""Seconds after which a process without a mail ends."""
CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables that name other certificates of authorities than the system's (OpenSSL)."""


# -- to the process ---------------------------------------------------------------------------------------------------


class Settings(msgspec.Struct, frozen=True, tag=True):
    """The mail server, the recipients, and the name of this router. The first message."""

    mail: Mail
    router_id: str


class Post(msgspec.Struct, frozen=True, tag=True):
    """An alert of the time ``at``, in seconds since 1970. ``number`` comes back in ``Stored``."""

    number: int
    subject: str
    body: str
    at: float


class Password(msgspec.Struct, frozen=True, tag=True):
    """Answer to ``WantPassword``: the password, or why it cannot be read."""

    text: str = ""
    error: str = ""


class Finish(msgspec.Struct, frozen=True, tag=True):
    """Send what can be sent within ``limit_s`` seconds, and end; the rest stays on disk."""

    limit_s: float


ToMailer = Settings | Post | Password | Finish


# -- from the process -------------------------------------------------------------------------------------------------


class Stored(msgspec.Struct, frozen=True, tag=True):
    """The alert is on disk, or in the queue of a disk that cannot be written to."""

    number: int


class Count(msgspec.Struct, frozen=True, tag=True):
    """The queue, and what became of mails since this process started."""

    waiting: int
    delivered: int
    dropped: int
    last_error: str


class WantPassword(msgspec.Struct, frozen=True, tag=True):
    """The password is needed; only the supervisor can read its file."""


FromMailer = Stored | Count | WantPassword | LogLine

decode_to_mailer = decoder(ToMailer)
decode_from_mailer = decoder(FromMailer)


def serve(folder: Path, sock: socket.socket) -> None:
    """Run the process; ``folder`` is the queue's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    confinement.give(confinement.MAIL, folder, *folder.iterdir())
    os.chdir(folder)  # a relative path needs no right in the folders above
    certificates = ((Path(path), READ) for name in CERTIFICATES if (path := os.environ.get(name)))
    refused = confinement.confine(confinement.MAIL, ((folder, OWN), *certificates))
    channel: AsyncChannel[ToMailer] = AsyncChannel(sock, decode_to_mailer)
    for each in refused:
        channel.send(LogLine(each, Severity.WARNING))
    asyncio.run(Mailer(channel).run())


class Mailer:
    """Connects the channel and the queue."""

    def __init__(self, channel: AsyncChannel[ToMailer]) -> None:
        from relevo.alerts.outbox import Outbox
        from relevo.alerts.spool import Spool

        self.channel = channel
        self.outbox = Outbox(Spool(Path()), self._log, self._password, self._report)
        self._passwords: asyncio.Queue[Password] = asyncio.Queue()
        self._used_at = 0.0
        self._finishing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Run until the supervisor has ended, or nothing has waited for ``IDLE_S``."""
        await self.channel.open()
        clock = asyncio.get_running_loop().time
        self._used_at = clock()
        listening = asyncio.create_task(self._listen(), name="messages")
        while not listening.done():
            unused_s = clock() - self._used_at
            if not len(self.outbox.machine) and unused_s >= IDLE_S:
                listening.cancel()
                break
            await asyncio.wait({listening}, timeout=max(1.0, IDLE_S - unused_s))
        await self.channel.drain()

    async def _listen(self) -> None:
        recovered = False
        async for message in self.channel.messages():
            self._used_at = asyncio.get_running_loop().time()
            match message:
                case Settings(mail=mail, router_id=router_id):
                    self.outbox.configure(mail, router_id)
                    if not recovered:
                        self.outbox.recover()
                        recovered = True
                case Post(number=number, subject=subject, body=body, at=at):
                    self.outbox.send(Alert(subject, body), at)
                    self.channel.send(Stored(number))
                case Password():
                    self._passwords.put_nowait(message)
                case Finish(limit_s=limit_s):
                    # Its delivery may need the password: go on listening meanwhile.
                    self._finishing = asyncio.create_task(self._finish(limit_s), name="finish")

    async def _finish(self, limit_s: float) -> None:
        await self.outbox.flush(limit_s)
        self._report()
        await self.channel.drain()
        self.channel.close()

    def _report(self) -> None:
        box = self.outbox
        self.channel.send(Count(len(box.machine), box.delivered, box.dropped, box.machine.last_error))

    def _log(self, text: str, severity: int) -> None:
        self.channel.send(LogLine(text, Severity(severity)))

    async def _password(self) -> str:
        self.channel.send(WantPassword())
        answer = await self._passwords.get()
        if answer.error:
            raise ConfigurationError(answer.error)
        return answer.text
