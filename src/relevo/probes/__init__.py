"""Probes of real servers, one file for each kind of checker. A probe returns a ``Result`` within its time limit.

Replies of servers are hostile input: every read is limited in bytes, and the whole probe in time.
"""

from __future__ import annotations

from relevo.machines.check import Result
from relevo.model import Check, HttpCheck, TcpCheck
from relevo.probes.http import probe_http
from relevo.probes.tcp import probe_tcp

__all__ = ["run_probe"]


async def run_probe(check: Check) -> Result:
    """Run ``check`` once."""
    match check:
        case TcpCheck():
            return await probe_tcp(check)
        case HttpCheck():
            return await probe_http(check)
