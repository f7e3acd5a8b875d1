"""Delivers queued mails in order to the configured mail server. It runs in the mail process."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import make_msgid, parseaddr

from relevo.alerts.compose import compose
from relevo.alerts.message import Alert
from relevo.alerts.spool import Spool
from relevo.errors import ConfigurationError
from relevo.machines.mail_queue import (
    Deliver,
    Effect,
    Failed,
    Forget,
    Input,
    MailQueueMachine,
    Postponed,
    Queued,
    Sent,
)
from relevo.model import Mail

Log = Callable[[str, int], None]
Password = Callable[[], Awaitable[str]]
_INFO, _WARNING = 6, 4


class Outbox:
    """The queue, its disk and its connection to the mail server.

    ``password`` returns that of the account at the mail server; ``ConfigurationError`` if it cannot be read. ``changed`` is
    called whenever the queue has changed.
    """

    def __init__(self, spool: Spool, log: Log, password: Password, changed: Callable[[], None] = lambda: None) -> None:
        self.spool = spool
        self.machine = MailQueueMachine()
        self.mail = Mail()
        self.router_id = ""
        self.delivered = 0
        self.dropped = 0
        self._log = log
        self._password = password
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._disk_errors = 0

    def configure(self, mail: Mail, router_id: str) -> None:
        """Use these recipients and this server from now on."""
        self.mail = mail
        self.router_id = router_id or socket.gethostname()

    def recover(self) -> None:
        """Queue the mails that a former run left."""
        found = self.spool.recover()
        if found:
            self._log(f"{len(found)} queued mails of a former run are sent now", _INFO)
        for number in found:
            self._receive(Queued(number))
        self._report_disk_error()

    def send(self, alert: Alert, at: float | None = None) -> None:
        """Queue an alert of the time ``at``, by default now: it is on disk then.

        Without recipients or a server nothing happens, as in keepalived.
        """
        if not self.mail.recipients or self.mail.server is None:
            return
        when = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
        domain = socket.gethostname() or "localhost"
        text = compose(alert, self.mail, self.router_id, self._sender(), when.astimezone(), make_msgid(domain=domain))
        number = self.spool.add(text)
        self._report_disk_error()
        self._receive(Queued(number))

    async def flush(self, limit_s: float) -> None:
        """Wait until all mails are sent, at most ``limit_s``; the rest stays on disk."""
        if self._timer is not None:
            self._timer.cancel()
            self._due()
        try:
            async with asyncio.timeout(limit_s):
                while self.machine.state.value == "sending" and self._task is not None:
                    await asyncio.wait({self._task})
        except TimeoutError:
            pass
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _sender(self) -> str:
        return self.mail.sender or f"relevo@{socket.gethostname() or 'localhost'}"

    def _report_disk_error(self) -> None:
        if self.spool.errors > self._disk_errors:
            self._disk_errors = self.spool.errors
            self._log(f"mail queue: {self.spool.last_error}; the mail is kept in memory", _WARNING)

    # -- driving the machine -----------------------------------------------------------------------------------

    def _receive(self, given: Input) -> None:
        self._execute(self.machine.receive(given, time.monotonic()))

    def _due(self) -> None:
        self._timer = None
        # A flush does not wait for the timer: it retries now.
        self._execute(self.machine.expire(max(time.monotonic(), self.machine.deadline() or 0.0)))

    def _execute(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Deliver(number=number):
                    self._task = asyncio.create_task(self._deliver(number), name=f"mail {number}")
                case Forget(number=number, delivered=delivered, reason=reason):
                    self.spool.remove(number)
                    if delivered:
                        self.delivered += 1
                        self._log("SMTP alert successfully sent.", _INFO)
                    else:
                        self.dropped += 1
                        self._log(f"SMTP alert dropped: {reason}", _WARNING)
                case Postponed(delay_s=delay_s, reason=reason):
                    self._log(
                        f"SMTP alert not sent ({reason}): trying again in {delay_s:g} s, {len(self.machine)} waiting",
                        _WARNING,
                    )
                    self._timer = asyncio.get_running_loop().call_later(delay_s, self._due)
        self._changed()

    async def _deliver(self, number: int) -> None:
        mail = self.spool.read(number)
        if mail is None:
            gone = not self.spool.holds(number)  # else a later read may succeed
            outcome: Input = Failed(number, self.spool.last_error or "the queued mail is gone", permanent=gone)
        else:
            outcome = await deliver(mail, number, self.mail, self._sender(), self._password)
        self._receive(outcome)


async def deliver(text: bytes, number: int, mail: Mail, sender: str, password: Password) -> Input:
    """Send one mail; return ``Sent`` or ``Failed``. A 5xx answer to the mail itself is permanent."""
    import aiosmtplib

    if mail.server is None:
        return Failed(number, "no smtp_server is configured any more", permanent=True)
    limit = mail.connect_timeout_s
    client = aiosmtplib.SMTP(
        hostname=mail.server.address,
        port=mail.server.port,
        timeout=limit,
        use_tls=mail.security == "tls",
        start_tls=mail.security == "starttls",
        local_hostname=mail.helo_name or None,
        validate_certs=mail.security != "none",
    )
    try:
        async with asyncio.timeout(limit * 4):
            await client.connect()
            if mail.user:
                await client.login(mail.user, await password())
            await client.sendmail(parseaddr(sender)[1], [parseaddr(r)[1] for r in mail.recipients], text)
            try:
                await client.quit()
            except (aiosmtplib.SMTPException, OSError):
                pass  # the server has accepted the mail
    except aiosmtplib.SMTPRecipientsRefused as error:
        answers = error.recipients
        permanent = bool(answers) and all(answer.code >= 500 for answer in answers)
        return Failed(number, "; ".join(f"{a.recipient}: {a.code} {a.message}" for a in answers), permanent)
    except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPDataError) as error:
        return Failed(number, f"{error.code} {error.message}", permanent=error.code >= 500)
    except (aiosmtplib.SMTPException, OSError, TimeoutError, ConfigurationError, ValueError) as error:
        return Failed(number, f"{mail.server}: {str(error) or 'no answer in time'}")
    finally:
        client.close()
    return Sent(number)
