"""Mails with keepalived's subjects, on which people filter, and one sentence as the body."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from relevo import __version__
from relevo.model import Mail

MAX_SUBJECT: Final = 900
"""Longest subject in bytes: RFC 5322 §2.1.1 allows lines of 998."""

_POLICY: Final = SMTP.clone(max_line_length=998)
"""CRLF, and headers on one line as far as RFC 5322 allows: existing filters match whole subjects."""
_BODIES: Final = {
    "MASTER": "is now owning VRRP VIPs",
    "BACKUP": "is no longer owning VRRP VIPs",
    "FAULT": "is in fault: no longer owning VRRP VIPs",
    "STOP": "is stopping",
    "DELETED": "was removed by a reload",
}


@dataclass(frozen=True, slots=True)
class Alert:
    """Subject, without the label of the router, and body of a mail."""

    subject: str
    body: str


def vrrp_alert(kind: str, name: str, state: str, reason: str = "") -> Alert:
    """Return the alert for a transition of an instance or group; ``kind`` is ``Instance`` or ``Group``."""
    what = {"STOP": "Stopping", "DELETED": "Deleted"}.get(state, f"Entering {state} state")
    body = f"=> VRRP {kind} {_BODIES[state]} <="
    return Alert(f"VRRP {kind} {name} - {what}", f"{body}\n\nReason: {reason}" if reason else body)


def server_alert(service: str, server: str, up: bool, check: str, reason: str) -> Alert:
    """Return the alert for a real server."""
    checked = check.replace("_", " ")
    body = f"=> {checked} succeeded on service <=" if up else f"=> {checked} failed on service <="
    state = "UP" if up else "DOWN"
    return Alert(f"Realserver {server} of virtual server {service} - {state}", f"{body}\n\nReason: {reason}" if reason else body)


def quorum_alert(service: str, up: bool, quorum: int, hysteresis: int, weight: int) -> Alert:
    """Return the alert for a virtual server."""
    if up:
        return Alert(
            f"Virtualserver {service} - UP",
            f"=> Gained quorum {quorum}+{hysteresis}={quorum + hysteresis} <= {weight} <=",
        )
    return Alert(f"Virtualserver {service} - DOWN", f"=> Lost quorum {quorum}-{hysteresis}={quorum - hysteresis} > {weight} <=")


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
