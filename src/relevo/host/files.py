"""Files that are written, keys, and the daemon's directories."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from relevo.errors import ConfigurationError, HostError
from relevo.host.configuration_file import without_waiting

MIN_KEY: Final = 16
"""Shortest key in bytes: a shorter one can be found by trying."""
MAX_KEY: Final = 4096
MAX_PASSWORD: Final = 4096
PID_FILE_MODE: Final = 0o644


def replace_configuration(path: str, text: str) -> None:
    """Write a configuration file at once, and leave its owner and mode. ``ConfigurationError`` if it cannot be written."""
    target = Path(os.path.realpath(path))
    try:
        former = target.stat()
        owner = (former.st_uid, former.st_gid) if os.geteuid() == 0 else None
        write_at_once(target, text.encode("utf-8", "surrogateescape"), stat.S_IMODE(former.st_mode), owner)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error


def write_at_once(path: Path, content: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Write a file so that a reader finds the former content or the new one, never a part. It follows no link."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, mode)
            if owner is not None:
                os.fchown(descriptor, *owner)
            file.flush()
            os.fsync(descriptor)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_pid_file(path: Path, pid: int) -> None:
    """Write a PID file, so that no reader finds it empty; ``HostError`` if that fails."""
    content = f"{pid}\n".encode()
    try:
        if path.exists() and not path.is_file():  # a device, or a pipe
            path.write_bytes(content)
        else:
            write_at_once(path, content, PID_FILE_MODE)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from error


def remove_pid_file(path: Path) -> None:
    """Remove a PID file, if it is a file."""
    if path.is_file():
        path.unlink(missing_ok=True)


def read_key(path: str) -> bytes:
    """Return the key in a file, without trailing line ends; ``HostError`` if it is no key, or if others may read the file."""
    key = _read_private(path, "the key", MAX_KEY)
    if not MIN_KEY <= len(key) <= MAX_KEY:
        raise HostError(f"{path}: a key has {MIN_KEY} to {MAX_KEY} bytes", hint=f"openssl rand -base64 32 > {path}")
    return key


def read_password(path: str) -> str:
    """Return the password in a file, without trailing line ends; ``HostError`` as for ``read_key``."""
    try:
        return _read_private(path, "the password", MAX_PASSWORD).decode()
    except UnicodeDecodeError:
        raise HostError(f"{path}: the password is no UTF-8") from None


def _read_private(path: str, what: str, limit: int) -> bytes:
    """Return at most one byte more than ``limit`` of a file that nobody but its owner may read."""
    try:
        with open(path, "rb", opener=without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise HostError(f"{path} is not a file")
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise HostError(f"{path}: others may read {what}", hint=f"chmod 600 {path}")
            return file.read(limit + 1).rstrip(b"\r\n")
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error


def runtime_directory(given: str | None) -> Path:
    """Return the directory of sockets, private to this user; create it if it does not exist."""
    if given is None:
        base = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/relevo-{os.getuid()}"  # noqa: S108
        given = os.path.join(base, "relevo")
    return private_directory(Path(given))


def state_directory(given: str | None, runtime: Path) -> Path:
    """Return the directory of data that survives a restart (queued mails)."""
    if given is not None:
        return private_directory(Path(given))
    if os.geteuid() == 0:
        try:
            return private_directory(Path("/var/lib/relevo"))
        except HostError:
            return private_directory(runtime / "state")
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    try:
        return private_directory(Path(base) / "relevo")
    except HostError:
        return private_directory(runtime / "state")


def private_directory(path: Path) -> Path:
    """Create ``path`` with mode 0700, or check that it belongs to this user and that others cannot write to it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise HostError(f"cannot create {path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise HostError(f"{path} is not a directory that only this user can write to", hint="remove it, or name another one")
    return path
