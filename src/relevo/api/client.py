"""A client of the control socket for callers without an event loop."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path
from typing import TypeVar

import msgspec

from relevo.api.schema import ANSWERS, RequestRefusal, _Request, limit_s
from relevo.errors import ControlError

A = TypeVar("A")
SOCKET_NAME = "control.sock"


def ask(run_dir: Path, request: _Request[A], timeout_s: float | None = None) -> A:
    """Return the daemon's answer to a request; ``ControlError`` if it refuses, or does not answer in time."""
    raw = ask_raw(run_dir / SOCKET_NAME, request, timeout_s)
    refused = msgspec.json.decode(raw, type=RequestRefusal).error
    if refused:
        raise ControlError(refused)
    answer: A = msgspec.json.decode(raw, type=ANSWERS[type(request)])
    return answer


def ask_raw(path: Path, request: _Request[A], timeout_s: float | None = None) -> bytes:
    """Return the line with which the daemon at ``path`` answers."""
    limit = limit_s(request) if timeout_s is None else timeout_s
    with socket.socket(socket.AF_UNIX) as sock:
        ends = time.monotonic() + limit
        try:
            _connect(sock, path, limit)
            sock.settimeout(max(0.001, ends - time.monotonic()))
            sock.sendall(msgspec.json.encode(request) + b"\n")
            received = bytearray()
            while not received.endswith(b"\n"):
                sock.settimeout(max(0.001, ends - time.monotonic()))
                data = sock.recv(1 << 20)
                if not data:
                    raise ControlError(f"the daemon at {path} closed the connection before the end of its answer")
                received += data
        except FileNotFoundError as error:
            raise ControlError(f"no daemon is running: {path} does not exist", hint="start it with relevo run") from error
        except OSError as error:
            what = error.strerror or "no answer in time"
            raise ControlError(f"no answer from the daemon at {path}: {what}") from error
    return bytes(received)


def _connect(sock: socket.socket, path: Path, limit_s: float) -> None:
    """Connect within ``limit_s``. If the queue is full this waits; a socket with Python's time limit fails at once (EAGAIN)."""
    seconds = int(limit_s)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, int((limit_s - seconds) * 1e6)))
    try:
        sock.connect(str(path))
    except BlockingIOError:
        raise TimeoutError from None
