"""Counts processes by name (keepalived.conf(5), "vrrp_track_process"), by the events of the kernel's process connector.

Where the kernel has no connector, as in a network or PID namespace of one's own, ``sweep`` counts by reading /proc.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from typing import Final

from relevo.model import ParameterMatch, TrackProcess
from relevo.wire import proc_connector
from relevo.wire.proc_connector import Kind

NETLINK_CONNECTOR: Final = 11
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
NETLINK_DROP_MEMBERSHIP: Final = 2
INITIAL_PID_NAMESPACE: Final = "pid:[4026531836]"
"""The first one of a kernel (PROC_PID_INIT_INO). The connector's numbers are those of its processes."""
BUFFER: Final = 1 << 20
"""Receive buffer in bytes: some thousand events. When it overflows, all processes are counted anew."""
MAX_COMMAND: Final = 4096
"""Bytes of a command line that are read."""


def connector() -> socket.socket | None:
    """Return a socket to the process connector, which hears nothing yet; ``None`` where there is no connector.

    The kernel sends events in the initial network namespace alone: a daemon that enters another one opens this before.
    In a container the kernel refuses in silence, but events that a program outside asked for arrive, with PIDs from outside.
    """
    if _pid_namespace() != INITIAL_PID_NAMESPACE:
        return None
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, NETLINK_CONNECTOR)
    except OSError:
        return None


class ProcessWatcher:
    """Knows which processes belong to each of the declared kinds. ``opened`` is a ``connector`` that was opened before."""

    def __init__(self, opened: socket.socket | None = None) -> None:
        self._opened = opened
        self._kinds: tuple[TrackProcess, ...] = ()
        self._names: dict[int, frozenset[str]] = {}
        self._socket: socket.socket | None = None
        self._connected = False

    @property
    def by_events(self) -> bool:
        """Whether the kernel reports events."""
        return self._connected

    def fileno(self) -> int | None:
        """Return the descriptor that is readable when ``read_events`` has something to do; ``None`` if there is none."""
        return self._socket.fileno() if self._socket is not None else None

    def open(self) -> None:
        """Ask the kernel for events; without them ``sweep`` has to be called every second."""
        sock = connector() if self._opened is None else self._opened.dup()
        if sock is None:
            return
        try:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, proc_connector.CN_IDX_PROC)
            sock.send(proc_connector.listen_request())
        except OSError:
            sock.close()
            return
        self._socket = sock

    def close(self) -> None:
        """Hear nothing more."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, proc_connector.CN_IDX_PROC)
            self._socket.close()
            self._socket, self._connected = None, False

    def watch(self, kinds: Iterable[TrackProcess]) -> None:
        """Count these kinds from now on."""
        self._kinds = tuple(kinds)
        self.sweep()

    def counts(self) -> dict[str, int]:
        """Return the number of processes of each kind."""
        found = {kind.name: 0 for kind in self._kinds}
        for names in self._names.values():
            for name in names:
                found[name] += 1
        return found

    def sweep(self) -> None:
        """Look at every process."""
        self._names = {}
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                self._look(int(entry))

    def read_events(self) -> None:
        """Process the waiting events."""
        assert self._socket is not None
        while True:
            try:
                data = self._socket.recv(65_536)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: events were lost
                self.sweep()
                continue
            for event in proc_connector.decode_events(data):
                self._take(event)

    def _take(self, event: proc_connector.ProcessEvent) -> None:
        self._connected = True
        match event.kind:
            case Kind.FORK:
                if event.parent in self._names:
                    self._names[event.pid] = self._names[event.parent]
            case Kind.EXEC | Kind.COMM:
                self._look(event.pid)
            case Kind.EXIT:
                self._names.pop(event.pid, None)

    def _look(self, pid: int) -> None:
        names = frozenset(kind.name for kind in self._kinds if _matches(kind, pid)) if self._alive(pid) else frozenset()
        if names:
            self._names[pid] = names
        else:
            self._names.pop(pid, None)

    @staticmethod
    def _alive(pid: int) -> bool:
        """Whether a process is there and no zombie."""
        state = _read(pid, "stat").rpartition(b")")[2].split()[:1]
        return bool(state) and state != [b"Z"]


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read(MAX_COMMAND)
    except OSError:
        return b""


def _matches(kind: TrackProcess, pid: int) -> bool:
    if not kind.full_command:
        return _read(pid, "comm").rstrip(b"\n") == os.fsencode(kind.process)
    command = _read(pid, "cmdline")
    name, _, rest = command.partition(b"\0")
    return bool(command) and name == os.fsencode(kind.process) and parameters_match(kind, rest)


def parameters_match(kind: TrackProcess, rest: bytes) -> bool:
    """Whether the parameters of a process, each with a NUL byte behind it, are those of ``kind``."""
    wanted = b"".join(os.fsencode(parameter) + b"\0" for parameter in kind.parameters)
    match kind.match:
        case ParameterMatch.ANY:
            return True
        case ParameterMatch.EXACT:
            return rest == wanted
        case ParameterMatch.PARTIAL:
            return rest.startswith(wanted)
        case ParameterMatch.INITIAL:
            return rest.startswith(wanted[:-1])
