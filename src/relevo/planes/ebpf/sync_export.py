"""The sync ring: a BPF ring buffer (Linux 5.8) into which the programs write the entries to send to the other directors.

The layout is that of the kernel's user interface: a page with the consumer's position, which this process writes; a page with the
producer's position; and the data pages, mapped twice in a row so that no record is split at the end. A record is an
entry of IPVS's protocol (``wire.ipvs_sync``).
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
"""Bytes of an IPv6 entry."""
_WORD: Final = Struct("<I")


class Ring:
    """The sync ring of one instance, which has a single reader. The programs count the entries for which the ring has no room."""

    def __init__(self, ring: Map) -> None:
        self._size = ring.max_entries
        self.descriptor = ring.descriptor
        self._consumer_page = mmap.mmap(self.descriptor, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        length = mmap.PAGESIZE + 2 * self._size
        self._producer_pages = mmap.mmap(self.descriptor, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)
        self._consumed = memoryview(self._consumer_page).cast("Q")
        self._produced = memoryview(self._producer_pages)[:8].cast("Q")

    @property
    def room(self) -> int:
        """How many of the largest records fit into an empty ring."""
        return self._size // (HEADER + LONGEST)

    def read(self, limit: int) -> list[bytes]:
        """Return up to ``limit`` records, oldest first, without waiting. The descriptor becomes readable with new ones."""
        records: list[bytes] = []
        at, produced, data, size = self._consumed[0], self._produced[0], self._producer_pages, self._size
        while at != produced and len(records) < limit:
            begin = mmap.PAGESIZE + at % size
            (word,) = _WORD.unpack_from(data, begin)
            if word & BUSY:
                break
            length = word & ~DISCARDED
            if length == word:
                records.append(data[begin + HEADER : begin + HEADER + length])
            at += (HEADER + length + 7) & ~7
        self._consumed[0] = at
        return records

    def skip(self) -> None:
        """Discard all records in the ring."""
        self._consumed[0] = self._produced[0]

    def close(self) -> None:
        """Unmap the ring."""
        self._consumed.release()
        self._produced.release()
        self._consumer_page.close()
        self._producer_pages.close()
