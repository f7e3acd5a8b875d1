"""States, inputs, effects and transitions of synchronisation with another director that shares the key."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from relevo.machines.machine import Rule
from relevo.wire.sync_messages import Message


class State(enum.StrEnum):
    """What this node knows of another director. The values appear in status."""

    UNVERIFIED = "unverified"
    """It has not named our session yet, so its messages may be replayed ones."""
    PEER = "peer"
    """Verified, and not a master: it has no connections that we need."""
    SYNCING = "syncing"
    """A master, some of whose connections may be missing here."""
    SYNCED = "synced"
    """A master, all of whose connections are here."""


class Symbol(enum.StrEnum):
    """Columns of the transition table: messages, classified, and the change of this node's own role."""

    HELLO_UNVERIFIED = "hello_unverified"
    """It does not name our session."""
    HELLO_PEER = "hello_peer"
    HELLO_CURRENT = "hello_current"
    """From a master, all of whose messages of entries have been received."""
    HELLO_LAG = "hello_lag"
    """From a master that has sent more messages of entries than have been received."""
    ENTRIES = "entries"
    RESYNC_REQUEST = "resync_request"
    RESYNC_COMPLETE = "resync_complete"
    RESYNC_GAP = "resync_gap"
    """The resync has ended, and some of its messages are late or lost."""
    BECAME_BACKUP = "became_backup"
    """This node imports entries from now on; those sent before are missing here."""


_U, _P, _M, _Y = State.UNVERIFIED, State.PEER, State.SYNCING, State.SYNCED

TRANSITIONS: Final = {
    # State: UNVERIFIED. Only hellos count. Our reply names our session, which the director names in turn to be verified.
    (_U, Symbol.HELLO_UNVERIFIED): Rule("_reply_hello", (_U,)),
    (_U, Symbol.HELLO_PEER): Rule("_accept_peer", (_P,)),
    (_U, Symbol.HELLO_CURRENT): Rule("_accept_master", (_M,)),
    (_U, Symbol.HELLO_LAG): Rule("_accept_master", (_M,)),
    (_U, Symbol.ENTRIES): Rule("_refuse", (_U,)),
    (_U, Symbol.RESYNC_REQUEST): Rule("_refuse", (_U,)),
    (_U, Symbol.RESYNC_COMPLETE): Rule("_refuse", (_U,)),
    (_U, Symbol.RESYNC_GAP): Rule("_refuse", (_U,)),
    (_U, Symbol.BECAME_BACKUP): Rule("_ignore", (_U,)),
    # State: PEER.
    (_P, Symbol.HELLO_UNVERIFIED): Rule("_reply_hello", (_U,)),
    (_P, Symbol.HELLO_PEER): Rule("_ignore", (_P,)),
    (_P, Symbol.HELLO_CURRENT): Rule("_accept_master", (_M,)),
    (_P, Symbol.HELLO_LAG): Rule("_accept_master", (_M,)),
    (_P, Symbol.ENTRIES): Rule("_import", (_P,)),
    (_P, Symbol.RESYNC_REQUEST): Rule("_serve_resync", (_P,)),
    (_P, Symbol.RESYNC_COMPLETE): Rule("_ignore", (_P,)),
    (_P, Symbol.RESYNC_GAP): Rule("_ignore", (_P,)),
    (_P, Symbol.BECAME_BACKUP): Rule("_ignore", (_P,)),
    # State: SYNCING. A resync is requested or about to be; entries are imported meanwhile.
    (_M, Symbol.HELLO_UNVERIFIED): Rule("_reply_hello", (_U,)),
    (_M, Symbol.HELLO_PEER): Rule("_accept_peer", (_P,)),
    (_M, Symbol.HELLO_CURRENT): Rule("_wait_or_request", (_M, _Y)),
    (_M, Symbol.HELLO_LAG): Rule("_wait_or_request", (_M,)),
    (_M, Symbol.ENTRIES): Rule("_import", (_M, _Y)),
    (_M, Symbol.RESYNC_REQUEST): Rule("_serve_resync", (_M,)),
    (_M, Symbol.RESYNC_COMPLETE): Rule("_complete_resync", (_Y,)),
    (_M, Symbol.RESYNC_GAP): Rule("_ignore", (_M,)),
    (_M, Symbol.BECAME_BACKUP): Rule("_restart", (_M,)),
    # State: SYNCED. Messages may be reordered, so a gap may still close; a resync is requested if the next hello shows it again.
    (_Y, Symbol.HELLO_UNVERIFIED): Rule("_reply_hello", (_U,)),
    (_Y, Symbol.HELLO_PEER): Rule("_accept_peer", (_P,)),
    (_Y, Symbol.HELLO_CURRENT): Rule("_ignore", (_Y,)),
    (_Y, Symbol.HELLO_LAG): Rule("_lose_sync", (_M,)),
    (_Y, Symbol.ENTRIES): Rule("_import", (_Y,)),
    (_Y, Symbol.RESYNC_REQUEST): Rule("_serve_resync", (_Y,)),
    (_Y, Symbol.RESYNC_COMPLETE): Rule("_acknowledge", (_Y,)),
    (_Y, Symbol.RESYNC_GAP): Rule("_ignore", (_Y,)),
    (_Y, Symbol.BECAME_BACKUP): Rule("_restart", (_M,)),
}
"""(state of a director, symbol) → action and possible next states."""


class PeerRefusal(enum.StrEnum):
    """Why an authenticated message was refused. The values appear in status and metrics, so they are stable."""

    UNVERIFIED = "unverified"
    REPLAYED = "replayed"
    SYNC_ID = "sync_id"
    TOO_MANY = "too_many_peers"


# -- inputs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """An authenticated message from the address ``source``."""

    message: Message
    source: str


@dataclass(frozen=True, slots=True)
class SetRoles:
    """As ``master`` this node sends its connections, as ``backup`` it imports those of others. It may be both or neither."""

    master: bool
    backup: bool


@dataclass(frozen=True, slots=True)
class SendEntries:
    """Send an IPVS sync message."""

    ipvs_message: bytes


@dataclass(frozen=True, slots=True)
class PrepareHandover:
    """Another director is about to take over: send it every connection that it may lack."""


@dataclass(frozen=True, slots=True)
class SyncComplete:
    """The sync that ``StartSync`` began has ended; ``done`` is false when it failed."""

    done: bool = True


Input = MessageReceived | SetRoles | SendEntries | PrepareHandover | SyncComplete


# -- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Authenticate and send a message."""

    message: Message


@dataclass(frozen=True, slots=True)
class Import:
    """Import the entries of an IPVS sync message, from a verified director."""

    ipvs_message: bytes


@dataclass(frozen=True, slots=True)
class StartSync:
    """Send the connections of the table with ``SendEntries``, then report ``SyncComplete``.

    ``full``: all of them, else only those not sent yet, or so long ago that the other directors would drop them much sooner.
    ``half_open``: those that are not established yet too, for a hand-over.
    """

    full: bool
    half_open: bool

    def merge(self, other: StartSync | None) -> StartSync:
        """Return a sync that covers both."""
        return self if other is None else StartSync(self.full or other.full, self.half_open or other.half_open)


@dataclass(frozen=True, slots=True)
class InSync:
    """Whether this node has all connections of all masters; emitted when that changes."""

    in_sync: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A message was refused."""

    reason: PeerRefusal


Effect = Send | Import | StartSync | InSync | Refused
