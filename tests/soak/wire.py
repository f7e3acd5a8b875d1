"""Cables that can be bad: a director's link is a pair of TAP devices, and a process carries the frames between them.

Delay, jitter (which reorders), duplication and loss need no netem, which many kernels lack.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import select
import socket
import struct
import time
from dataclasses import asdict, dataclass

from relevo.host import libc
from relevo.lab.namespaces import bring_up, index_of, netlink
from relevo.lab.stages import Namespaces
from relevo.lab.topology import Host, Topology

TUNSETIFF, TUNSETCARRIER = 0x400454CA, 0x400454E2
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
MTU_ROOM = 2048
MOST_FRAMES = 5_000
"""Frames that are under way at most; further ones are lost, as in a full queue."""
VRRP, SYNC_PORT = 112, 8848


@dataclass(frozen=True, slots=True)
class Quality:
    """How a cable carries frames, both ways. Probabilities are 0 to 1, times seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Added to the delay, between 0 and this for each frame: those that follow closely change places."""
    silent: bool = False
    """Carry nothing, but keep the carrier: a switch that hangs."""
    deaf: bool = False
    """Carry no adverts and no synchronisation: the directors do not hear each other, and clients reach both."""


GOOD = Quality()


def tap(name: str) -> int:
    """Make a TAP device in the namespace of this thread; it lasts as long as the descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def of_directors(frame: bytes) -> bool:
    """Whether a frame is what directors say to each other: an advert or a sync message over IPv4."""
    if frame[12:14] != b"\x08\x00" or len(frame) < 38:
        return False
    return frame[23] == VRRP or (frame[23] == socket.IPPROTO_UDP and int.from_bytes(frame[36:38], "big") == SYNC_PORT)


class WiredNamespaces(Namespaces):
    """The lab's namespaces, with the directors on cables that can be bad."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self._ends: dict[str, tuple[int, int]] = {}
        self._pid = 0
        self._control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def build(self, topology: Topology) -> Topology:
        """Make the machines, and start what carries the frames."""
        built = super().build(topology)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                libc.die_with_parent()
                libc.set_process_name("soak-wire")
                _carry(list(self._ends.values()), self._theirs, random.Random(self._seed))
            finally:
                os._exit(1)
        return built

    def _connect(self, host: Host, number: int, topology: Topology) -> None:
        if host not in topology.directors:
            super()._connect(host, number, topology)
            return
        port = f"p{number}"
        with self._namespaces.inside("lan"), netlink() as ip:
            switch = tap(port)
            ip.link("set", index=index_of(ip, port), master=index_of(ip, "br0"))
            bring_up(ip, port)
        with self._namespaces.inside(host.name), netlink() as ip:
            machine = tap(host.interface)
            bring_up(ip, "lo")
            ip.addr("add", index=index_of(ip, host.interface), address=host.address, prefixlen=topology.lan.prefixlen)
            bring_up(ip, host.interface)
        self._ends[host.name] = (switch, machine)

    def set_quality(self, host: Host, quality: Quality) -> None:
        """Have the cable of a director carry frames in another way from now on."""
        self._control.send(json.dumps([list(self._ends).index(host.name), asdict(quality)]).encode())

    def set_link(self, host: Host, connected: bool) -> None:
        """Pull a director's cable out, or put it back."""
        if host.name not in self._ends:
            super().set_link(host, connected)
            return
        for end in self._ends[host.name]:
            fcntl.ioctl(end, TUNSETCARRIER, struct.pack("i", connected))

    def _await_carrier(self, host: Host) -> None:
        if host.name not in self._ends:  # a TAP device has its carrier at once
            super()._await_carrier(host)

    def close(self) -> None:
        """Stop what carries the frames, and remove the machines."""
        if self._pid:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)
            self._pid = 0
        for ends in self._ends.values():
            for end in ends:
                os.close(end)
        self._ends.clear()
        self._control.close()
        self._theirs.close()
        super().close()


def _carry(cables: list[tuple[int, int]], control: socket.socket, chance: random.Random) -> None:
    qualities = [GOOD] * len(cables)
    other = {end: (cable, ends[1 - side]) for cable, ends in enumerate(cables) for side, end in enumerate(ends)}
    under_way: list[tuple[float, int, int, bytes]] = []  # due, number, descriptor, frame
    number = 0
    poll = select.epoll()
    for descriptor in (*other, control.fileno()):
        poll.register(descriptor, select.EPOLLIN)
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else -1
        for descriptor, _ in poll.poll(wait):
            if descriptor == control.fileno():
                cable, quality = json.loads(control.recv(4096))
                qualities[cable] = Quality(**quality)
                continue
            cable, target = other[descriptor]
            quality = qualities[cable]
            while (frame := _read(descriptor)) is not None:
                if quality is GOOD:
                    _write(target, frame)
                    continue
                if quality.silent or chance.random() < quality.loss or (quality.deaf and of_directors(frame)):
                    continue
                for _ in range(1 + (chance.random() < quality.duplicate)):
                    number += 1
                    due = time.monotonic() + quality.delay_s + chance.random() * quality.jitter_s
                    if len(under_way) < MOST_FRAMES:
                        heapq.heappush(under_way, (due, number, target, frame))
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, target, frame = heapq.heappop(under_way)
            _write(target, frame)


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, MTU_ROOM)
    except OSError:  # nothing left, or the device is down
        return None


def _write(descriptor: int, frame: bytes) -> None:
    try:
        os.write(descriptor, frame)
    except OSError:  # the device is down, or has no room: the frame is lost
        pass
