"""Misbehaving servers, in threads."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from relevo.model import Endpoint, HttpCheck, TcpCheck, Url
from relevo.model.checks import CheckTiming

TIMING = CheckTiming(delay_loop_s=1.0, retry=0, delay_before_retry_s=1.0, warmup_s=0.0, alpha=False)
ADDRESS = "127.0.43.1"


@contextlib.contextmanager
def server(handle: Callable[[socket.socket], None]) -> Iterator[Endpoint]:
    """Serve every connection by ``handle`` until the block ends."""
    listener = socket.create_server((ADDRESS, 0), backlog=64)
    over = threading.Event()

    def serve(sock: socket.socket) -> None:
        with sock:
            sock.settimeout(5.0)
            try:
                handle(sock)
            except OSError:
                pass  # the prober hangs up when it has seen enough

    def accept() -> None:
        while not over.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield Endpoint(*listener.getsockname())
    finally:
        over.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5.0)


def read_request(sock: socket.socket) -> bytes:
    """Read up to the empty line."""
    request = bytearray()
    while b"\r\n\r\n" not in request and (data := sock.recv(4096)):
        request += data
    return bytes(request)


def answering(raw: bytes) -> Callable[[socket.socket], None]:
    """Read a request, send ``raw``, end."""

    def handle(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(raw)

    return handle


def forever(first: bytes, again: bytes, *, pause_s: float = 0.0, limit: int = 1 << 30) -> Callable[[socket.socket], None]:
    """Send ``first``, then ``again`` and again, a gigabyte at most."""

    def handle(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(first)
        sent = 0
        while sent < limit:
            sock.sendall(again)
            sent += len(again)
            if pause_s:
                time.sleep(pause_s)

    return handle


def tcp(target: Endpoint, timeout_s: float = 2.0, bind: Endpoint | None = None) -> TcpCheck:
    return TcpCheck(timing=TIMING, connect=target, connect_timeout_s=timeout_s, bind=bind)


def http(target: Endpoint, *urls: Url, timeout_s: float = 2.0, **more: object) -> HttpCheck:
    pages = urls or (Url(path="/"),)
    return HttpCheck(timing=TIMING, connect=target, connect_timeout_s=timeout_s, urls=pages, **more)  # type: ignore[arg-type]
