"""Log lines: to the journal or syslog if there is one, else to standard error. Priorities are those of syslog."""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Final

from relevo.severity import Severity

_SOCKET: Final = "/dev/log"
_FACILITY_DAEMON: Final = 3
_FACILITIES: Final = {
    "user": 1,
    "daemon": _FACILITY_DAEMON,
    **{f"local{number}": 16 + number for number in range(8)},
    **{str(number): 16 + number for number in range(8)},
}
MAX_LINE: Final = 8192


class Journal:
    """A log destination. ``console`` forces standard error; ``facility`` is syslog's: local0 to local7, user or daemon."""

    def __init__(self, *, console: bool, facility: str = "") -> None:
        self._facility = _FACILITIES.get(facility, _FACILITY_DAEMON)
        self._socket: socket.socket | None = None
        self._under_systemd = "JOURNAL_STREAM" in os.environ
        if not console and not self._under_systemd:
            self._socket = self._connect()

    @staticmethod
    def _connect() -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(_SOCKET)
        except OSError:
            sock.close()
            return None
        return sock

    def write(self, text: str, severity: int = Severity.INFO, process: str = "") -> None:
        """Write one line. Control characters are escaped, so that a server's reply cannot forge lines."""
        clean = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)[:MAX_LINE]
        tag = f"Relevo_{process}" if process else "Relevo"
        if self._socket is not None:
            try:
                self._socket.send(f"<{self._facility * 8 + severity}>{tag}[{os.getpid()}]: {clean}".encode())
                return
            except OSError:
                self._socket.close()
                self._socket = self._connect()
        if self._under_systemd:
            line = f"<{severity}>{tag}: {clean}\n"
        else:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S") + f".{int(time.time() * 1000) % 1000:03d}"
            mark = "" if severity >= Severity.INFO else f"{Severity(severity).name.lower()}: "
            line = f"{stamp} {tag}: {mark}{clean}\n"
        try:
            sys.stderr.write(line)
            sys.stderr.flush()
        except OSError:
            pass
