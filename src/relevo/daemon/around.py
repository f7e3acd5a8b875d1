"""What the daemon does around its workers: its own settings, scripts at start and stop, the rules of ``no_accept``."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from relevo.errors import HostError
from relevo.host import firewall, libc, track_processes
from relevo.host.files import write_pid_file
from relevo.host.run_command import prepare, run_command
from relevo.model import Configuration, Script
from relevo.severity import Severity

NETWORK_NAMESPACES = "/run/netns"
"""Where ip-netns(8) keeps namespaces by name."""

Log = Callable[[str, int], None]


def enter(configuration: Configuration) -> socket.socket | None:
    """Enter the network namespace, set the mask and the name of this process; ``HostError`` if the namespace is not there.

    Return the process connector of the former namespace, ``None`` if the daemon stays in it.
    """
    processes = configuration.global_defs.processes
    opened = None
    if processes.net_namespace:
        opened = track_processes.connector()
        path = os.path.join(NETWORK_NAMESPACES, processes.net_namespace)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc.setns(descriptor, libc.CLONE_NEWNET)
            finally:
                os.close(descriptor)
        except OSError as error:
            what = f"cannot enter the network namespace {processes.net_namespace}: {error.strerror}"
            raise HostError(what, hint=f"ip netns add {processes.net_namespace}") from error
    if processes.umask is not None:
        os.umask(processes.umask)
    if processes.name:
        libc.set_process_name(processes.name)
    return opened


def fixed_setting(former: Configuration, new: Configuration) -> str:
    """Return the setting that a reload cannot change, empty if all of those are the same."""
    for name in ("net_namespace", "instance"):
        if getattr(former.global_defs.processes, name) != getattr(new.global_defs.processes, name):
            return f"{name} cannot change while running; restart instead"
    return ""


class Around:
    """Runs the scripts and sets the rules."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._configuration = Configuration()
        self._local: frozenset[str] = frozenset()
        self._dropped: frozenset[str] = frozenset()
        self._changing = asyncio.Lock()

    async def run(self, script: Script | None, configuration: Configuration, limit_s: float) -> None:
        """Run a script to its end, if there is one."""
        if script is None:
            return
        try:
            command = prepare(script, configuration.global_defs)
        except HostError as error:
            self._log(f"script {script.argv[0]}: not run: {error}", Severity.WARNING)
            return
        result = await run_command(command.argv, limit_s=limit_s, identity=command.identity)
        if not result.succeeded:
            self._log(f"script {script.argv[0]}: {result.reason}", Severity.WARNING)

    def write_pid(self, file: Path | None, pid: int) -> None:
        """Write a PID file, if there is one."""
        if file is None:
            return
        try:
            write_pid_file(file, pid)
        except HostError as error:
            self._log(str(error), Severity.ERROR)

    async def match_firewall(self, configuration: Configuration, local: frozenset[str] | None) -> None:
        """Drop packets for the addresses of ``no_accept`` instances while they are on this node."""
        self._configuration, self._local = configuration, local or frozenset()
        async with self._changing:
            wanted = self._wanted()
            if wanted == self._dropped:
                return
            self._dropped = wanted
            problem = await firewall.apply(self._configuration.global_defs.firewall, wanted)
            if problem:
                self._log(f"no_accept: {problem}", Severity.ERROR)

    def _wanted(self) -> frozenset[str]:
        instances = (each for each in self._configuration.vrrp_instances if not each.accept)
        addresses = (a.address for i in instances for a in (*i.addresses, *i.excluded_addresses))
        return frozenset(address for address in addresses if address in self._local)
