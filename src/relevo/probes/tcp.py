"""TCP_CHECK: the server accepts a connection."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

from relevo.machines.check import Failure, Result
from relevo.model import Endpoint, TcpCheck
from relevo.probes.registry import probe_for

_LOCAL = (errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)
"""Errors of a node without an address, a route or a link."""
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)


def failed(error: BaseException, limit_s: float) -> Result:
    """Return the result of a connection that failed."""
    match error:
        case TimeoutError() if not isinstance(error, OSError) or error.errno is None:
            return Result(Failure.TIMEOUT, f"no answer within {limit_s:g} s")
        case ConnectionRefusedError():
            return Result(Failure.REFUSED)
        case ssl.SSLError():
            return Result(Failure.TLS, error.reason or "handshake failed")
        case ConnectionError():
            return Result(Failure.RESET)
        case OSError() if error.errno == errno.ETIMEDOUT:
            return Result(Failure.TIMEOUT, "the kernel gave up")
        case OSError() if error.errno in _UNREACHABLE:
            return Result(Failure.UNREACHABLE, error.strerror or "", local=error.errno in _LOCAL)
        case OSError():
            return Result(Failure.LOCAL, error.strerror or str(error), local=error.errno in _LOCAL)
        case _:
            return Result(Failure.PROTOCOL, str(error) or type(error).__name__)


async def connect(target: Endpoint, bind: Endpoint | None) -> socket.socket:
    """Open a TCP connection, from ``bind`` if given; ``OSError`` on failure. The caller sets the time limit."""
    family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if bind is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((bind.address, bind.port))
        await asyncio.get_running_loop().sock_connect(sock, (target.address, target.port))
    except BaseException:
        sock.close()
        raise
    return sock


@probe_for(TcpCheck)
async def probe_tcp(check: TcpCheck) -> Result:
    """Pass if the connection opens in time. It is closed by FIN: some servers take a reset for an attack."""
    try:
        async with asyncio.timeout(check.connect_timeout_s):
            sock = await connect(check.connect, check.bind)
    except (OSError, TimeoutError) as error:
        return failed(error, check.connect_timeout_s)
    sock.close()
    return Result()
