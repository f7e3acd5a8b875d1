"""Commands: how they end, the time limit, the identity, and arguments that no shell sees."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relevo.errors import HostError
from relevo.host import run_command as module
from relevo.host.run_command import (
    CommandResult,
    Identity,
    Outcome,
    find_identity,
    insecure,
    interpreted,
    prepare,
    run_command,
    wait_by_descriptors,
)
from relevo.model import GlobalDefs, Script

BRIEF_S = 2.0
"""Time limit of commands that exceed it: on a busy machine a shell needs a part of it to get where the test wants it."""
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="not root: commands keep this user")


def script(folder: Path, name: str, body: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def run(*argv: str, limit_s: float = 10.0, identity: Identity | None = None) -> CommandResult:
    return asyncio.run(run_command(argv, limit_s=limit_s, identity=identity))


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(check: Callable[[], bool], limit_s: float = 10.0) -> bool:
    ends = time.monotonic() + limit_s
    while not check() and time.monotonic() < ends:
        time.sleep(0.01)
    return check()


def test_status_0_succeeds_without_a_reason() -> None:
    result = run("/bin/sh", "-c", "exit 0")
    assert result == CommandResult(Outcome.EXITED)
    assert (result.succeeded, result.reason) == (True, "")


@pytest.mark.parametrize("status", [1, 2, 255])
def test_another_status_is_returned(status: int) -> None:
    result = run("/bin/sh", "-c", f"exit {status}")
    assert result == CommandResult(Outcome.EXITED, status, f"exited with status {status}")
    assert not result.succeeded


def test_a_signal_is_returned() -> None:
    result = run("/bin/sh", "-c", "kill -SEGV $$")
    assert result == CommandResult(Outcome.SIGNALLED, signal.SIGSEGV, "ended by signal 11")
    assert not result.succeeded


def test_a_command_that_cannot_start_has_a_reason(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no interpreter line")
    reasons = {str(tmp_path / "missing"): "No such file or directory", str(plain): "Permission denied"}
    for path, reason in reasons.items():
        assert run(path) == CommandResult(Outcome.NOT_STARTED, 0, f"not run: {reason}")
    plain.chmod(0o755)
    assert run(str(plain)).reason == "not run: Exec format error"
    assert run("/bin/sh", "-c", "exit 0", "a\0b").reason == "not run: embedded null byte"
    assert not run(str(plain)).succeeded


def test_arguments_reach_the_program_as_they_are(tmp_path: Path) -> None:
    out = tmp_path / "out"
    hostile = ("$(touch pwned)", "; touch pwned", "`touch pwned`", "a b", "", "*", "'\"\\", "| cat", "é\n2", "--help", "&&")
    assert run(script(tmp_path, "odd; name $(x) &", f"printf '%s\\n' \"$@\" > {out}"), *hostile).succeeded
    assert out.read_text() == "".join(f"{argument}\n" for argument in hostile)
    assert not list(tmp_path.glob("**/pwned"))
    assert not Path("pwned").exists()


def test_a_command_reads_nothing_and_its_output_is_dropped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    noisy = script(tmp_path, "noisy", f"cat > {out}; yes | head -c 300000; yes | head -c 300000 >&2; echo done >> {out}")
    assert run(noisy).succeeded
    assert out.read_text() == "done\n"
    assert capfd.readouterr() == ("", "")


def test_many_commands_end_without_a_thread_for_each() -> None:
    async def many() -> tuple[list[CommandResult], int]:
        wait_by_descriptors()
        tasks = [asyncio.create_task(run_command(["/bin/sleep", "0.2"], limit_s=10.0)) for _ in range(30)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        threads = threading.active_count()
        return await asyncio.gather(*tasks), threads

    former = threading.active_count()
    assert asyncio.run(many()) == ([CommandResult(Outcome.EXITED)] * 30, former)


def test_a_command_leads_its_own_session(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("/bin/sh", "-c", f"echo $$ $(cut -d' ' -f6 /proc/$$/stat) > {out}").succeeded
    pid, session = out.read_text().split()
    assert pid == session
    assert int(session) != os.getsid(0)


def test_the_time_limit_ends_a_command_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    result = run(script(tmp_path, "hanging", f"sleep 60 & echo $! $$ > {pids}; wait"), limit_s=BRIEF_S)
    assert result == CommandResult(Outcome.TIMED_OUT, 0, f"killed: it ran longer than {BRIEF_S:g} s")
    assert not result.succeeded
    assert wait_until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))


def test_a_command_that_handles_term_may_clean_up(tmp_path: Path) -> None:
    out, ready = tmp_path / "out", tmp_path / "ready"
    tidy = script(tmp_path, "tidy", f"trap 'echo cleaned > {out}; exit 0' TERM; touch {ready}; while :; do sleep 0.02; done")
    assert run(tidy, limit_s=BRIEF_S).outcome is Outcome.TIMED_OUT
    assert ready.exists()
    assert out.read_text() == "cleaned\n"


def test_a_command_that_ignores_term_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KILL_AFTER_S", 0.1)
    pid = tmp_path / "pid"
    stubborn = script(tmp_path, "stubborn", f"trap '' TERM; echo $$ > {pid}; while :; do sleep 0.05; done")
    assert run(stubborn, limit_s=BRIEF_S).outcome is Outcome.TIMED_OUT
    assert not alive(int(pid.read_text()))


def test_a_child_that_ignores_term_is_killed_after_its_parent_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KILL_AFTER_S", 0.1)
    pid = tmp_path / "pid"
    child = script(tmp_path, "child", f"trap '' TERM; echo $$ > {pid}; while :; do sleep 0.05; done")
    run(script(tmp_path, "parent", f"{child} & wait"), limit_s=BRIEF_S)
    number = int(pid.read_text())
    try:
        assert wait_until(lambda: not alive(number))
    finally:
        if alive(number):
            os.kill(number, signal.SIGKILL)


def test_a_child_left_behind_in_time_goes_on(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    assert run(script(tmp_path, "starter", f"sleep 30 & echo $! > {pid}")).succeeded
    number = int(pid.read_text())
    assert alive(number)
    os.kill(number, signal.SIGKILL)


def test_a_cancelled_caller_ends_the_command(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    hanging = script(tmp_path, "hanging", f"echo $$ > {pid}; exec sleep 60")

    async def work() -> None:
        task = asyncio.create_task(run_command((hanging,), limit_s=60.0))
        while not (pid.exists() and pid.read_text()):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    number = int(pid.read_text())
    try:
        assert wait_until(lambda: not alive(number))
    finally:
        if alive(number):
            os.kill(number, signal.SIGKILL)


@ROOT_ONLY
def test_a_command_runs_as_its_identity_without_other_groups() -> None:
    nobody = pwd.getpwnam("nobody")
    identity = find_identity("nobody")
    groups = os.getgroups()
    os.setgroups([*groups, 65_533])
    try:
        groups_dropped = run("/bin/sh", "-c", 'test "$(id -un):$(id -G)" = "nobody:$(id -g nobody)"', identity=identity)
    finally:
        os.setgroups(groups)
    assert groups_dropped.succeeded
    assert identity == Identity(nobody.pw_uid, nobody.pw_gid)
    assert run("/bin/sh", "-c", 'test "$(id -u):$(id -g)" = "0:0"').succeeded
    assert find_identity("nobody", "root") == Identity(nobody.pw_uid, 0)


@ROOT_ONLY
@pytest.mark.parametrize(("user", "group"), [("no-such-user", ""), ("nobody", "no-such-group")])
def test_a_user_or_group_that_does_not_exist_is_an_error(user: str, group: str) -> None:
    with pytest.raises(KeyError, match="no-such"):
        find_identity(user, group)


@ROOT_ONLY
def test_without_a_user_it_is_the_script_user_where_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEFAULT_USER", "no-such-user")
    assert find_identity("") is None
    monkeypatch.setattr(module, "DEFAULT_USER", "nobody")
    assert find_identity("") == find_identity("nobody")


def test_without_root_the_identity_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert find_identity("no-such-user") is None


@ROOT_ONLY
def test_every_folder_above_a_command_and_the_target_of_a_link_must_belong_to_root(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    inner.chmod(0o777)
    safe = script(inner, "safe", "exit 0")
    assert insecure(safe, None) == f"{inner} can be written by others than root"
    inner.chmod(0o755)
    os.chown(safe, 65_534, -1)
    assert insecure(safe, None) == f"{safe} can be written by others than root"
    link = tmp_path / "link"
    link.symlink_to(safe)
    assert insecure(str(link), None) == f"{safe} can be written by others than root"
    assert insecure(str(tmp_path / "missing"), None) == f"{tmp_path}/missing: No such file or directory"


@ROOT_ONLY
def test_a_command_below_a_sticky_folder_of_root_is_secure_as_in_keepalived(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    safe = script(shared, "safe", "exit 0")
    shared.chmod(0o1777)
    assert insecure(safe, None) == ""
    Path(safe).chmod(0o1777)
    assert insecure(safe, None) == f"{safe} can be written by others than root", "the sticky bit counts for folders only"


@ROOT_ONLY
def test_a_command_that_another_group_may_write_is_insecure(tmp_path: Path) -> None:
    one = script(tmp_path, "one", "exit 0")
    Path(one).chmod(0o775)
    os.chown(one, 0, 65_534)
    assert insecure(one, None) == f"{one} can be written by others than root"


@ROOT_ONLY
def test_a_command_of_the_system_is_secure_and_one_that_does_not_run_as_root_need_not_be(tmp_path: Path) -> None:
    assert insecure("/bin/sh", None) == ""
    assert insecure("/bin/sh", Identity(0, 0)) == ""
    one = script(tmp_path, "one", "exit 0")
    Path(one).chmod(0o777)
    assert insecure(one, Identity(65_534, 65_534)) == ""


@pytest.mark.parametrize(
    "before",
    ["/bin/sh", "/bin/bash -x", "/usr/bin/env bash", "/usr/bin/env -i A=1 python3.11 -u", "busybox sh"],
)
def test_the_file_that_an_interpreter_runs_is_looked_at_too(tmp_path: Path, before: str) -> None:
    script = tmp_path / "script"
    script.touch()
    assert interpreted([*before.split(), str(script), "/etc/passwd"]) == [str(script)]


@pytest.mark.parametrize("line", ["/bin/sh -c true", "/bin/sh", "/usr/bin/logger SCRIPT", "/bin/sh missing", "/opt/mysh SCRIPT"])
def test_what_is_no_interpreter_or_no_file_is_not(tmp_path: Path, line: str) -> None:
    assert interpreted(line.replace("SCRIPT", "/etc/passwd").split()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="for root's scripts")
def test_a_script_that_others_can_write_to_does_not_run_as_root_by_way_of_a_shell(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o777)
    defaults = GlobalDefs(enable_script_security=True, script_user="root")
    with pytest.raises(HostError, match="can be written by others"):
        prepare(Script(("/bin/sh", str(script))), defaults)
    script.chmod(0o755)
    assert prepare(Script(("/bin/sh", str(script))), defaults).argv == ("/bin/sh", str(script))
