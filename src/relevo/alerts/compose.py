"""Mails as RFC 5322 has them. Only the mail process imports this: the library for it is large."""

from __future__ import annotations

from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from relevo import __version__
from relevo.alerts.message import Alert
from relevo.model import Mail

MAX_SUBJECT: Final = 900
"""Longest subject in bytes: RFC 5322 §2.1.1 allows lines of 998."""

_POLICY: Final = SMTP.clone(max_line_length=998)
"""CRLF, and headers on one line as far as RFC 5322 allows: existing filters match whole subjects."""


def _quoted(address: str) -> str:
    """Return an address, its display name in quotes if that has a full stop: ``J. Doe`` is no phrase (RFC 5322 §3.2.5)."""
    name, _, rest = address.rpartition("<")
    name = name.strip()
    if "." not in name or name[0] == name[-1] == '"':
        return address
    return f'"{name}" <{rest}'


def compose(alert: Alert, mail: Mail, router_id: str, sender: str, when: datetime, message_id: str) -> bytes:
    """Return the mail as bytes with CRLF line ends. Line breaks in names become blanks, so that they cannot forge headers."""
    message = EmailMessage(policy=_POLICY)
    subject = f"[{router_id}] {alert.subject}"
    message["Date"] = format_datetime(when)
    message["From"] = _quoted(sender)
    message["To"] = ", ".join(map(_quoted, mail.recipients))
    message["Subject"] = "".join(c if c.isprintable() else " " for c in subject)[:MAX_SUBJECT]
    message["Message-ID"] = message_id
    message["X-Mailer"] = f"Relevo {__version__}"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(alert.body + "\n")
    return message.as_bytes()
