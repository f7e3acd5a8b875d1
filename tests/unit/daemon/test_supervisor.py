"""The supervisor's handling of workers, without forking any."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from relevo.daemon.channel import AsyncChannel, decode_from_worker
from relevo.daemon.options import Options
from relevo.daemon.processes import Worker
from relevo.daemon.supervisor import Supervisor
from relevo.model import Configuration

BURST = 600
"""Children that end while the loop is busy: more than Python's socket for signals has room for."""


async def _snapshot_after_the_end_was_read(folder: Path) -> tuple[float, bool]:
    supervisor = Supervisor(Options("-", folder, folder), Configuration())
    ours, theirs = socket.socketpair()
    worker = Worker("balancer", 1, AsyncChannel(ours, decode_from_worker), None, 0.0)
    supervisor.workers.present["balancer"] = worker
    worker.reader = asyncio.create_task(supervisor.workers.listen(worker))
    theirs.close()
    await worker.reader
    loop = asyncio.get_running_loop()
    begun = loop.time()
    snapshot = await supervisor.snapshot()
    return loop.time() - begun, snapshot.workers[0].answered


def test_a_worker_that_hung_up_is_not_waited_for(tmp_path: Path) -> None:
    took_s, answered = asyncio.run(_snapshot_after_the_end_was_read(tmp_path))
    assert not answered
    assert took_s < 0.5


def test_a_worker_that_comes_while_others_are_asked_is_in_the_next_status(tmp_path: Path) -> None:
    async def work() -> list[str]:
        supervisor = Supervisor(Options("-", tmp_path, tmp_path), Configuration())
        supervisor.workers.present["proxy"] = Worker("proxy", 1, None, None, 0.0)
        asked = asyncio.create_task(supervisor._take_snapshot())
        await asyncio.sleep(0)
        supervisor.workers.present["director"] = Worker("director", 2, None, None, 0.0)
        return [worker.role for worker in (await asked).workers]

    assert asyncio.run(work()) == ["proxy"]


def test_a_burst_of_scripts_that_end_loses_no_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        supervisor = Supervisor(Options("-", tmp_path, tmp_path), Configuration())
        stopped = asyncio.Event()
        monkeypatch.setattr(supervisor, "stop", lambda at_stop: stopped.set())
        supervisor._handle_signals(asyncio.get_running_loop())
        for _ in range(BURST):
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(30):
            await stopped.wait()

    asyncio.run(work())


@pytest.mark.parametrize("data", [b"\xff" * 64, b"\0\0\0\1\xc1", b"\0\0\0\2\x93\1"])
def test_a_worker_that_sends_what_is_no_message_is_killed(tmp_path: Path, data: bytes) -> None:
    async def work() -> int:
        supervisor = Supervisor(Options("-", tmp_path, tmp_path), Configuration())
        ours, theirs = socket.socketpair()
        victim = await asyncio.create_subprocess_exec("sleep", "60")
        worker = Worker("balancer", victim.pid, AsyncChannel(ours, decode_from_worker), None, 0.0)
        theirs.sendall(data)
        async with asyncio.timeout(10):
            await supervisor.workers.listen(worker)
            return await victim.wait()

    assert asyncio.run(work()) == -9
