"""Causes for which a virtual router enters FAULT, as values: the same cause compares equal wherever it was found."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class FaultKind(enum.StrEnum):
    """Kind of cause. The values are names in status and metrics; they do not change."""

    INTERFACE_DOWN = "interface_down"
    INTERFACE_UP = "interface_up"
    """An interface that is tracked in reverse is up."""
    INTERFACE_MISSING = "interface_missing"
    NO_SOURCE_ADDRESS = "no_source_address"
    """The interface has no address of its own, or the configured source address is not on this machine."""
    SOCKET = "socket"
    """The sockets for adverts cannot be opened."""
    SENDING = "sending"
    """Adverts cannot be sent to any destination."""
    SYNC_GROUP = "sync_group"
    """Another member of the sync group has a fault."""


_TEXTS = {
    FaultKind.INTERFACE_DOWN: "interface {subject} is down",
    FaultKind.INTERFACE_UP: "interface {subject} is up",
    FaultKind.INTERFACE_MISSING: "interface {subject} does not exist",
    FaultKind.NO_SOURCE_ADDRESS: "{subject}",
    FaultKind.SOCKET: "{subject}",
    FaultKind.SENDING: "adverts cannot be sent: {subject}",
    FaultKind.SYNC_GROUP: "another member of the sync group is in FAULT",
}


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One cause. ``subject`` is the name of the interface, or a text; for SOCKET and SENDING it is the system's reason."""

    kind: FaultKind
    subject: str = ""

    def __str__(self) -> str:
        return _TEXTS[self.kind].format(subject=self.subject)


GROUP_FAULT = Fault(FaultKind.SYNC_GROUP)
