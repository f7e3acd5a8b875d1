"""The commands of the kernel's IPVS: one method for each, with the records of ``wire.ipvs_netlink``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from relevo.errors import HostError, PlaneError
from relevo.host import modules
from relevo.host.generic_netlink import GenericNetlink
from relevo.wire import ipvs_netlink as wire
from relevo.wire.ipvs_netlink import Command, Daemon, Destination, Identity, Info, Service, Timeouts
from relevo.wire.netlink import Fault, Malformed

PROC: Final = Path("/proc/thread-self/net")
"""The files of this thread's network namespace; ``/proc/net`` is that of the process's first thread."""
SYSCTLS: Final = Path("/proc/sys/net/ipv4/vs")
MODULE: Final = "ip_vs"
UNANSWERED_S: Final = 1.0
"""How long ``stop_daemon`` waits for an answer that the kernel may not send."""


class Kernel:
    """IPVS of this network namespace. ``PlaneError`` when the kernel has none; commands raise ``OSError``."""

    def __init__(self) -> None:
        try:
            self._netlink = _connect()
        except HostError as error:
            raise PlaneError(str(error), hint=f"modprobe {MODULE}, or choose another data_plane") from error

    def services(self) -> list[Service]:
        """Return every service, in the kernel's order."""
        return [wire.read_service(body) for body in self._netlink.dump(Command.GET_SERVICE)]

    def service(self, identity: Identity) -> Service:
        """Return one service; ``OSError`` ESRCH when there is none."""
        return wire.read_service(self._answer(Command.GET_SERVICE, wire.encode_service_key(identity)))

    def destinations(self, identity: Identity) -> list[Destination]:
        """Return a service's servers, newest first; none for a missing service."""
        found = self._netlink.dump(Command.GET_DEST, wire.encode_service_key(identity))
        return [wire.read_destination(body, identity.family) for body in found]

    def daemons(self) -> list[Daemon]:
        """Return the synchronisation daemons that run."""
        return [wire.read_daemon(body) for body in self._netlink.dump(Command.GET_DAEMON)]

    def timeouts(self) -> Timeouts:
        """Return the three time-outs."""
        return wire.read_timeouts(self._answer(Command.GET_CONFIG))

    def info(self) -> Info:
        """Return version and table size."""
        return wire.read_info(self._answer(Command.GET_INFO))

    def change(self, wanted: Sequence[tuple[int, bytes]]) -> list[int]:
        """Send commands with attributes; return the error number of each, 0 for done."""
        return self._netlink.change(wanted)

    def command(self, command: Command, body: bytes) -> None:
        """Send one command with attributes; ``OSError`` with the kernel's reason."""
        self._netlink.ask(command, body)

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Change time-outs; 0 leaves one as it is."""
        self._netlink.ask(Command.SET_CONFIG, wire.encode_timeouts(timeouts))

    def start_daemon(self, daemon: Daemon) -> None:
        """Start a synchronisation daemon."""
        self._netlink.ask(Command.NEW_DAEMON, wire.encode_daemon(daemon))

    def stop_daemon(self, state: int) -> None:
        """Stop a synchronisation daemon.

        The kernel sends no answer when the daemon's thread has not run yet: ``kthread_stop`` returns EINTR, which netlink takes
        for its own. After the time-out the running daemons are listed to find out.
        """
        try:
            self._netlink.ask(Command.DEL_DAEMON, wire.encode_daemon_key(state), limit_s=UNANSWERED_S)
        except TimeoutError:
            if any(daemon.state == state for daemon in self.daemons()):
                raise

    def zero(self, identity: Identity | None = None) -> None:
        """Zero the counters of a service, or of all."""
        self._netlink.ask(Command.ZERO, b"" if identity is None else wire.encode_service_key(identity))

    def flush(self) -> None:
        """Remove every service."""
        self._netlink.ask(Command.FLUSH)

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def _answer(self, command: Command, body: bytes = b"") -> memoryview:
        found = self._netlink.ask(command, body)
        if found is None:
            raise Malformed(Fault.MISSING, "answer")
        return found


def _connect() -> GenericNetlink:
    """Open the socket; where the kernel does not know the family, load the module and try once more."""
    try:
        return GenericNetlink(wire.FAMILY, wire.VERSION)
    except HostError:
        modules.load(MODULE)
        return GenericNetlink(wire.FAMILY, wire.VERSION)
