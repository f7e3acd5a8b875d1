"""An intruder: what somebody tries who runs code in a process of the daemon. Each attempt says what succeeded.

``attempts`` runs in the process itself, after it has given up its privileges. It imports nothing then.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from relevo.daemon.confinement import Role
from relevo.host.landlock import Access

_libc = ctypes.CDLL(None, use_errno=True)
_seccomp = ctypes.CDLL("libseccomp.so.2")

FAMILIES = {
    name: getattr(socket, name)
    for name in ("AF_INET", "AF_INET6", "AF_PACKET", "AF_NETLINK", "AF_UNIX", "AF_VSOCK", "AF_ALG", "AF_BLUETOOTH", "AF_CAN")
    if hasattr(socket, name)
}
CALLS = """
    execve execveat ptrace process_vm_readv process_vm_writev process_madvise kcmp unshare setns mount umount2 pivot_root chroot
    open_tree move_mount fsopen fsmount name_to_handle_at open_by_handle_at init_module finit_module delete_module kexec_load
    reboot swapon swapoff settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname acct quotactl
    keyctl add_key request_key perf_event_open userfaultfd io_uring_setup io_uring_enter pidfd_open pidfd_getfd
    pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo setuid setreuid setresuid setgid setresgid setgroups capset chown
    fchown fchownat mknod mknodat link linkat symlink symlinkat chmod iopl ioperm modify_ldt personality
    sched_setscheduler setpriority syslog bpf landlock_create_ruleset seccomp
"""
BAD = ctypes.c_void_p(1)
"""An address that is none: a call that reaches its own code fails with EFAULT or the like, not with EPERM."""
TIOCSTI = 0x5412


def attempts(role: Role, files: dict[str, Path], victim: int) -> Iterator[str]:
    """Try everything that ``role`` does not have; yield a line for each attempt that succeeded.

    ``files``: "secret" may be read by every user, "open" be written by every user, "folder" takes files of every user; "program"
    can be executed. ``victim`` is a process of the same user or another. None of them is the role's business.
    """
    readable = any(access & Access.READ_FILE and files["secret"].is_relative_to(path) for path, access in role.files)
    for what, act in _on_files(files).items():
        if not (readable and what == "read a file"):
            yield from _outcome(what, act)
    yield from _outcome("read an account's password", lambda: os.open("/etc/shadow", os.O_RDONLY))
    yield from _outcome("read another process's environment", lambda: os.open(f"/proc/{victim}/environ", os.O_RDONLY))
    for number in (0, 10, 9):
        yield from _outcome(f"signal {number} to another process", lambda n=number: os.kill(victim, n))  # type: ignore[misc]
    yield from _outcome("execute a program", lambda: os.execv(files["program"], [str(files["program"])]))
    if not role.processes:
        yield from _outcome("fork", _fork)
    for name, family in FAMILIES.items():
        if family not in role.families:
            yield from _outcome(f"socket of {name}", lambda f=family: socket.socket(f, socket.SOCK_DGRAM))  # type: ignore[misc]
    for name in CALLS.split():
        if name not in role.calls:
            yield from _call(name)
    yield from _outcome("type into the terminal", lambda: _check(_libc.ioctl(0, TIOCSTI, ctypes.byref(ctypes.c_char(b"x")))))
    yield from _outcome("become root", lambda: os.setuid(0))


def _on_files(files: dict[str, Path]) -> dict[str, Callable[[], object]]:
    def create(name: str) -> int:
        return os.open(files["folder"] / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    return {
        "read a file": lambda: os.open(files["secret"], os.O_RDONLY),
        "list a folder": lambda: os.listdir(files["folder"]),
        "write to a file": lambda: os.open(files["open"], os.O_WRONLY),
        "empty a file": lambda: os.truncate(files["open"], 0),
        "make a file": lambda: create("made"),
        "make a folder": lambda: os.mkdir(files["folder"] / "made-folder"),
        "remove a file": lambda: os.unlink(files["open"]),
        "rename a file": lambda: os.rename(files["open"], files["folder"] / "renamed"),
    }


def _outcome(what: str, act: Callable[[], object]) -> Iterator[str]:
    try:
        act()
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOENT, errno.ESRCH, errno.EAFNOSUPPORT):
            yield f"{what}: {error}"
    else:
        yield what


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _call(name: str) -> Iterator[str]:
    number = _seccomp.seccomp_syscall_resolve_name(name.encode())
    if number < 0:
        return  # this architecture does not have it
    ctypes.set_errno(0)
    result = _libc.syscall(ctypes.c_long(number), BAD, BAD, BAD, BAD, BAD, BAD)
    if result != -1 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
        yield f"system call {name}: {os.strerror(ctypes.get_errno()) if result == -1 else 'done'}"


def files_in(folder: Path) -> dict[str, Path]:
    """Make the files in ``folder``, which every user can enter."""
    folder.chmod(0o777)
    made = {name: folder / name for name in ("secret", "open", "program")}
    for name, path in made.items():
        path.write_text("#!/bin/sh\n")
        path.chmod(0o666 if name == "open" else 0o755)
    return {**made, "folder": folder}
