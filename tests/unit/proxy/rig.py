"""A running proxy plane to test against: its process, small servers that send their name, and clients of many addresses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from relevo.model import Endpoint, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, Connection, Operation, ServerEntry, ServiceEntry, ServiceState
from relevo.planes.port import Refused
from relevo.planes.proxy import worker
from relevo.planes.proxy.client import ProxyPlane

VIRTUAL = "127.0.40.1"
SERVERS = "127.0.41."
CLIENT = "127.7.0.1"
PATIENCE_S = 5.0

T = TypeVar("T")


def wait_until(check: Callable[[], T], what: str, limit_s: float = PATIENCE_S) -> T:
    """Poll until ``check`` is true; return its value."""
    ends = time.monotonic() + limit_s
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < ends, f"not within {limit_s:g} s: {what}"
        time.sleep(0.005)


def free_port(address: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return an unused port."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read ``size`` bytes, or fewer when the other side ends."""
    received = bytearray()
    while len(received) < size and (data := sock.recv(min(1 << 16, size - len(received)))):
        received += data
    return bytes(received)


def read_line(sock: socket.socket) -> bytes:
    """Read up to a line feed, byte by byte."""
    line = bytearray()
    while not line.endswith(b"\n"):
        data = sock.recv(1)
        if not data:
            break
        line += data
    return bytes(line)


def read_all(sock: socket.socket) -> bytes:
    """Read until the other side ends."""
    received = bytearray()
    while data := sock.recv(1 << 16):
        received += data
    return bytes(received)


class Process:
    """The process of the proxy plane, and the port to it, with blocking calls."""

    def __init__(self, folder: Path, descriptors: int = 0) -> None:
        self.path = str(folder / "proxy.sock")
        commands = socket.socket(socket.AF_UNIX)
        commands.bind(self.path)
        commands.listen(16)
        self._alive, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            _run_worker(commands, theirs, descriptors)
        theirs.close()
        commands.close()
        self._runner = asyncio.Runner()
        self.plane = ProxyPlane(self.path)
        assert self.observe() == []

    def apply(self, *operations: Operation) -> list[Refused]:
        return self._runner.run(self.plane.apply(operations))

    def observe(self) -> list[ServiceState]:
        return self._runner.run(self.plane.observe())

    def service(self, key: ServiceKey) -> ServiceState:
        return next(state for state in self.observe() if state.service.key == key)

    def connections(self) -> list[Connection]:
        return self._runner.run(self.plane.connections())

    def set_local(self, *addresses: str) -> None:
        self._runner.run(self.plane.set_local(frozenset(addresses), frozenset(addresses)))

    def running(self) -> bool:
        """Whether the process is still there."""
        return os.waitpid(self.pid, os.WNOHANG) == (0, 0)

    def descriptors(self) -> list[str]:
        """Return what each open descriptor of the process refers to."""
        folder = Path(f"/proc/{self.pid}/fd")
        found = []
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(entry))
        return found

    def resident(self) -> int:
        """Return the process's anonymous memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon")

    def stop(self) -> None:
        self._runner.run(self.plane.close())
        self._runner.close()
        self._alive.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    # -- what most tests need ----------------------------------------------------------------------------------

    def serve(self, *servers: ServerEntry, protocol: Protocol = Protocol.TCP, scheduler: str = "rr") -> ServiceKey:
        """Make a service on a free port, with ``servers`` added in this order."""
        kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
        key = ServiceKey(protocol, Endpoint(VIRTUAL, free_port(VIRTUAL, kind)))
        added = [AddServer(key, server) for server in servers]
        assert self.apply(AddService(ServiceEntry(key=key, scheduler=scheduler)), *added) == []
        assert self.service(key).listening == ("" if servers else "no server")
        return key

    def wait_idle(self, key: ServiceKey) -> ServiceState:
        """Wait until no connection is open; return the service then."""

        def idle() -> ServiceState | None:
            state = self.service(key)
            return None if any(s.active or s.inactive for s in state.servers) else state

        return wait_until(idle, "no open connection")


def _run_worker(commands: socket.socket, alive: socket.socket, descriptors: int) -> None:
    """Run the plane in the child, which keeps no descriptor of the test but two sockets; never returns."""
    status = 1
    try:
        commands, alive = (socket.socket(fileno=os.dup2(s.detach(), n)) for s, n in ((commands, 240), (alive, 241)))
        os.closerange(3, 240)
        os.closerange(242, 1 << 16)
        commands, alive = (socket.socket(fileno=os.dup2(s.detach(), n)) for s, n in ((commands, 3), (alive, 4)))
        os.closerange(5, 242)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1):
            os.dup2(null, standard)
        os.close(null)
        if descriptors:
            import resource

            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        worker.serve(commands, alive)
        status = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())  # sys.stderr is the test's, and closed here
    finally:
        os._exit(status)


@contextlib.contextmanager
def proxy_process(descriptors: int = 0) -> Iterator[Process]:
    """A proxy plane for the time of a test."""
    with tempfile.TemporaryDirectory(prefix="relevo-") as folder:
        process = Process(Path(folder), descriptors)
        try:
            yield process
        finally:
            process.stop()


def echo(name: str) -> Callable[[socket.socket], None]:
    """Send the name, echo everything, end when the client ends."""

    def handle(sock: socket.socket) -> None:
        sock.sendall(name.encode() + b"\n")
        while data := sock.recv(1 << 16):
            sock.sendall(data)

    return handle


class Backend:
    """A TCP server that hands every connection to ``handle`` in a thread of its own."""

    def __init__(self, handle: Callable[[socket.socket], None], address: str = SERVERS + "1", port: int = 0) -> None:
        self._handle = handle
        self.socket = socket.create_server((address, port), backlog=512)
        self.endpoint = Endpoint(*self.socket.getsockname()[:2])
        self.accepted = 0
        self.errors: list[BaseException] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def entry(self) -> ServerEntry:
        return ServerEntry(endpoint=self.endpoint)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.socket.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(30.0)
            try:
                self._handle(sock)
            except OSError:
                pass  # a test that cares about a reset checks it at the client
            except BaseException as error:
                self.errors.append(error)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class DatagramBackend:
    """A UDP server that replies with its name and what it received."""

    def __init__(self, name: str, address: str = SERVERS + "1") -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.endpoint = Endpoint(*self.socket.getsockname()[:2])
        self._name = name.encode()
        self.received: list[bytes] = []
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    @property
    def entry(self) -> ServerEntry:
        return ServerEntry(endpoint=self.endpoint)

    def _answer(self) -> None:
        while True:
            data, address = self.socket.recvfrom(1 << 16)
            if data == b"stop":
                return
            self.received.append(data)
            self.socket.sendto(self._name + b"\n" + data, address)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"stop", (self.endpoint.address, self.endpoint.port))
        self._thread.join(PATIENCE_S)
        self.socket.close()


def refusing(address: str = SERVERS + "9") -> ServerEntry:
    """A server whose port is closed."""
    return ServerEntry(endpoint=Endpoint(address, free_port(address)))


def dial(key: ServiceKey, client: str = CLIENT, *, limit_s: float = 15.0) -> socket.socket:
    """Connect to a service from ``client``."""
    target = (key.endpoint.address, key.endpoint.port)
    sock = socket.create_connection(target, timeout=limit_s, source_address=(client, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
