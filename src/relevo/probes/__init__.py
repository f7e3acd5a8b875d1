"""One checker a file: each asks one server one question, within a time limit, and answers with a ``Result``.

Replies of real servers are hostile input: every read is bounded in octets and all of a probe in time.
"""

from __future__ import annotations

from relevo.machines.check import Result
from relevo.model import Check, HttpCheck, TcpCheck
from relevo.probes.http import probe_http
from relevo.probes.tcp import probe_tcp

__all__ = ["run_probe"]


async def run_probe(check: Check) -> Result:
    """Carry out ``check`` once."""
    match check:
        case TcpCheck():
            return await probe_tcp(check)
        case HttpCheck():
            return await probe_http(check)
