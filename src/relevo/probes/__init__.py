"""Probes of real servers, one file for each kind of checker. A probe returns a ``Result`` within its time limit.

Replies of servers are hostile input: every read is limited in bytes, and the whole probe in time.
"""

from __future__ import annotations

from relevo.probes import http, tcp
from relevo.probes.registry import kinds, run_probe

__all__ = ["http", "kinds", "run_probe", "tcp"]
