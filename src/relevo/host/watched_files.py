"""Watches files that others write: inotify on their directories.

A file has changed when a writer has closed it or it was moved in, so that a half-written one is never read. A directory that
does not exist, or cannot be watched, is tried again; ``sweep`` does that. Reading waits for nothing.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

from relevo.host import libc

IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_FROM: Final = 0x40
IN_MOVED_TO: Final = 0x80
IN_DELETE: Final = 0x200
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
WATCHED: Final = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE

_EVENT: Final = struct.Struct("iIII")


class FileWatcher:
    """Watches files by their directories."""

    def __init__(self) -> None:
        self._descriptor = libc.open_inotify()
        self._files: tuple[str, ...] = ()
        self._folders: dict[int, str] = {}
        self._unwatched: set[str] = set()

    def fileno(self) -> int:
        """Return the inotify descriptor: it is readable when ``changed`` has something to tell."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor, and with it all watches."""
        os.close(self._descriptor)

    def watch(self, files: Iterable[str]) -> None:
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

    def changed(self) -> list[str]:
        """Read the waiting events; return the files that may have changed."""
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
        return [file for file in self._files if everything or (folder_of(file), os.path.basename(file)) in found]

    def sweep(self) -> list[str]:
        """Try again to watch directories; return the files in those that are not, or were not until now."""
        former = set(self._unwatched)
        if former:
            self._watch_folders()
        return [file for file in self._files if folder_of(file) in former]


def folder_of(file: str) -> str:
    """Return the directory of a file."""
    return os.path.dirname(os.path.abspath(file))


def read_beginning(path: str, length: int) -> bytes | None:
    """Return the first ``length`` bytes of a regular file, ``None`` if there is none: a pipe, a directory or a device is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return os.read(descriptor, length) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)
