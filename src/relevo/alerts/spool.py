"""The queue of mails on disk: one file for each, named by a growing number, written atomically."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SUFFIX: Final = ".eml"
MAX_MAIL: Final = 1 << 20
"""Longest mail in bytes that is read back; ours have about one thousand."""


class Spool:
    """Mails in ``folder``. If writing fails, a mail is kept in memory: it outlasts a broken mail server, not the daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors = 0
        self.last_error = ""
        self._in_memory: dict[int, bytes] = {}
        self._next = 1

    def recover(self) -> list[int]:
        """Return the numbers of the mails that a former run left, oldest first; remove incomplete ones."""
        numbers = []
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self.folder.iterdir():
                if path.suffix == SUFFIX and path.stem.isdecimal():
                    numbers.append(int(path.stem))
                elif path.suffix == ".part":
                    self._unlink(path)
        except OSError as error:
            self._note(error)
        self._next = max(numbers, default=0) + 1
        return sorted(numbers)

    def add(self, mail: bytes) -> int:
        """Store a mail; return its number."""
        number, self._next = self._next, self._next + 1
        path = self._path(number)
        part = path.with_suffix(".part")
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                view = memoryview(mail)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(part, path)
        except OSError as error:
            self._note(error)
            self._in_memory[number] = mail
            try:
                part.unlink(missing_ok=True)
            except OSError:
                pass
        return number

    def read(self, number: int) -> bytes | None:
        """Return a mail; ``None`` if it does not exist or cannot be read."""
        if number in self._in_memory:
            return self._in_memory[number]
        try:
            with open(self._path(number), "rb") as file:
                return file.read(MAX_MAIL)
        except OSError as error:
            self._note(error)
            return None

    def holds(self, number: int) -> bool:
        """Whether a mail exists, readable or not."""
        return number in self._in_memory or self._path(number).exists()

    def remove(self, number: int) -> None:
        """Delete a mail."""
        self._in_memory.pop(number, None)
        self._unlink(self._path(number))

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._note(error)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012d}{SUFFIX}"

    def _note(self, error: OSError) -> None:
        self.errors += 1
        self.last_error = f"{error.filename or self.folder}: {error.strerror}"
