"""Runs the probes of all checks on one loop: non-blocking sockets in one epoll set, read in batches.

There is no task and no stream for a probe. Ten thousand checks every few seconds are thousands of short conversations in a
second, of which most are a connection that is opened and closed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from relevo.machines.check import Failure, Result
from relevo.model.checks import NetworkCheck
from relevo.probes.exchange import READ_SIZE, Exchange, Step, Transport, begin

MAX_PROBES: Final = 512
"""Probes that run at the same time; further ones wait. Each has a descriptor."""
TICK_S: Final = 0.005
"""Seconds between two looks at the sockets under load."""
BATCH: Final = 256
"""Events that are handled before other work of the loop has its turn."""
MAX_DATAGRAM: Final = 65_536
MAX_UNSENT: Final = 1 << 20
"""Bytes that wait to be sent, of a server that does not read."""

_LOCAL: Final = (errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)
"""Errors of a node without an address, a route or a link."""
_UNREACHABLE: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT

K = TypeVar("K", bound=Hashable)


def failed(error: OSError) -> Result:
    """Return the result of a connection that failed."""
    match error:
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
        case _:
            return Result(Failure.LOCAL, error.strerror or str(error), local=error.errno in _LOCAL)


class Engine(Generic[K]):
    """Runs probes; ``finished`` gets the results of a batch, each with the key that ``start`` got."""

    def __init__(self, finished: Callable[[list[tuple[K, Result]]], None]) -> None:
        self._finished = finished
        self._epoll = select.epoll()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._begin_ticking)
        self._tick: asyncio.TimerHandle | None = None
        self._waiting: dict[K, NetworkCheck] = {}
        self._running: dict[K, Conversation[K]] = {}
        self._by_descriptor: dict[int, Conversation[K]] = {}
        self._by_limit: dict[float, deque[Conversation[K]]] = {}  # those of one limit expire in the order of their starts
        self._timer: asyncio.TimerHandle | None = None
        self._results: dict[K, Result] = {}
        self._reporting: asyncio.Handle | None = None

    def start(self, key: K, check: NetworkCheck) -> None:
        """Run ``check`` once, as soon as there is room."""
        if len(self._running) < MAX_PROBES:
            self._begin(key, begin(check))
        else:
            self._waiting[key] = check

    def cancel(self, key: K) -> None:
        """Forget a probe; it has no result."""
        self._waiting.pop(key, None)
        self._results.pop(key, None)
        conversation = self._running.pop(key, None)
        if conversation is not None:
            self._release(conversation)

    def close(self) -> None:
        """Forget all probes."""
        for key in list(self._running):
            self.cancel(key)
        self._waiting.clear()
        for handle in (self._timer, self._reporting, self._tick):
            if handle is not None:
                handle.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    # -- conversations -----------------------------------------------------------------------------------------

    def _begin(self, key: K, exchange: Exchange[Any]) -> None:
        limit_s = exchange.check.connect_timeout_s
        conversation = self._running[key] = Conversation(key, exchange, self._loop.time() + limit_s)
        try:
            conversation.open()
        except OSError as error:
            self._end(conversation, _cannot_ask(error, exchange))
            return
        self._by_descriptor[conversation.descriptor] = conversation
        self._epoll.register(conversation.descriptor, conversation.wanted)
        self._by_limit.setdefault(limit_s, deque()).append(conversation)
        if self._timer is None or self._timer.when() > conversation.ends_at:
            self._set_timer(conversation.ends_at)

    def _begin_ticking(self) -> None:
        """Read, and again every ``TICK_S`` as long as there is something: under load a wake-up costs more than an event."""
        self._loop.remove_reader(self._epoll.fileno())
        self._read()

    def _read(self) -> None:
        found = self._epoll.poll(0, BATCH)
        at_once = len(found) == BATCH
        for descriptor, events in found:
            conversation = self._by_descriptor.get(descriptor)
            if conversation is not None:
                self._step(conversation, events)
                at_once |= conversation.has_more
        self._report()
        if found:
            self._tick = self._loop.call_later(0.0 if at_once else TICK_S, self._read)
        else:
            self._tick = None
            self._loop.add_reader(self._epoll.fileno(), self._begin_ticking)

    def _step(self, conversation: Conversation[K], events: int) -> None:
        before = conversation.wanted
        try:
            done = conversation.on(events)
        except OSError as error:
            done = failed(error)
        except Exception as error:  # a fault in a checker is a failed check
            done = Result(Failure.LOCAL, f"{type(error).__name__}: {error}")
        if isinstance(done, Result):
            self._end(conversation, done)
        elif done is not None:
            self._release(conversation)
            self._begin(conversation.key, done)
        elif conversation.wanted != before:
            self._epoll.modify(conversation.descriptor, conversation.wanted)

    def _end(self, conversation: Conversation[K], result: Result) -> None:
        self._release(conversation)
        del self._running[conversation.key]
        self._results[conversation.key] = result
        if self._reporting is None:
            self._reporting = self._loop.call_soon(self._report)

    def _release(self, conversation: Conversation[K]) -> None:
        self._by_descriptor.pop(conversation.descriptor, None)
        conversation.close()  # which takes it out of the epoll set too
        queue = self._by_limit.get(conversation.exchange.check.connect_timeout_s)
        while queue and queue[0].ended:
            queue.popleft()

    def _report(self) -> None:
        """Pass the results on, and start what waits for their places."""
        if self._reporting is not None:
            self._reporting.cancel()
            self._reporting = None
        while self._waiting and len(self._running) < MAX_PROBES:
            key = next(iter(self._waiting))
            self._begin(key, begin(self._waiting.pop(key)))
        if self._results:
            results, self._results = self._results, {}
            self._finished(list(results.items()))

    # -- time --------------------------------------------------------------------------------------------------

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        for limit_s, queue in list(self._by_limit.items()):
            while queue and queue[0].ends_at <= now:
                self._end(queue[0], queue[0].exchange.expired())
            if not queue:
                del self._by_limit[limit_s]
        if self._by_limit:
            self._set_timer(min(queue[0].ends_at for queue in self._by_limit.values()))
        self._report()


class Conversation(Generic[K]):
    """One exchange on its socket. ``wanted`` are the events that it waits for; ``has_more``: there may be more to read."""

    __slots__ = (
        "_connecting", "_sock", "_tls", "_unsent", "descriptor", "ended", "ends_at", "exchange", "has_more", "key", "wanted",
    )  # fmt: skip

    def __init__(self, key: K, exchange: Exchange[Any], ends_at: float) -> None:
        self.key = key
        self.exchange = exchange
        self.ends_at = ends_at
        self.descriptor = -1
        self.wanted = _OUT
        self.ended = False
        self.has_more = False
        self._connecting = True
        self._sock: socket.socket | None = None
        self._unsent = b""
        self._tls: Tls | None = None

    def open(self) -> None:
        """Open the socket and begin to connect; ``OSError`` on failure."""
        check: NetworkCheck = self.exchange.check
        ipv6 = ":" in check.connect.address
        self._sock = sock = _socket(self.exchange.opening.transport, ipv6=ipv6)
        self.descriptor = sock.fileno()
        if check.fwmark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, check.fwmark)
        if check.device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, check.device.encode())
        if check.bind is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((check.bind.address, check.bind.port))
        number = sock.connect_ex((check.connect.address, check.connect.port))
        if number not in (0, errno.EINPROGRESS):
            raise OSError(number, os.strerror(number))

    def on(self, events: int) -> Result | Exchange[Any] | None:
        """Act on what the socket is ready for; return the result or the next exchange, ``None`` to go on; ``OSError``."""
        if self._connecting:
            return self._connected()
        if self._unsent and events & _OUT:
            self._send(b"")
        if events & (_IN | select.EPOLLHUP | select.EPOLLERR):
            return self._receive()
        return None

    def close(self) -> None:
        """Close the socket, by FIN: some servers take a reset for an attack."""
        self.ended, self.has_more = True, False
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _connected(self) -> Result | Exchange[Any] | None:
        assert self._sock is not None
        number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        self._connecting = False
        self.wanted = _IN
        opening = self.exchange.opening
        if opening.tls:
            self._tls = Tls(opening.server_name)
            return self._shake_hands()
        return self._take(self.exchange.opened())

    def _receive(self) -> Result | Exchange[Any] | None:
        assert self._sock is not None
        stream = self.exchange.opening.transport is Transport.STREAM
        try:
            data = self._sock.recv(READ_SIZE if stream else MAX_DATAGRAM)
        except BlockingIOError:
            self.has_more = False
            return None
        self.has_more = len(data) == READ_SIZE
        if self._tls is not None:
            return self._receive_encrypted(data)
        if not data and stream:
            return self._take(self.exchange.closed())
        return self._take(self.exchange.received(data))

    def _receive_encrypted(self, data: bytes) -> Result | Exchange[Any] | None:
        assert self._tls is not None
        self._tls.feed(data)
        if not self._tls.ready:
            return self._shake_hands()
        text = self._tls.read()
        while text:
            done = self._take(self.exchange.received(text))
            if done is not None:
                return done
            text = self._tls.read()
        return self._take(self.exchange.closed()) if self._tls.ended or not data else None

    def _shake_hands(self) -> Result | Exchange[Any] | None:
        assert self._tls is not None
        ready = self._tls.shake_hands()
        self._send(b"")
        return self._take(self.exchange.opened()) if ready else None

    def _take(self, step: Step) -> Result | Exchange[Any] | None:
        if not isinstance(step, bytes):
            return step
        if step:
            self._send(step)
        return None

    def _send(self, data: bytes) -> None:
        assert self._sock is not None
        if self._tls is not None:
            data = self._tls.write(data)
        self._unsent += data
        if len(self._unsent) > MAX_UNSENT:
            raise OSError(errno.ENOBUFS, "the server does not read")
        if self._unsent:
            try:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            except BlockingIOError:
                pass
        self.wanted = _IN | _OUT if self._unsent else _IN


class Tls:
    """The TLS side of a connection, between the bytes on the wire and those of the exchange.

    Certificates are not verified, as in keepalived: the check tests whether the server works, not its identity.
    """

    def __init__(self, server_name: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = _context().wrap_bio(self._incoming, self._outgoing, server_hostname=server_name or None)
        self.ready = False
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take bytes of the wire; none are its end."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def shake_hands(self) -> bool:
        """Go on with the handshake; return whether it is done. ``SSLError`` if it fails."""
        try:
            self._object.do_handshake()
            self.ready = True
        except ssl.SSLWantReadError:
            pass
        return self.ready

    def read(self) -> bytes:
        """Return what the server has sent, decrypted; nothing if there is no more."""
        try:
            data = self._object.read(READ_SIZE)
        except ssl.SSLWantReadError:
            return b""
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            data = b""
        self.ended = not data
        return data

    def write(self, data: bytes) -> bytes:
        """Return the bytes for the wire, with ``data`` encrypted."""
        if data:
            self._object.write(data)
        return self._outgoing.read()


@lru_cache(maxsize=1)
def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_TYPES: Final = {
    Transport.STREAM: (socket.SOCK_STREAM, socket.IPPROTO_TCP, socket.IPPROTO_TCP),
    Transport.DATAGRAM: (socket.SOCK_DGRAM, socket.IPPROTO_UDP, socket.IPPROTO_UDP),
    Transport.ECHO: (socket.SOCK_DGRAM, socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6),
}


def _socket(transport: Transport, *, ipv6: bool) -> socket.socket:
    kind, ipv4_protocol, ipv6_protocol = _TYPES[transport]
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK, ipv6_protocol if ipv6 else ipv4_protocol)


def _cannot_ask(error: OSError, exchange: Exchange[Any]) -> Result:
    """Return the result of a probe whose socket could not be opened."""
    if isinstance(error, PermissionError) and exchange.opening.transport is Transport.ECHO:
        return Result(Failure.LOCAL, "net.ipv4.ping_group_range does not allow echo requests")
    if isinstance(error, PermissionError) and exchange.check.fwmark:
        return Result(Failure.LOCAL, "a fwmark needs CAP_NET_ADMIN, which this data plane does not have")
    return failed(error)


async def run_probe(check: NetworkCheck) -> Result:
    """Run ``check`` once."""
    done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    engine: Engine[int] = Engine(lambda results: done.set_result(results[0][1]))
    try:
        engine.start(0, check)
        return await done
    finally:
        engine.close()
