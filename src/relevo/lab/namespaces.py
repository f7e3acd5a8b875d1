"""Network namespaces without names. A process holds each and dies with its parent, so that a crash leaves none behind."""

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
"""How long a link may take to get its carrier: the kernel handles link events once a second, in one queue for all namespaces."""


class NetworkNamespaces:
    """Namespaces by name. Only this object knows the names; for the system, they belong to their holders' process ids."""

    def __init__(self) -> None:
        self._holders: dict[str, tuple[int, int]] = {}  # name → (pid of the holder, descriptor of its namespace)
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def make(self, name: str) -> None:
        """Fork a process that makes a network namespace and sleeps in it until this process ends."""
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
        """Process id of a namespace's holder, for moving interfaces into the namespace."""
        return self._holders[name][0]

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Put this thread into a namespace while the context lasts. Sockets and processes that it makes there stay there."""
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
    """Body of a holder; never returns."""
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
    """Open a netlink socket in the namespace of this thread."""
    import pyroute2

    with pyroute2.IPRoute() as ip:
        yield ip


def index_of(ip: Any, name: str) -> int:
    return int(ip.link_lookup(ifname=name)[0])


def bring_up(ip: Any, name: str) -> None:
    ip.link("set", index=index_of(ip, name), state="up")


def await_carrier(ip: Any, name: str) -> None:
    """Wait until an interface that is up has its carrier: until then the kernel silently drops what it should send."""
    index = index_of(ip, name)
    deadline = time.monotonic() + CARRIER_S
    while str(ip.get_links(index)[0].get_attr("IFLA_OPERSTATE")) != "UP":
        if time.monotonic() > deadline:
            raise LabError(f"{name} has no carrier after {CARRIER_S:.0f} s: is the other end of its cable up?")
        time.sleep(0.02)


def become_root_of_a_user_namespace() -> None:
    """Enter a user namespace as its root; ``OSError`` where that is not allowed. It cannot be undone.

    The process also enters a new network namespace: it may leave the machine's, but could not return to it.
    """
    uid, gid = os.geteuid(), os.getegid()
    libc.unshare(libc.CLONE_NEWUSER | libc.CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")


def own_bpf_file_system() -> None:
    """Give this thread and its children a private BPF file system, which ends with them.

    An eBPF data plane is pinned so that it outlives its daemon; those of the lab must not outlive the lab, however it ends.
    Where the mount is not allowed, the eBPF plane is not either.
    """
    with contextlib.suppress(OSError):
        libc.unshare(libc.CLONE_NEWNS)
        libc.make_mounts_private()
        libc.mount("bpf", "/sys/fs/bpf", "bpf")


def unavailable_reason() -> str:
    """Return why network namespaces cannot be made here; empty when they can. A child tries: a user namespace is for good."""
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
