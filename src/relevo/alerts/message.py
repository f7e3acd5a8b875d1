"""Alerts with keepalived's subjects, on which people filter, and one sentence as the body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
