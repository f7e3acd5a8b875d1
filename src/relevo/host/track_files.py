"""Watches files with a number (keepalived.conf(5), "track_file"): inotify on their directories.

A file is read when a writer has closed it or it was moved in, so that a half-written number is never read. A directory
that does not exist, or cannot be watched, is tried again; ``sweep`` does that.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

from relevo.config.strtol import strtol
from relevo.errors import HostError
from relevo.host import libc
from relevo.model import TrackFile

IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_FROM: Final = 0x40
IN_MOVED_TO: Final = 0x80
IN_DELETE: Final = 0x200
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
WATCHED: Final = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE

READ_LENGTH: Final = 127
"""Bytes of a file that are read; keepalived reads as many."""
FILE_MODE: Final = 0o600
_EVENT: Final = struct.Struct("iIII")


class FileWatcher:
    """Watches the directories of ``files``. It blocks never: a file that is a pipe, a directory or a device counts as 0."""

    def __init__(self) -> None:
        self._descriptor = libc.open_inotify()
        self._files: tuple[TrackFile, ...] = ()
        self._folders: dict[int, str] = {}
        self._unwatched: set[str] = set()

    def fileno(self) -> int:
        """Return the inotify descriptor: it is readable when ``changed`` has something to tell."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor, and with it all watches."""
        os.close(self._descriptor)

    def watch(self, files: Iterable[TrackFile]) -> None:
        """Watch these files instead of the former ones."""
        os.close(self._descriptor)
        self._descriptor = libc.open_inotify()
        self._files, self._folders = tuple(files), {}
        self._unwatched = {folder_of(file) for file in self._files}
        self._watch_folders()

    def _watch_folders(self) -> None:
        for folder in sorted(self._unwatched):
            try:
                self._folders[libc.add_inotify_watch(self._descriptor, folder, WATCHED)] = folder
            except OSError:
                continue
            self._unwatched.discard(folder)

    def changed(self) -> list[TrackFile]:
        """Read the waiting events; return the files that may have another number now."""
        found: set[tuple[str, str]] = set()
        everything = False
        while True:
            try:
                data = os.read(self._descriptor, 65_536)
            except BlockingIOError:
                break
            offset = 0
            while offset < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, offset)
                name = data[offset + _EVENT.size :][:length].rstrip(b"\0")
                offset += _EVENT.size + length
                everything |= bool(mask & IN_Q_OVERFLOW)
                folder = self._folders.get(watch, "")
                if mask & IN_IGNORED:  # the directory is gone
                    self._folders.pop(watch, None)
                    self._unwatched.add(folder)
                    everything = True
                found.add((folder, os.fsdecode(name)))
        return [file for file in self._files if everything or (folder_of(file), os.path.basename(file.path)) in found]

    def sweep(self) -> list[TrackFile]:
        """Try again to watch directories; return the files in those that are not, or were not until now."""
        former = set(self._unwatched)
        if former:
            self._watch_folders()
        return [file for file in self._files if folder_of(file) in former]


def folder_of(file: TrackFile) -> str:
    """Return the directory of a file."""
    return os.path.dirname(os.path.abspath(file.path))


def read_number(path: str) -> int:
    """Return the number at the beginning of a file, as strtol(3) with base 0 reads it; 0 if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return 0
    try:
        data = os.read(descriptor, READ_LENGTH) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    found = strtol(data.decode("latin-1"))
    return found[0] if found is not None else 0


def write_first_number(file: TrackFile, *, starting: bool) -> None:
    """Write ``init_value`` if the file does not exist, and with ``init_overwrite`` at the start of the daemon in any case.

    ``HostError`` if it cannot be written; a file that is no regular one, or a link, is left alone.
    """
    if file.init_value is None:
        return
    overwrite = file.init_overwrite and starting
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | (0 if overwrite else os.O_EXCL)
    try:
        descriptor = os.open(file.path, flags, FILE_MODE)
    except FileExistsError:
        return
    except (OSError, ValueError) as error:
        raise HostError(f"cannot write {file.path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise HostError(f"{file.path} is not a file: the number is not written")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{file.init_value}\n".encode())
    except OSError as error:
        raise HostError(f"cannot write {file.path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
