"""Forked workers and the loop that they were forked from."""

from __future__ import annotations

import asyncio
import os

from relevo.daemon.processes import fork
from relevo.host.run_command import Outcome, run_command, wait_by_descriptors


def test_a_fork_leaves_the_loop_s_commands_alone() -> None:
    async def work() -> Outcome:
        wait_by_descriptors()
        command = asyncio.create_task(run_command(["/bin/sleep", "0.3"], limit_s=30.0))
        await asyncio.sleep(0.1)
        pid = fork(lambda: None, "forked", [])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        async with asyncio.timeout(10):
            return (await command).outcome

    assert asyncio.run(work()) is Outcome.EXITED


def test_a_worker_has_a_loop_of_its_own() -> None:
    async def work() -> int:
        wait_by_descriptors()
        pid = fork(lambda: asyncio.run(asyncio.sleep(0)), "forked", [])
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert asyncio.run(work()) == 0
