"""The service manager's notification socket (sd_notify(3)), when there is one."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send ``state`` to systemd, such as ``READY=1``; without systemd nothing happens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), address)
    except OSError:
        pass  # supervision is optional: its absence must not stop the daemon
