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
    SCRIPT_FAILED = "script_failed"
    SCRIPT_SUCCEEDED = "script_succeeded"
    """A script that is tracked in reverse succeeds; the next ones alike."""
    PROCESS_MISSING = "process_missing"
    PROCESS_RUNNING = "process_running"
    SERVICE_DOWN = "virtual_server_down"
    SERVICE_UP = "virtual_server_up"
    FILE = "file"
    """The number in a tracked file, times its weight, is -254 or less; without a weight it is not 0."""
    NO_SOURCE_ADDRESS = "no_source_address"
    """The interface has no address of its own, or the configured source address is not on this machine."""
    NO_PEER = "no_peer"
    """There is no unicast peer, and the instance must not use multicast."""
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
    FaultKind.SCRIPT_FAILED: "vrrp_script {subject} fails",
    FaultKind.SCRIPT_SUCCEEDED: "vrrp_script {subject} succeeds",
    FaultKind.PROCESS_MISSING: "vrrp_track_process {subject} has no quorum",
    FaultKind.PROCESS_RUNNING: "vrrp_track_process {subject} has its quorum",
    FaultKind.SERVICE_DOWN: "virtual server {subject} has no quorum",
    FaultKind.SERVICE_UP: "virtual server {subject} has its quorum",
    FaultKind.FILE: "the number in track_file {subject} means FAULT",
    FaultKind.NO_SOURCE_ADDRESS: "{subject}",
    FaultKind.NO_PEER: "no unicast_peer is named, and unicast_fault_no_peer is given",
    FaultKind.SOCKET: "{subject}",
    FaultKind.SENDING: "adverts cannot be sent: {subject}",
    FaultKind.SYNC_GROUP: "another member of the sync group is in FAULT",
}


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One cause. ``subject`` is the name of the interface or tracker, or a text: for SOCKET and SENDING the system's reason."""

    kind: FaultKind
    subject: str = ""

    def __str__(self) -> str:
        return _TEXTS[self.kind].format(subject=self.subject)


GROUP_FAULT = Fault(FaultKind.SYNC_GROUP)
