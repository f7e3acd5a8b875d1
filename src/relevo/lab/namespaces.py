"""Network namespaces without names: each is held by a process that dies with us, so that a crash leaves none behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from relevo.errors import LabError
from relevo.host import libc

CARRIER_S: Final = 10.0
"""How long a cable may take: the kernel looks after links once a second, and all namespaces share its queue."""


class NetworkNamespaces:
    """Namespaces by name. The name is ours alone; the system knows them by their holders."""

    def __init__(self) -> None:
        self._holders: dict[str, tuple[int, int]] = {}  # name → (pid of the holder, descriptor of its namespace)
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def make(self, name: str) -> None:
        """Fork a process that makes a network namespace and sleeps in it until we end."""
        reader, writer = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _hold(writer, parent)
        os.close(writer)
        answer = os.read(reader, 200)
        os.close(reader)
        if answer != b"ok":
            os.waitpid(pid, 0)
            raise LabError(f"cannot make a network namespace: {answer.decode() or 'its holder died'}")
        self._holders[name] = (pid, os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def holder(self, name: str) -> int:
        """Process id that stands for a namespace, for moving interfaces into it."""
        return self._holders[name][0]

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Be in a namespace while the context lasts: this thread only, and what it makes there stays there."""
        libc.setns(self._holders[name][1], libc.CLONE_NEWNET)
        try:
            yield
        finally:
            libc.setns(self._home, libc.CLONE_NEWNET)

    def close(self) -> None:
        """End the holders; the namespaces go with them."""
        for pid, descriptor in self._holders.values():
            os.close(descriptor)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self._holders.clear()
        os.close(self._home)


def _hold(writer: int, parent: int) -> None:
    """Be a holder; never returns."""
    try:
        libc.die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        libc.unshare(libc.CLONE_NEWNET)
        libc.set_process_name("relevo-lab-net")
        os.write(writer, b"ok")
        os.close(writer)
        while os.getppid() == parent:
            signal.pause()
    except OSError as error:
        os.write(writer, str(error).encode())
    finally:
        os._exit(0)


@contextlib.contextmanager
def netlink() -> Iterator[Any]:
    """A netlink socket in the namespace that this thread is in."""
    import pyroute2

    with pyroute2.IPRoute() as ip:
        yield ip


def index_of(ip: Any, name: str) -> int:
    """Index of an interface."""
    return int(ip.link_lookup(ifname=name)[0])


def bring_up(ip: Any, name: str) -> None:
    """Set an interface up."""
    ip.link("set", index=index_of(ip, name), state="up")


def await_carrier(ip: Any, name: str) -> None:
    """Wait until an interface that is up has its carrier: until then the kernel drops what it should send without a word."""
    index = index_of(ip, name)
    deadline = time.monotonic() + CARRIER_S
    while str(ip.get_links(index)[0].get_attr("IFLA_OPERSTATE")) != "UP":
        if time.monotonic() > deadline:
            raise LabError(f"{name} has no carrier after {CARRIER_S:.0f} s: is the other end of its cable up?")
        time.sleep(0.02)


def become_root_of_a_user_namespace() -> None:
    """Enter a user namespace in which we are root; ``OSError`` where that is not allowed. Cannot be undone.

    A network namespace of our own comes with it: we could leave the machine's, but not come back to it.
    """
    uid, gid = os.geteuid(), os.getegid()
    libc.unshare(libc.CLONE_NEWUSER | libc.CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")


def own_bpf_file_system() -> None:
    """Give this thread, and what it starts, a BPF file system that is gone with them.

    An eBPF data plane is pinned so that it outlives its daemon; those of the lab shall not outlive the lab, however it ends.
    Where it is not allowed there is no such plane either.
    """
    with contextlib.suppress(OSError):
        libc.unshare(libc.CLONE_NEWNS)
        libc.make_mounts_private()
        libc.mount("bpf", "/sys/fs/bpf", "bpf")


def unavailable_reason() -> str:
    """Say why no namespaces can be made here, or nothing. Tried in a child: entering a user namespace cannot be undone."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() != 0:
                become_root_of_a_user_namespace()
            libc.unshare(libc.CLONE_NEWNET)
            with netlink() as ip:
                ip.link("add", ifname="t0", kind="veth", peer={"ifname": "t1"})
                ip.link("add", ifname="br0", kind="bridge")
        except BaseException as error:
            os.write(writer, str(error).encode()[:200] or b"refused")
        os._exit(0)
    os.close(writer)
    answer = b""
    while data := os.read(reader, 200):
        answer += data
    os.close(reader)
    os.waitpid(pid, 0)
    return answer.decode("utf-8", "replace")
