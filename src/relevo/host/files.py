"""Files: configurations with their includes, keys, and the daemon's directories."""

from __future__ import annotations

import glob
import os
import re
import stat
from pathlib import Path
from typing import Final

from relevo.config import Included
from relevo.errors import ConfigurationError, HostError

DEFAULT_CONFIGURATION: Final = "/etc/keepalived/keepalived.conf"
MAX_CONFIGURATION: Final = 256 << 20
"""Largest configuration file in bytes: ten times one of 100 000 real servers."""
MIN_KEY: Final = 16
"""Shortest key in bytes: a shorter one can be found by trying."""
MAX_KEY: Final = 4096


def read_configuration(path: str) -> str:
    """Return the text of a configuration file; ``ConfigurationError`` if it cannot be read."""
    try:
        with open(path, "rb") as file:
            if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                raise ConfigurationError(f"{path} is a directory")
            data = file.read(MAX_CONFIGURATION + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint="name the file with -f") from error
    if len(data) > MAX_CONFIGURATION:
        raise ConfigurationError(f"{path} is larger than {MAX_CONFIGURATION} bytes")
    return data.decode("utf-8", "replace")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # opening a pipe without a writer must not block


def read_key(path: str) -> bytes:
    """Return the key in a file, without trailing line ends; ``HostError`` if it is no key, or if others may read the file."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise HostError(f"{path} is not a file")
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise HostError(f"{path}: others may read the key", hint=f"chmod 600 {path}")
            key = file.read(MAX_KEY + 1).rstrip(b"\r\n")
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error
    if not MIN_KEY <= len(key) <= MAX_KEY:
        raise HostError(f"{path}: a key has {MIN_KEY} to {MAX_KEY} bytes", hint=f"openssl rand -base64 32 > {path}")
    return key


_BRACES = re.compile(r"\{([^{}]*)\}")


def _expand_braces(pattern: str) -> list[str]:
    match = _BRACES.search(pattern)
    if match is None or "," not in match.group(1):
        return [pattern]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [found for part in match.group(1).split(",") for found in _expand_braces(head + part + tail)]


def read_included(pattern: str, including: str) -> list[Included]:
    """Return the files that match ``pattern`` (globs and braces), relative to the directory of the including file."""
    folder = os.path.dirname(os.path.abspath(including))
    found: list[Included] = []
    for one in _expand_braces(pattern):
        for path in sorted(glob.glob(os.path.join(folder, one))):
            if not os.path.isfile(path):
                continue  # directories and devices are skipped, as keepalived does
            try:
                found.append(Included(path, read_configuration(path)))
            except ConfigurationError as error:
                found.append(Included(path, error=str(error)))
    return found


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
