"""What happens to connections, as the programs tell it: a ring in memory that the kernel writes and we read (5.8).

The layout is that of the kernel's user interface: a page with our position, which we write; a page with the kernel's, and
behind it the records, mapped twice in a row so that none is ever cut.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from typing import Final

from relevo.planes.ebpf.layout import Event
from relevo.planes.ebpf.syscall import Map

BUSY: Final = 1 << 31
"""The record is still being written."""
DISCARDED: Final = 1 << 30
HEADER: Final = 8
_WORD: Final = 8


class Ring:
    """The events of one instance, read by one reader. What is not read in time is lost, and counted by the programs."""

    def __init__(self, events: Map) -> None:
        self._size = events.max_entries
        self._ours = mmap.mmap(events.descriptor, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        length = mmap.PAGESIZE + 2 * self._size
        self._theirs = mmap.mmap(events.descriptor, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)
        self._position = memoryview(self._ours).cast("Q")
        self._written = memoryview(self._theirs)[:_WORD].cast("Q")

    def read(self, limit: int) -> list[Event]:
        """Return up to ``limit`` events, oldest first; none are waited for. A descriptor's readiness tells of new ones."""
        return [event for _, event in zip(range(limit), self._records(), strict=False)]

    def _records(self) -> Iterator[Event]:
        while (at := self._position[0]) != self._written[0]:
            begin = mmap.PAGESIZE + at % self._size
            word = int.from_bytes(self._theirs[begin : begin + 4], "little")
            if word & BUSY:
                return
            octets = word & ~(BUSY | DISCARDED)
            event = None
            if not word & DISCARDED and octets >= ctypes.sizeof(Event):
                event = Event.from_buffer_copy(self._theirs, begin + HEADER)
            self._position[0] = at + (HEADER + octets + _WORD - 1) // _WORD * _WORD
            if event is not None:
                yield event

    def close(self) -> None:
        """Let go of the memory."""
        self._position.release()
        self._written.release()
        self._ours.close()
        self._theirs.close()
