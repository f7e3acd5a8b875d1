"""Trackers: what is observed beside VRRP itself, and how it counts for an instance (keepalived.conf(5), "track_…")."""

from __future__ import annotations

import enum

import msgspec

from relevo.model.script import Script

MAX_QUORUM = 65_535
"""Largest number of processes that ``quorum`` and ``quorum_max`` can name."""


class TrackerKind(enum.StrEnum):
    """Kinds of sources. The values are names in status and metrics; they do not change."""

    INTERFACE = "interface"
    SCRIPT = "script"
    FILE = "file"
    PROCESS = "process"
    SERVICE = "virtual_server"


class Tracked(msgspec.Struct, frozen=True):
    """One line of a ``track_…`` block: weight 0 means FAULT while the source is bad, any other changes the priority."""

    kind: TrackerKind
    name: str
    weight: int = 0
    reverse: bool = False


class VrrpScript(msgspec.Struct, frozen=True, kw_only=True):
    """A command that runs every ``interval_s``; ``rise`` successes or ``fall`` failures in a row change its verdict."""

    name: str
    script: Script
    interval_s: float = 1.0
    timeout_s: float = 1.0
    rise: int = 1
    fall: int = 1
    init_fail: bool = False


class TrackFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file with a number. ``init_value`` is written at a start if the file is missing, or always with ``init_overwrite``."""

    name: str
    path: str
    init_value: int | None = None
    init_overwrite: bool = False


class ParameterMatch(enum.StrEnum):
    """How the parameters of a process are compared with those of ``process``."""

    ANY = "any"
    EXACT = "exact"
    INITIAL = "initial"
    """The process has these parameters and perhaps more; the last one may be longer."""
    PARTIAL = "partial"
    """The process has these parameters, whole, and perhaps more."""


class TrackProcess(msgspec.Struct, frozen=True, kw_only=True):
    """Processes of a name: good while ``quorum`` to ``quorum_max`` of them run.

    With ``full_command`` the name is the first word of the command line, else the short name of the process (proc(5), "comm").
    The delays apply to a change after a process began or ended.
    """

    name: str
    process: str
    parameters: tuple[str, ...] = ()
    match: ParameterMatch = ParameterMatch.ANY
    full_command: bool = False
    quorum: int = 1
    quorum_max: int = MAX_QUORUM
    fork_delay_s: float = 0.0
    terminate_delay_s: float = 0.0


class Trackers(msgspec.Struct, frozen=True, kw_only=True):
    """All sources that the configuration declares."""

    scripts: tuple[VrrpScript, ...] = ()
    files: tuple[TrackFile, ...] = ()
    processes: tuple[TrackProcess, ...] = ()
