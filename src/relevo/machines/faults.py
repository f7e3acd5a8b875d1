"""Why a virtual router must not be master: causes as values, so that the same cause is the same wherever it was found."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class FaultKind(enum.StrEnum):
    """What is wrong. The values are names in status and metrics; they do not change."""

    INTERFACE_DOWN = "interface_down"
    INTERFACE_UP = "interface_up"
    """An interface that is tracked in reverse is up."""
    INTERFACE_MISSING = "interface_missing"
    NO_SOURCE_ADDRESS = "no_source_address"
    """The interface has no address of its own, or the configured source address is not on this machine."""
    SOCKET = "socket"
    """The sockets for adverts cannot be opened."""
    SENDING = "sending"
    """Adverts cannot be sent to anybody."""
    SYNC_GROUP = "sync_group"
    """Another member of the sync group is at fault."""


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
    """One cause; ``subject`` names what is affected or, for sockets and sending, quotes the system's reason."""

    kind: FaultKind
    subject: str = ""

    def __str__(self) -> str:
        return _TEXTS[self.kind].format(subject=self.subject)


GROUP_FAULT = Fault(FaultKind.SYNC_GROUP)
