"""Forked workers and the loop that they were forked from."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from relevo.host.fork import fork
from relevo.host.run_command import Outcome, run_command, wait_by_descriptors


def test_a_fork_leaves_the_loop_s_commands_alone(tmp_path: Path) -> None:
    """The command runs before, during and after the fork, and its end is noticed."""
    begun, go = tmp_path / "begun", tmp_path / "go"

    async def work() -> Outcome:
        wait_by_descriptors()
        script = f"touch {begun}; while ! test -e {go}; do sleep 0.02; done"
        command = asyncio.create_task(run_command(["/bin/sh", "-c", script], limit_s=30.0))
        async with asyncio.timeout(20):
            while not begun.exists():
                await asyncio.sleep(0.01)
            pid = fork(lambda: None, "forked", [])
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            go.touch()
            return (await command).outcome

    assert asyncio.run(work()) is Outcome.EXITED


def test_a_worker_has_a_loop_of_its_own() -> None:
    async def work() -> int:
        wait_by_descriptors()
        pid = fork(lambda: asyncio.run(asyncio.sleep(0)), "forked", [])
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert asyncio.run(work()) == 0
