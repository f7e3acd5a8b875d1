"""The lab's client: asks which server answers, holds connections, and measures gaps."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from relevo.lab.stages import Stage
from relevo.lab.topology import Host, kind_of
from relevo.model import Endpoint, Protocol

TIMEOUT_S = 2.0
_NO_LINGER = struct.pack("ii", 1, 0)
_REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: %s\r\n\r\n"


class Client:
    """Opens connections on the client's machine; ``number`` chooses one of its source addresses.

    With ``abrupt`` it resets a connection after the answer, so that no closing connection keeps a persistence template.
    """

    def __init__(self, stage: Stage, host: Host, *, abrupt: bool = False) -> None:
        self._stage = stage
        self._host = host
        self._abrupt = abrupt

    def open(self, number: int = 0) -> socket.socket:
        """Return a TCP socket bound to a client address."""
        with self._stage.inside(self._host):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: the port is chosen at connect
        sock.bind((self._stage.client_address(number), 0))
        sock.settimeout(TIMEOUT_S)
        return sock

    def who(self, service: Endpoint, number: int = 0) -> str:
        """Connect to a service and return the name of the server that answers, empty when none does."""
        with self.open(number) as sock:
            if self._abrupt:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            try:
                sock.connect((service.address, service.port))
                return greet(sock, service)
            except OSError:
                return ""

    def hold(self, service: Endpoint, count: int) -> list[socket.socket]:
        """Open connections and keep them; each has been answered once."""
        held = []
        for number in range(count):
            sock = self.open(1000 + number)
            with contextlib.suppress(OSError):
                sock.connect((service.address, service.port))
                if greet(sock, service, close=False):
                    held.append(sock)
        return held


def greet(sock: socket.socket, service: Endpoint, *, close: bool = True) -> str:
    """Return the name of the server at the other end of an open connection."""
    if kind_of(service.port, Protocol.TCP) == "smtp":
        words = sock.recv(512).decode("ascii", "replace").split()
        return words[1] if len(words) > 1 and words[0] == "220" else ""
    sock.sendall(_REQUEST % (b"close" if close else b"keep-alive"))
    answer = sock.recv(4096)
    return answer.rpartition(b"\r\n\r\n")[2].decode("ascii", "replace").strip()


def still_alive(sock: socket.socket, service: Endpoint) -> bool:
    """Whether a held connection still answers."""
    try:
        if kind_of(service.port, Protocol.TCP) == "smtp":
            sock.sendall(b"NOOP\r\n")
            return bool(sock.recv(512))
        return bool(greet(sock, service, close=False))
    except OSError:
        return False


@dataclass(slots=True)
class Probes:
    """Results of a prober: times of answers, number of probes, and how many were refused, reset or never answered."""

    interval_s: float
    answers: list[float] = field(default_factory=list)
    sent: int = 0
    failed: int = 0

    def longest_gap_s(self) -> float:
        """Longest time between two answers."""
        pairs = zip(self.answers, self.answers[1:], strict=False)
        return max((b - a for a, b in pairs), default=0.0)


_PROBE_TIMEOUT_S = 1.0


class Prober:
    """Opens a connection every ``interval_s``, each from its own client address, and records when the service answered.

    Probes do not wait for each other: a probe that is lost in a gap does not delay the first answer after it.
    """

    def __init__(self, client: Client, service: Endpoint, interval_s: float) -> None:
        self._client = client
        self._service = service
        self._http = kind_of(service.port, Protocol.TCP) == "http"
        self.probes = Probes(interval_s)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[Probes]:
        """Probe while the context lasts."""
        self._thread.start()
        try:
            yield self.probes
        finally:
            self._stop.set()
            self._thread.join()

    def _run(self) -> None:
        """Body of the prober's thread. A network namespace belongs to a thread, so that this one enters the client's alone."""
        poll = select.epoll()
        waiting: dict[int, tuple[socket.socket, float]] = {}
        due = time.monotonic()
        while not self._stop.is_set():
            now = time.monotonic()
            if now >= due:
                due = max(due + self.probes.interval_s, now)
                sock = self._client.open(2000 + self.probes.sent % 3000)
                sock.setblocking(False)
                self.probes.sent += 1
                sock.connect_ex((self._service.address, self._service.port))
                waiting[sock.fileno()] = (sock, now)
                poll.register(sock.fileno(), select.EPOLLOUT if self._http else select.EPOLLIN)
            for descriptor, mask in poll.poll(max(0.0, due - time.monotonic())):
                self._on_event(poll, waiting, descriptor, mask)
            for descriptor in [d for d, (_, begun) in waiting.items() if begun + _PROBE_TIMEOUT_S < now]:
                self._end(poll, waiting, descriptor, failed=True)
        for descriptor in list(waiting):
            self._end(poll, waiting, descriptor, failed=None)
        poll.close()

    def _on_event(self, poll: select.epoll, waiting: dict[int, tuple[socket.socket, float]], descriptor: int, mask: int) -> None:
        sock, _ = waiting[descriptor]
        try:
            if mask & select.EPOLLOUT and not mask & (select.EPOLLERR | select.EPOLLHUP):
                sock.send(_REQUEST % b"close")
                poll.modify(descriptor, select.EPOLLIN)
                return
            answered = bool(sock.recv(4096))
        except OSError:
            answered = False
        if answered:
            self.probes.answers.append(time.monotonic())
        self._end(poll, waiting, descriptor, failed=not answered)

    def _end(
        self, poll: select.epoll, waiting: dict[int, tuple[socket.socket, float]], descriptor: int, *, failed: bool | None
    ) -> None:
        sock, _ = waiting.pop(descriptor)
        poll.unregister(descriptor)
        sock.close()
        self.probes.failed += bool(failed)
