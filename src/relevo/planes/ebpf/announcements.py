"""What the programs tell other directors of connections: a ring in memory that the kernel writes and we read (5.8).

The layout is that of the kernel's user interface: a page with our position, which we write; a page with the kernel's, and
behind it the records, mapped twice in a row so that none is ever cut. A record is an entry
of IPVS's message (``wire.ipvs_sync``).
"""

from __future__ import annotations

import mmap
from struct import Struct
from typing import Final

from relevo.planes.ebpf.syscall import Map

BUSY: Final = 1 << 31
"""The record is still being written."""
DISCARDED: Final = 1 << 30
HEADER: Final = 8
LONGEST: Final = 72
"""Octets of an entry of IPv6."""
_WORD: Final = Struct("<I")


class Ring:
    """The announcements of one instance, read by one reader. What is not read in time is lost, and counted by the programs."""

    def __init__(self, announcements: Map) -> None:
        self._size = announcements.max_entries
        self.descriptor = announcements.descriptor
        self._ours = mmap.mmap(self.descriptor, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        length = mmap.PAGESIZE + 2 * self._size
        self._theirs = mmap.mmap(self.descriptor, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)
        self._position = memoryview(self._ours).cast("Q")
        self._written = memoryview(self._theirs)[:8].cast("Q")

    @property
    def room(self) -> int:
        """How many of the largest records fit into a ring that is empty."""
        return self._size // (HEADER + LONGEST)

    def read(self, limit: int) -> list[bytes]:
        """Return up to ``limit`` records, oldest first; none are waited for. A descriptor's readiness tells of new ones."""
        records: list[bytes] = []
        at, written, data, size = self._position[0], self._written[0], self._theirs, self._size
        while at != written and len(records) < limit:
            begin = mmap.PAGESIZE + at % size
            (word,) = _WORD.unpack_from(data, begin)
            if word & BUSY:
                break
            octets = word & ~DISCARDED
            if octets == word:
                records.append(data[begin + HEADER : begin + HEADER + octets])
            at += (HEADER + octets + 7) & ~7
        self._position[0] = at
        return records

    def skip(self) -> None:
        """Let what is in the ring be."""
        self._position[0] = self._written[0]

    def close(self) -> None:
        """Let go of the memory."""
        self._position.release()
        self._written.release()
        self._ours.close()
        self._theirs.close()
