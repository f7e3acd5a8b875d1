"""What ipvsadm commands: the kernel's table, or that of a running daemon's plane."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from relevo.planes.ipvs.kernel import PROC, Kernel
from relevo.wire import ipvs_netlink as wire
from relevo.wire.ipvs_netlink import Command, Daemon, Destination, Identity, Info, Service, Timeouts
from relevo.wire.ipvs_proc import ConnectionLine, read_connections


class Table(Protocol):
    """A table of virtual services. What cannot be done is an ``OSError`` with the number that the kernel would give."""

    def info(self) -> Info:
        """Version and size."""
        ...

    def services(self) -> list[Service]:
        """Every service."""
        ...

    def service(self, identity: Identity) -> Service:
        """One service."""
        ...

    def destinations(self, identity: Identity) -> list[Destination]:
        """A service's servers, newest first."""
        ...

    def change_service(self, command: Command, service: Service) -> None:
        """Add (NEW_SERVICE), edit (SET_SERVICE) or delete (DEL_SERVICE) a service."""
        ...

    def change_destination(self, command: Command, identity: Identity, destination: Destination) -> None:
        """Add (NEW_DEST), edit (SET_DEST) or delete (DEL_DEST) a server."""
        ...

    def connections(self) -> Iterable[ConnectionLine]:
        """Connections and templates."""
        ...

    def timeouts(self) -> Timeouts:
        """Time-outs."""
        ...

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Change time-outs; 0 leaves one."""
        ...

    def daemons(self) -> list[Daemon]:
        """Synchronisation daemons."""
        ...

    def start_daemon(self, daemon: Daemon) -> None:
        """Start one."""
        ...

    def stop_daemon(self, daemon: Daemon) -> None:
        """Stop one, by its role."""
        ...

    def zero(self, identity: Identity | None) -> None:
        """Zero counters."""
        ...

    def flush(self) -> None:
        """Remove every service."""
        ...


class KernelTable:
    """IPVS of this network namespace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.info, self.services, self.service = kernel.info, kernel.services, kernel.service
        self.destinations, self.timeouts, self.daemons = kernel.destinations, kernel.timeouts, kernel.daemons
        self.set_timeouts, self.start_daemon = kernel.set_timeouts, kernel.start_daemon
        self.zero, self.flush = kernel.zero, kernel.flush

    def change_service(self, command: Command, service: Service) -> None:
        """Send it."""
        names_only = command == Command.DEL_SERVICE
        self._kernel.command(command, wire.name_service(service.identity) if names_only else wire.tell_service(service))

    def change_destination(self, command: Command, identity: Identity, destination: Destination) -> None:
        """Send it."""
        if command == Command.DEL_DEST:
            body = wire.name_destination(identity, destination.address, destination.port)
        else:
            body = wire.tell_destination(identity, destination)
        self._kernel.command(command, body)

    def connections(self) -> Iterable[ConnectionLine]:
        """Read the kernel's list."""
        with open(PROC / "ip_vs_conn", encoding="ascii", errors="replace") as file:
            yield from read_connections(file)

    def stop_daemon(self, daemon: Daemon) -> None:
        """Stop it."""
        self._kernel.stop_daemon(daemon.state)
