"""Files: configurations and what they include, and the daemon's own folders."""

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
"""Octets of a configuration file: ten times that of 100 000 real servers."""
MIN_KEY: Final = 16
"""Octets of a key: what is shorter can be tried out."""
MAX_KEY: Final = 4096


def read_configuration(path: str) -> str:
    """Return the text of a configuration file; ``ConfigurationError`` when it cannot be had."""
    try:
        with open(path, "rb") as file:
            if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                raise ConfigurationError(f"{path} is a directory")
            data = file.read(MAX_CONFIGURATION + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint="name the file with -f") from error
    if len(data) > MAX_CONFIGURATION:
        raise ConfigurationError(f"{path} is larger than {MAX_CONFIGURATION} octets")
    return data.decode("utf-8", "replace")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe that nobody writes to would hold us up


def read_key(path: str) -> bytes:
    """Return the key in a file, without the end of its last line; ``HostError`` when it is none, or others may read it."""
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
        raise HostError(f"{path}: a key has {MIN_KEY} to {MAX_KEY} octets", hint=f"openssl rand -base64 32 > {path}")
    return key


_BRACES = re.compile(r"\{([^{}]*)\}")


def _expand_braces(pattern: str) -> list[str]:
    match = _BRACES.search(pattern)
    if match is None or "," not in match.group(1):
        return [pattern]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [found for part in match.group(1).split(",") for found in _expand_braces(head + part + tail)]


def read_included(pattern: str, including: str) -> list[Included]:
    """Return the files that match ``pattern`` (globs and braces), relative to the including file's folder."""
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
    """Return the folder of sockets, private to us; it is made if it is not there."""
    if given is None:
        base = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/relevo-{os.getuid()}"  # noqa: S108
        given = os.path.join(base, "relevo")
    return private_directory(Path(given))


def state_directory(given: str | None, runtime: Path) -> Path:
    """Return the folder of what survives a restart (queued mails)."""
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
    """Make ``path`` with mode 0700, or make sure that it is ours and nobody else can write it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise HostError(f"cannot make {path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise HostError(f"{path} is not a folder that only we can write", hint="remove it, or name another one")
    return path
