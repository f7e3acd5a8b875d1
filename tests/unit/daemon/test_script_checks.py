"""MISC_CHECK between the balancer, which wants a command to run, and the supervisor, which runs what the file says."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from relevo.daemon.check_scripts import CheckScripts
from relevo.daemon.messages import CancelCheck, RunCheck, ScriptEnded
from relevo.daemon.script_checks import ScriptChecks
from relevo.host.run_command import wait_by_descriptors
from relevo.machines.check import Failure, Result, Weight
from relevo.model import Configuration, Endpoint, Protocol, RealServer, Script, VirtualServer
from relevo.model.checks import CheckTiming, MiscCheck

TIMING = CheckTiming(delay_loop_s=5.0, retry=0, delay_before_retry_s=1.0, warmup_s=0.0, alpha=False)
SERVER = Endpoint("10.0.0.1", 80)
KEY = ("[192.0.2.1]:tcp:80", SERVER, ("MISC_CHECK", 0))


def misc(*argv: str, dynamic: bool = False, timeout_s: float = 5.0) -> MiscCheck:
    return MiscCheck(timing=TIMING, script=Script(argv), timeout_s=timeout_s, dynamic=dynamic)


def file(*checks: MiscCheck) -> Configuration:
    server = RealServer(endpoint=SERVER, checks=checks)
    service = VirtualServer(endpoint=Endpoint("192.0.2.1", 80), protocol=Protocol.TCP, real_servers=(server,))
    return Configuration(virtual_servers=(service,))


# -- the balancer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "dynamic", "result"),
    [
        (0, False, Result()),
        (0, True, Result()),
        (1, True, Result(Failure.SCRIPT, "why")),
        (2, False, Result(Failure.SCRIPT, "why")),
        (2, True, Result(detail="why", weight=Weight(0, instead=True))),
        (255, True, Result(detail="why", weight=Weight(253, instead=True))),
        (-1, True, Result(Failure.SCRIPT, "why")),
        (None, False, Result(detail="not known: why")),
    ],
)
def test_what_an_exit_status_means(status: int | None, dynamic: bool, result: Result) -> None:
    sent: list[Any] = []
    checks = ScriptChecks(sent.append)
    checks.start(KEY, misc("/check", dynamic=dynamic))
    assert sent == [RunCheck(1, KEY[0], str(SERVER), 0)]
    assert checks.ended(ScriptEnded(1, status, "why")) == [(KEY, result)]
    assert checks.ended(ScriptEnded(1, status, "why")) == []


def test_a_cancelled_check_has_no_result_and_the_next_one_has_its_own() -> None:
    sent: list[Any] = []
    checks = ScriptChecks(sent.append)
    checks.start(KEY, misc("/check"))
    checks.cancel(KEY)
    checks.cancel(KEY)
    checks.start(KEY, misc("/check"))
    assert sent == [RunCheck(1, KEY[0], str(SERVER), 0), CancelCheck(1), RunCheck(2, KEY[0], str(SERVER), 0)]
    assert checks.ended(ScriptEnded(1, 1, "late")) == []
    assert checks.ended(ScriptEnded(2, 0)) == [(KEY, Result())]


# -- the supervisor -------------------------------------------------------------------------------------------------------


def script(folder: Path, text: str) -> str:
    path = folder / "check"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def run(configuration: Configuration, *wanted: RunCheck | CancelCheck, answers: int = 1) -> tuple[list[ScriptEnded], list[str]]:
    """Give these messages to a supervisor; return its answers and its lines."""
    sent: list[ScriptEnded] = []
    lines: list[str] = []

    async def work() -> None:
        wait_by_descriptors()
        scripts = CheckScripts(sent.append, lambda text, _severity: lines.append(text))
        scripts.configure(configuration)
        for each in wanted:
            scripts.handle(each)
            await asyncio.sleep(0)
        async with asyncio.timeout(10.0):
            while len(sent) < answers:
                await asyncio.sleep(0.01)
        await scripts.stop()

    asyncio.run(work())
    return sent, lines


def asked(number: int = 1, check: int = 0) -> RunCheck:
    return RunCheck(number, KEY[0], str(SERVER), check)


def test_the_status_of_a_command_is_reported(tmp_path: Path) -> None:
    path = script(tmp_path, "exit $1")
    configuration = file(misc(path, "0"), misc(path, "7"))
    sent, lines = run(configuration, asked(1, 0), asked(2, 1), answers=2)
    assert sorted(sent, key=lambda each: each.number) == [ScriptEnded(1, 0), ScriptEnded(2, 7, "exited with status 7")]
    assert lines == []


def test_a_command_without_end_is_killed(tmp_path: Path) -> None:
    sent, _ = run(file(misc(script(tmp_path, "sleep 100 & wait"), timeout_s=0.2)), asked())
    assert (sent[0].status, sent[0].reason) == (-1, "killed: it ran longer than 0.2 s")


def test_a_command_that_kills_itself_has_failed(tmp_path: Path) -> None:
    sent, _ = run(file(misc(script(tmp_path, "kill -9 $$"))), asked())
    assert sent == [ScriptEnded(1, -1, "ended by signal 9")]


def test_a_command_that_cannot_run_is_said_once_and_is_no_failure(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    sent, lines = run(file(misc(missing)), asked(1), asked(2), answers=2)
    assert [each.status for each in sent] == [None, None]
    assert lines == [f"MISC_CHECK cannot run: {missing}: No such file or directory. Its servers count as up, as in keepalived"]


def test_nothing_runs_that_the_file_does_not_say(tmp_path: Path) -> None:
    """A balancer that has been broken into can have a declared check run, and nothing else."""
    configuration = file(misc(script(tmp_path, f"touch {tmp_path}/ran")))
    wanted = [asked(1, 1), RunCheck(2, "another", str(SERVER), 0), RunCheck(3, KEY[0], f"{tmp_path}/check", 0)]
    sent, _ = run(configuration, *wanted, answers=3)
    assert {each.reason for each in sent} == {"there is no such check"}
    assert not (tmp_path / "ran").exists()


def test_a_balancer_that_asks_without_end_gets_two_commands_a_check(tmp_path: Path) -> None:
    configuration = file(misc(script(tmp_path, "sleep 100")))
    sent, _ = run(configuration, *map(asked, range(1, 21)), answers=18)
    assert {each.reason for each in sent} == {"too many commands run"}


def test_a_command_whose_result_nobody_needs_is_ended(tmp_path: Path) -> None:
    path = script(tmp_path, f"echo $$ > {tmp_path}/pid; sleep 100")
    pid_file = tmp_path / "pid"

    async def work() -> list[ScriptEnded]:
        wait_by_descriptors()
        sent: list[ScriptEnded] = []
        scripts = CheckScripts(sent.append, lambda text, severity: None)
        scripts.configure(file(misc(path)))
        scripts.handle(asked())
        async with asyncio.timeout(10.0):
            while not pid_file.exists() or not pid_file.read_text().strip():
                await asyncio.sleep(0.01)
            scripts.handle(CancelCheck(1))
            scripts.handle(CancelCheck(1))
            while Path(f"/proc/{pid_file.read_text().strip()}").exists():
                await asyncio.sleep(0.01)
        await scripts.stop()
        return sent

    assert asyncio.run(work()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run it as another user")
def test_a_command_runs_as_its_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    check = misc(script(tmp_path, "test $(id -u) = 65534"))
    user = Script(check.script.argv, "nobody")
    for folder in tmp_path.parents:
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o005)
    sent, _ = run(file(MiscCheck(timing=TIMING, script=user, timeout_s=5.0)), asked())
    assert sent == [ScriptEnded(1, 0)]
