"""Settings of the command line, and the part of a configuration that they ask for."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from relevo.model import Configuration, Trackers
from relevo.model.process import PlaneAtStop


class Part(enum.Enum):
    """Which part of a configuration a daemon runs."""

    ALL = "all"
    VRRP = "vrrp"
    SERVICES = "services"


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the command line.

    ``pid_files`` are by process (main, director, balancer). Without ``respawn`` the death of a worker is a stop.
    ``net_namespace`` comes before that of the file; ``facility`` is syslog's, empty for daemon.
    """

    file: str
    runtime: Path
    state: Path
    console: bool = True
    strict: bool = False
    config_id: str | None = None
    part: Part = Part.ALL
    pid_files: Mapping[str, Path] = field(default_factory=dict)
    at_stop: PlaneAtStop = PlaneAtStop.KEEP_CONNECTIONS
    respawn: bool = True
    net_namespace: str = ""
    facility: str = ""


def part_of(configuration: Configuration, options: Options) -> Configuration:
    """Return the part of a configuration that the command line asks for."""
    if options.net_namespace:
        processes = msgspec.structs.replace(configuration.global_defs.processes, net_namespace=options.net_namespace)
        global_defs = msgspec.structs.replace(configuration.global_defs, processes=processes)
        configuration = msgspec.structs.replace(configuration, global_defs=global_defs)
    match options.part:
        case Part.VRRP:
            return msgspec.structs.replace(configuration, virtual_servers=())
        case Part.SERVICES:
            return msgspec.structs.replace(configuration, vrrp_instances=(), sync_groups=(), trackers=Trackers())
        case Part.ALL:
            return configuration
