"""Host names: whether this machine finds one."""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address


def name_problem(name: str, limit_s: float) -> str:
    """Return why a name has no address, empty if it has one or is one. A look-up that takes longer is a problem too."""
    try:
        ip_address(name)
    except ValueError:
        pass
    else:
        return ""
    problem = [f"no answer within {limit_s:g} s"]
    thread = threading.Thread(target=_look_up, args=(name, problem), daemon=True)  # the resolver cannot be interrupted
    thread.start()
    thread.join(limit_s)
    return problem[0]


def _look_up(name: str, problem: list[str]) -> None:
    try:
        socket.getaddrinfo(name, None)
    except (OSError, UnicodeError) as error:
        problem[0] = getattr(error, "strerror", None) or str(error)
    else:
        problem[0] = ""
