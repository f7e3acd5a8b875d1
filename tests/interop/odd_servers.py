"""Servers with odd manners for health checks: what each sends to whoever asks for a page, and a listener for each.

A behaviour is a list of steps: bytes to send, or one of the acts below. Which verdict each deserves is the test's business,
except that ``passes`` says what Relevo's HTTP_GET makes of it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import selectors
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

ADDRESS: Final = "127.0.0.1"
TIMEOUT_S: Final = 5
"""``connect_timeout`` of every check: long enough for an emulated machine that carries out all of them at once."""
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Act(Enum):
    """What a server does besides sending; every script ends with closing the connection unless another act has ended it."""

    READ_REQUEST = auto()
    """Read up to the empty line that ends a request."""
    RESET = auto()
    HALF_CLOSE = auto()
    """Send a FIN, and wait for the client's."""
    HOLD = auto()
    """Say nothing more until the client leaves."""


@dataclass(frozen=True)
class Drip:
    """Bytes that leave one by one, with a pause after each."""

    data: bytes
    pause_s: float


Step = bytes | Drip | Act


@dataclass(frozen=True)
class Behaviour:
    """A server's manners, what the check asks of its page, and whether Relevo's check passes."""

    name: str
    passes: bool
    steps: tuple[Step, ...]
    digest: str = ""
    """MD5 that the check wants of the body; without one it wants the status."""
    status_code: str = ""
    tls: bool = False


def _answer(*steps: Step) -> tuple[Step, ...]:
    return (Act.READ_REQUEST, *steps)


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


_BODY: Final = b"<html>hello</html>\n"
_ZIPPED: Final = gzip.compress(_BODY, mtime=0)
_CHUNKED: Final = b"9\r\n<html>hel\r\na\r\nlo</html>\n\r\n0\r\n\r\n"
_NULS: Final = b"\0\0hello\0\0"
_LENGTH: Final = b"Content-Length: 19\r\n"
_OK: Final = b"HTTP/1.1 200 OK\r\n"
_WHOLE: Final = _OK + _LENGTH + b"\r\n" + _BODY
_LARGE_HEADERS: Final = b"".join(b"X-Filler-%d: %s\r\n" % (n, b"x" * 1000) for n in range(60))

