"""Reading the configuration file, and findings that forbid its use."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from relevo.config import Compiled, Places, Severity, compile_text, exit_status, flatten
from relevo.host.files import read_configuration, read_included, surroundings
from relevo.model import Configuration, Trackers
from relevo.model.process import PlaneAtStop

BLOCKING: Final = (Severity.MISSING, Severity.FATAL)
"""Findings that forbid a start or reload."""


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


def compile_file(file: str, config_id: str | None = None, places: Places | None = None) -> Compiled:
    """Read and compile a configuration file; ``ConfigurationError`` if it cannot be read. ``config_id`` is for ``@id`` lines."""
    text, around = read_configuration(file), surroundings(file, config_id)
    return compile_text(text, file, read_included, places=places, surroundings=around)


def flat_text(file: str, config_id: str | None = None) -> str:
    """Return the text of a configuration file as it is read: with includes and definitions replaced."""
    return flatten(read_configuration(file), file, read_included, surroundings(file, config_id))


def blocking_problem(compiled: Compiled, *, strict: bool) -> str:
    """Return why a configuration must not be used, or an empty string.

    As in keepalived, unknown parts are left out, and a missing argument is fatal.
    """
    for finding in compiled.findings.in_order():
        if finding.severity in BLOCKING:
            return f"{finding.place}: {finding.message}"
    if strict and exit_status(compiled.findings):
        worst = compiled.findings.in_order()[0]
        return f"{worst.place}: {worst.message} (--strict)"
    return ""
