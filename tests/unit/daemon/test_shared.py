"""A snapshot is collected once for all who ask meanwhile, and never before they ask."""

from __future__ import annotations

import asyncio

import pytest

from relevo.daemon import shared
from relevo.daemon.shared import Shared


def test_who_asks_together_gets_the_same_and_who_asks_later_something_newer() -> None:
    async def work() -> None:
        begun, gate = 0, asyncio.Event()

        async def collect() -> int:
            nonlocal begun
            begun += 1
            number = begun
            await gate.wait()
            return number

        snapshots = Shared(collect)
        first = [asyncio.create_task(snapshots.get()) for _ in range(5)]
        while not begun:
            await asyncio.sleep(0)
        later = [asyncio.create_task(snapshots.get()) for _ in range(5)]  # the first has begun: it may know nothing of these
        for _ in range(10):
            await asyncio.sleep(0)
        assert begun == 1
        gate.set()
        assert await asyncio.gather(*first) == [1] * 5
        assert await asyncio.gather(*later) == [2] * 5

    asyncio.run(work())


def test_a_collection_that_takes_long_has_a_pause_behind_it() -> None:
    async def work() -> float:
        async def collect() -> None:
            await asyncio.sleep(0.01)

        snapshots = Shared(collect)
        loop = asyncio.get_running_loop()
        await snapshots.get()
        begun = loop.time()
        await snapshots.get()
        return loop.time() - begun

    assert asyncio.run(work()) >= 0.19


def test_a_collection_that_fails_fails_for_those_who_wait_for_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "PAUSE", 0)

    async def work() -> None:
        results = [RuntimeError("once"), None]

        async def collect() -> str:
            error = results.pop(0)
            if error is not None:
                raise error
            return "fine"

        snapshots = Shared(collect)
        with pytest.raises(RuntimeError, match="once"):
            await snapshots.get()
        assert await snapshots.get() == "fine"

    asyncio.run(work())


def test_a_client_that_leaves_takes_nothing_from_the_others() -> None:
    async def work() -> None:
        async def collect() -> str:
            await asyncio.sleep(0.02)
            return "fine"

        snapshots = Shared(collect)
        one, other = asyncio.create_task(snapshots.get()), asyncio.create_task(snapshots.get())
        await asyncio.sleep(0.005)
        one.cancel()
        assert await other == "fine"

    asyncio.run(work())