BEHAVIOURS: Final = (
    Behaviour("plain", True, _answer(_WHOLE)),
    Behaviour("plain-with-digest", True, _answer(_WHOLE), _md5(_BODY)),
    Behaviour("another-body-than-the-digest", False, _answer(_WHOLE), _md5(b"other")),
    Behaviour("bare-lf-headers", True, _answer(_WHOLE.replace(b"\r\n", b"\n"))),
    Behaviour("bare-lf-headers-with-digest", True, _answer(_WHOLE.replace(b"\r\n", b"\n")), _md5(_BODY)),
    Behaviour("chunked-with-digest", True, _answer(_OK + b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNKED), _md5(_BODY)),
    Behaviour("100-before-200", True, _answer(b"HTTP/1.1 100 Continue\r\n\r\n", _WHOLE)),
    Behaviour("status-without-reason", True, _answer(b"HTTP/1.1 200\r\n" + _LENGTH + b"\r\n" + _BODY)),
    Behaviour("60-kb-of-headers", True, _answer(_OK + _LARGE_HEADERS + _LENGTH + b"\r\n" + _BODY)),
    Behaviour("200-then-reset", True, _answer(_WHOLE, Act.RESET)),
    Behaviour("http-0.9", False, _answer(_BODY)),
    Behaviour("empty-answer", False, _answer()),
    Behaviour("slow-drip", True, _answer(Drip(_OK, 0.02), _LENGTH + b"\r\n" + _BODY)),
    Behaviour("drip-beyond-the-time-limit", False, _answer(Drip(b"HTTP/1.1", TIMEOUT_S / 5), _WHOLE[8:])),
    Behaviour("redirect", False, _answer(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n")),
    Behaviour(
        "redirect-as-wanted", True, _answer(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"), status_code="302"
    ),
    Behaviour("204", True, _answer(b"HTTP/1.1 204 No Content\r\n\r\n")),
    Behaviour("204-where-200-is-wanted", False, _answer(b"HTTP/1.1 204 No Content\r\n\r\n"), status_code="200"),
    Behaviour("content-length-too-large", True, _answer(_OK + b"Content-Length: 1000\r\n\r\n" + _BODY)),
    Behaviour("content-length-too-large-with-digest", False, _answer(_OK + b"Content-Length: 1000\r\n\r\n" + _BODY), _md5(_BODY)),
    Behaviour("content-length-too-small-with-digest", True, _answer(_OK + b"Content-Length: 6\r\n\r\n" + _BODY), _md5(b"<html>")),
    Behaviour("two-equal-lengths", True, _answer(_OK + _LENGTH * 2 + b"\r\n" + _BODY)),
    Behaviour("two-different-lengths", True, _answer(_OK + _LENGTH + b"Content-Length: 7\r\n\r\n" + _BODY)),
    Behaviour("duplicate-headers", True, _answer(_OK + b"X-Twice: 1\r\nX-Twice: 2\r\n" + _LENGTH + b"\r\n" + _BODY)),
    Behaviour("lower-case-names-and-held-open", True, _answer(_OK + _LENGTH.lower() + b"\r\n" + _BODY, Act.HOLD), _md5(_BODY)),
    Behaviour("held-open-with-a-length", True, _answer(_WHOLE, Act.HOLD), _md5(_BODY)),
    Behaviour("held-open-without-length", True, _answer(_OK + b"Connection: keep-alive\r\n\r\n" + _BODY, Act.HOLD)),
    Behaviour("gzip-bytes", True, _answer(_OK + b"Content-Encoding: gzip\r\n\r\n" + _ZIPPED), _md5(_ZIPPED)),
    Behaviour("leading-blank-lines", False, _answer(b"\r\n\r\n" + _WHOLE)),
    Behaviour("nuls-in-the-body", True, _answer(_OK + b"\r\n" + _NULS), _md5(_NULS)),
    Behaviour("nul-in-a-header", True, _answer(_OK + b"X-Nul: a\0b\r\n" + _LENGTH + b"\r\n" + _BODY)),
    Behaviour("nuls-before-the-status", False, _answer(b"\0\0\0" + _WHOLE)),
    Behaviour("long-status-line", True, _answer(b"HTTP/1.1 200 " + b"O" * 8000 + b"K\r\n" + _LENGTH + b"\r\n" + _BODY)),
    Behaviour("status-of-four-digits", False, _answer(b"HTTP/1.1 2000 OK\r\n\r\n" + _BODY)),
    Behaviour("two-blanks-before-the-status", True, _answer(b"HTTP/1.1  200 OK\r\n\r\n" + _BODY)),
    Behaviour("header-without-a-colon", True, _answer(_OK + b"nonsense\r\n" + _LENGTH + b"\r\n" + _BODY)),
    Behaviour("folded-header", True, _answer(_OK + b"X-Folded: a\r\n b\r\n" + _LENGTH + b"\r\n" + _BODY)),
    Behaviour("headers-without-an-end", True, _answer(_OK + _LENGTH)),
    Behaviour("http-2-status-line", True, _answer(b"HTTP/2 200\r\n\r\n" + _BODY)),
    Behaviour("icy", True, _answer(b"ICY 200 OK\r\n\r\n" + _BODY)),
    Behaviour("closed-at-once", False, ()),
    Behaviour("reset-at-once", False, (Act.RESET,)),
    Behaviour("silent", False, _answer(Act.HOLD)),
    Behaviour("half-close", True, _answer(_WHOLE, Act.HALF_CLOSE)),
    Behaviour("half-close-without-length", True, _answer(_OK + b"\r\n" + _BODY, Act.HALF_CLOSE), _md5(_BODY)),
    Behaviour("tls-instead-of-plain", False, _answer(b"\x15\x03\x01\x00\x02\x02\x46")),
    Behaviour("plain-instead-of-tls", False, (b"HTTP/1.1 400 Bad Request\r\n\r\n",), tls=True),
)


class Servers:
    """A listener for each behaviour, all on one address, in the network namespace of whoever makes them."""

    def __init__(self, behaviours: Sequence[Behaviour] = BEHAVIOURS) -> None:
        self._selector = selectors.DefaultSelector()
        self.ports: dict[str, int] = {}
        for behaviour in behaviours:
            listening = socket.create_server((ADDRESS, 0), backlog=16)
            self.ports[behaviour.name] = listening.getsockname()[1]
            self._selector.register(listening, selectors.EVENT_READ, behaviour)
        self._wake, wakes = socket.socketpair()
        self._selector.register(wakes, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                assert isinstance(key.fileobj, socket.socket)
                connection, _ = key.fileobj.accept()
                threading.Thread(target=play, args=(connection, key.data), daemon=True).start()

    def close(self) -> None:
        """Listen no more; a connection that is held ends with its client."""
        self._wake.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def play(connection: socket.socket, behaviour: Behaviour) -> None:
    """Act a behaviour out towards one client, who may leave at any time."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, contextlib.suppress(OSError):
        for step in behaviour.steps:
            match step:
                case bytes():
                    connection.sendall(step)
                case Drip():
                    for value in step.data:
                        connection.sendall(bytes([value]))
                        time.sleep(step.pause_s)
                case Act.READ_REQUEST:
                    _read_request(connection)
                case Act.RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                case Act.HALF_CLOSE:
                    connection.shutdown(socket.SHUT_WR)
                    _await_end(connection)
                case Act.HOLD:
                    _await_end(connection)


def _read_request(connection: socket.socket) -> None:
    seen = b""
    while b"\r\n\r\n" not in seen:
        data = connection.recv(4096)
        if not data:
            raise ConnectionError("the client left before it had asked")
        seen += data


def _await_end(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass
