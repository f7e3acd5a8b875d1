"""One collection of a snapshot for all who ask meanwhile, and no more of them than a share of the time allows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

PAUSE: Final = 19
"""Pause after a collection, as a multiple of what that took: whoever asks without end has a twentieth of the daemon's time."""
LONGEST_PAUSE_S: Final = 0.5

T = TypeVar("T")


class Shared(Generic[T]):
    """What ``collect`` returns, collected after each was asked for, and never twice at the same time."""

    def __init__(self, collect: Callable[[], Awaitable[T]]) -> None:
        self._collect = collect
        self._next: asyncio.Task[T] | None = None  # a collection that has not begun
        self._present: asyncio.Task[T] | None = None
        self._due = 0.0

    async def get(self) -> T:
        """Return what a collection found that began after this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._wait_and_collect(self._present), name="snapshot")
        return await asyncio.shield(self._next)

    async def _wait_and_collect(self, present: asyncio.Task[T] | None) -> T:
        loop = asyncio.get_running_loop()
        if present is not None:
            await asyncio.wait([present])
        await asyncio.sleep(max(0.0, self._due - loop.time()))
        self._present, self._next = self._next, None
        begun = loop.time()
        try:
            return await self._collect()
        finally:
            self._due = loop.time() + min(PAUSE * (loop.time() - begun), LONGEST_PAUSE_S)
