"""How the daemon's processes run: names, scheduling, memory, files, and scripts around them."""

from __future__ import annotations

import enum

import msgspec

from relevo.model.script import Script


class ProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one worker. ``None`` or an empty value leaves what the system gives.

    ``nice`` is -20..19, ``realtime_priority`` 1..99 (SCHED_RR), ``realtime_limit_us`` the CPU time between two waits.
    """

    name: str = ""
    nice: int | None = None
    realtime_priority: int | None = None
    realtime_limit_us: int | None = None
    no_swap: bool = False
    cpus: tuple[int, ...] = ()


class Processes(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the supervisor and its workers; they are read at the start of each process.

    ``instance`` tells several daemons of a machine apart; with it, with ``use_pid_dir`` or in a network namespace, the PID files
    of ``relevo-keepalived`` are in a folder of their own.
    """

    name: str = ""
    instance: str = ""
    use_pid_dir: bool = False
    director: ProcessSettings = ProcessSettings()
    balancer: ProcessSettings = ProcessSettings()
    umask: int | None = None
    net_namespace: str = ""
    child_wait_time_s: float = 5.0
    startup_script: Script | None = None
    startup_script_timeout_s: float = 10.0
    shutdown_script: Script | None = None
    shutdown_script_timeout_s: float = 10.0
    supplementary_groups: bool = False


class PlaneAtStop(enum.StrEnum):
    """State of the data plane after the daemon has stopped."""

    REMOVE = "remove"
    """Remove everything."""
    KEEP_CONNECTIONS = "keep_connections"
    """Take it out of service; a daemon that starts again continues its connections. SIGTERM does this."""
    KEEP = "keep"
    """Leave it in service without a daemon."""


class ReloadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When the configuration is reloaded by itself, and who can see that it is being read.

    ``time_file`` has the time of a reload; it is removed then, unless it has no date and ``repeat`` is set. ``marker`` is a file
    that exists while the configuration is read. Both are empty for none.
    """

    time_file: str = ""
    repeat: bool = False
    marker: str = ""


class NotifyFifo(msgspec.Struct, frozen=True, kw_only=True):
    """A pipe that gets a line for each event, and the script that reads it."""

    path: str = ""
    user: str = ""
    group: str = ""
    script: Script | None = None


class NotifyFifos(msgspec.Struct, frozen=True, kw_only=True):
    """The pipes of all events, of VRRP, and of virtual servers. ``states_on_reload`` repeats the states after a reload."""

    everything: NotifyFifo = NotifyFifo()
    vrrp: NotifyFifo = NotifyFifo()
    services: NotifyFifo = NotifyFifo()
    states_on_reload: bool = False
