"""Probes of real servers: one file for each kind of checker, and the engine that runs thousands of them.

A checker is an exchange without sockets (``exchange``); the engine has the sockets and the time. Replies of servers are hostile
input: every exchange is limited in bytes, and every probe in time.
"""

from __future__ import annotations

from relevo.probes import dns, http, ping, smtp, tcp, udp  # noqa: F401 - they register their exchanges
from relevo.probes.engine import Engine, run_probe
from relevo.probes.exchange import kinds

__all__ = ["Engine", "kinds", "run_probe"]
