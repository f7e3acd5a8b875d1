"""Mail servers for tests: aiosmtpd's, in the test's own loop, and ones that follow a script of the test's."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from relevo.alerts.outbox import Outbox
from relevo.alerts.spool import Spool
from relevo.host.configuration_file import read_configuration
from relevo.model import Endpoint, Mail

ADDRESS = "127.0.0.1"


class Inbox:
    """Accepts mails; ``refuse`` has the answers to the next ones, by subject or for any mail."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.raw: list[bytes] = []
        self.envelopes: list[Envelope] = []
        self.sessions: list[Session] = []
        self.answers: list[str] = []
        self.by_subject: dict[str, str] = {}
        self.at_rcpt: list[str] = []
        self.at_mail: list[str] = []

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if self.at_mail:
            return self.at_mail.pop(0)
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if self.at_rcpt:
            return self.at_rcpt.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        subject = str(email.message_from_bytes(content, policy=email.policy.default)["Subject"])
        if self.answers:
            return self.answers.pop(0)
        if subject in self.by_subject:
            return self.by_subject[subject]
        self.subjects.append(subject)
        self.raw.append(content)
        self.envelopes.append(envelope)
        self.sessions.append(session)
        return "250 OK"


@contextlib.asynccontextmanager
async def mail_server(inbox: Inbox, port: int = 0, **options: object) -> AsyncIterator[Endpoint]:
    """aiosmtpd with ``inbox`` behind it."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(inbox, hostname="mail.test", loop=loop, **options),  # type: ignore[arg-type]
        ADDRESS,
        port,
        reuse_address=True,
    )
    try:
        yield Endpoint(*server.sockets[0].getsockname())
    finally:
        server.close()


@contextlib.asynccontextmanager
async def scripted_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object],
) -> AsyncIterator[Endpoint]:
    """A server that does what ``serve`` does with every connection."""
    tasks = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await serve(reader, writer)  # type: ignore[misc]
        writer.close()

    server = await asyncio.start_server(run, ADDRESS, 0)
    try:
        yield Endpoint(*server.sockets[0].getsockname())
    finally:
        server.close()
        for task in tasks:
            task.cancel()


def authenticator(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword) -> AuthResult:
    """Only the user ``relevo`` with the password ``secret`` may send."""
    return AuthResult(success=(data.login, data.password) == (b"relevo", b"secret"), handled=False)


def server_tls(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class Log:
    """Log lines of the outbox."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int]] = []

    def __call__(self, text: str, level: int) -> None:
        self.lines.append((text, level))

    @property
    def text(self) -> str:
        return "\n".join(line for line, _ in self.lines)


def outbox(folder: Path, server: Endpoint | None, **mail: object) -> tuple[Outbox, Log]:
    """An outbox to ``server`` with a patience of seconds."""
    log = Log()

    async def password() -> str:
        return read_configuration(file).rstrip("\r\n") if (file := str(mail.get("password_file", ""))) else ""

    made = Outbox(Spool(folder), log, password)
    made.spool.recover()
    made.configure(settings(server, **mail), "LVS_1")
    return made, log


async def no_password() -> str:
    return ""


def settings(server: Endpoint | None, **mail: object) -> Mail:
    known: dict[str, object] = {"recipients": ("admin@example.com",), "sender": "relevo@example.com", "connect_timeout_s": 2.0}
    return Mail(server=server, **{**known, **mail})  # type: ignore[arg-type]


async def until(check: Callable[[], object], what: str, limit_s: float = 5.0) -> None:
    """Poll until ``check`` is true."""
    ends = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < ends, f"not within {limit_s:g} s: {what}"
        await asyncio.sleep(0.005)
