"""Files with a number (keepalived.conf(5), "track_file")."""

from __future__ import annotations

import os
import stat
from typing import Final

from relevo.errors import HostError
from relevo.host.watched_files import read_beginning
from relevo.model import TrackFile
from relevo.strtol import strtol

READ_LENGTH: Final = 127
"""Bytes of a file that are read; keepalived reads as many."""
FILE_MODE: Final = 0o600


def read_number(path: str) -> int:
    """Return the number at the beginning of a file, as strtol(3) with base 0 reads it; 0 if there is none."""
    found = strtol((read_beginning(path, READ_LENGTH) or b"").decode("latin-1"))
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
