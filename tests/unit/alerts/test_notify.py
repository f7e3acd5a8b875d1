"""Notify scripts: in order, bounded in time, with the arguments as they are, and never through a shell."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relevo.alerts import notify
from relevo.alerts.notify import Notifier
from relevo.host import run_command
from relevo.model import GlobalDefs, Script

OWN = {"script_user": "root"} if os.geteuid() == 0 else {}
"""Scripts run as the user that runs the tests."""


def script(folder: Path, name: str, body: str) -> Script:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return Script((str(path),))


def run(*jobs: tuple[Script | None, tuple[str, ...]], limit_s: float = 5.0, **globals_: object) -> tuple[Notifier, list[str]]:
    """Run scripts to their end; return the notifier and what it logged."""
    lines: list[str] = []

    async def work() -> Notifier:
        notifier = Notifier(lambda text, level: lines.append(f"{level} {text}"))
        notifier.configure(GlobalDefs(**{**OWN, **globals_}))  # type: ignore[arg-type]
        for one, arguments in jobs:
            notifier.run(one, *arguments)
        await notifier.flush(limit_s)
        return notifier

    return asyncio.run(work()), lines


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(check: Callable[[], bool], limit_s: float = 5.0) -> bool:
    ends = time.monotonic() + limit_s
    while not check() and time.monotonic() < ends:
        time.sleep(0.01)
    return check()


def test_scripts_run_one_after_the_other_in_the_order_of_the_events(tmp_path: Path) -> None:
    log = tmp_path / "log"
    slow = script(tmp_path, "slow", f"sleep 0.15; echo slow $1 >> {log}")
    fast = script(tmp_path, "fast", f"echo fast $1 >> {log}")
    notifier, lines = run((slow, ("1",)), (fast, ("2",)), (slow, ("3",)), (fast, ("4",)))
    assert log.read_text().split("\n") == ["slow 1", "fast 2", "slow 3", "fast 4", ""]
    assert (notifier.failed, lines) == (0, [])


def test_without_a_script_nothing_happens() -> None:
    notifier, lines = run((None, ("a",)))
    assert (notifier.failed, lines) == (0, [])


def test_arguments_follow_the_script_s_own_unchanged(tmp_path: Path) -> None:
    out = tmp_path / "out"
    own = script(tmp_path, "own", f"printf '%s\\n' \"$@\" > {out}")
    hostile = ("$(touch pwned)", "; touch pwned", "`touch pwned`", "a b", "", "*", "'\"\\", "| cat", "é\n2", "--help", "&&")
    run((Script((*own.argv, "first", "with blank")), hostile))
    assert out.read_text() == "".join(f"{a}\n" for a in ("first", "with blank", *hostile))
    assert not list(tmp_path.glob("**/pwned"))
    assert not Path("pwned").exists()


def test_a_path_with_shell_characters_is_a_path(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run((script(tmp_path, "odd; name $(x) &", f"echo ran > {out}"), ()))
    assert out.read_text() == "ran\n"


def test_a_script_reads_nothing_and_its_output_goes_nowhere(tmp_path: Path) -> None:
    out = tmp_path / "out"
    noisy = script(tmp_path, "noisy", f"cat > {out}; yes | head -c 300000; yes | head -c 300000 >&2; echo done >> {out}")
    notifier, _ = run((noisy, ()))
    assert out.read_text() == "done\n"
    assert notifier.failed == 0


def test_the_log_says_why_a_script_failed(tmp_path: Path) -> None:
    failing = script(tmp_path, "failing", "exit 3")
    dying = script(tmp_path, "dying", "kill -KILL $$")
    not_executable = script(tmp_path, "plain", "exit 0")
    Path(not_executable.argv[0]).chmod(0o644)
    no_program = script(tmp_path, "no-program", "")
    Path(no_program.argv[0]).write_text("no interpreter line")
    missing = Script((str(tmp_path / "missing"),))
    null = Script((str(tmp_path / "fail\0ing"),))
    good = script(tmp_path, "good", "exit 0")
    notifier, lines = run(*((s, ()) for s in (failing, dying, not_executable, no_program, missing, null, good)))
    assert lines == [
        f"4 script {tmp_path}/failing: exited with status 3",
        f"4 script {tmp_path}/dying: ended by signal 9",
        f"4 script {tmp_path}/plain: not run: Permission denied",
        f"4 script {tmp_path}/no-program: not run: Exec format error",
        f"4 script {tmp_path}/missing: not run: No such file or directory",
        f"4 script {tmp_path}/fail\0ing: not run: embedded null byte",
    ]
    assert notifier.failed == 6


def test_a_script_that_runs_too_long_is_ended_with_its_children_and_the_next_one_runs(tmp_path: Path) -> None:
    pids, out = tmp_path / "pids", tmp_path / "out"
    hanging = script(tmp_path, "hanging", f"sleep 60 & echo $! $$ > {pids}; wait")
    after = script(tmp_path, "after", f"echo ran > {out}")
    notifier, lines = run((hanging, ()), (after, ()), script_timeout_s=0.2)
    assert lines == [f"4 script {tmp_path}/hanging: killed: it ran longer than 0.2 s"]
    assert notifier.failed == 1
    assert out.read_text() == "ran\n"
    assert wait_until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))


def test_a_script_that_ignores_term_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_command, "KILL_AFTER_S", 0.1)
    pid = tmp_path / "pid"
    stubborn = script(tmp_path, "stubborn", f"trap '' TERM; echo $$ > {pid}; while :; do sleep 0.05; done")
    _, lines = run((stubborn, ()), script_timeout_s=0.2)
    assert lines == [f"4 script {tmp_path}/stubborn: killed: it ran longer than 0.2 s"]
    assert not alive(int(pid.read_text()))


def test_a_child_that_ignores_term_is_killed_after_the_script_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_command, "KILL_AFTER_S", 0.1)
    pid = tmp_path / "pid"
    child = script(tmp_path, "child", f"trap '' TERM; echo $$ > {pid}; while :; do sleep 0.05; done")
    parent = script(tmp_path, "parent", f"{child.argv[0]} & wait")
    run((parent, ()), script_timeout_s=0.3)
    number = int(pid.read_text())
    try:
        assert wait_until(lambda: not alive(number), 1.0)
    finally:
        if alive(number):
            os.kill(number, signal.SIGKILL)


def test_a_process_that_a_script_leaves_in_the_background_goes_on(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    starter = script(tmp_path, "starter", f"sleep 30 & echo $! > {pid}")
    notifier, _ = run((starter, ()))
    assert notifier.failed == 0
    assert alive(int(pid.read_text()))
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_a_flush_waits_no_longer_than_its_limit(tmp_path: Path) -> None:
    hanging = script(tmp_path, "hanging", "exec sleep 2")
    begun = time.monotonic()
    run((hanging, ()), limit_s=0.1)
    assert time.monotonic() - begun < 1.5


def test_a_flush_that_gives_up_ends_the_script(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    hanging = script(tmp_path, "hanging", f"echo $$ > {pid}; exec sleep 60")
    run((hanging, ()), limit_s=0.3)
    number = int(pid.read_text())
    try:
        assert wait_until(lambda: not alive(number), 1.0)
    finally:
        if alive(number):
            os.kill(number, signal.SIGKILL)


def test_scripts_beyond_the_queue_limit_are_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "MAX_WAITING", 3)
    one = script(tmp_path, "one", "exit 0")
    notifier, lines = run(*((one, ()) for _ in range(5)))
    assert notifier.failed == 2
    assert lines == [f"4 script {tmp_path}/one not run: 3 others are waiting"] * 2


def test_an_idle_notifier_runs_the_next_script(tmp_path: Path) -> None:
    out = tmp_path / "out"
    one = script(tmp_path, "one", f"echo $1 >> {out}")

    async def work() -> None:
        notifier = Notifier(lambda text, level: None)
        notifier.configure(GlobalDefs(**OWN))
        for number in range(3):
            notifier.run(one, str(number))
            await notifier.flush(5.0)

    asyncio.run(work())
    assert out.read_text() == "0\n1\n2\n"


# -- identity and caution -------------------------------------------------------------------------------------------------


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: scripts keep this user")


@pytest.mark.usefixtures("as_root")
def test_a_script_runs_as_the_user_that_it_names_or_else_as_the_script_user(tmp_path: Path) -> None:
    nobody = Script(("/bin/sh", "-c", 'test "$(id -un)" = nobody'), user="nobody")
    inherited = Script(("/bin/sh", "-c", 'test "$(id -un):$(id -G)" = "nobody:$(id -g nobody)"'))
    notifier, lines = run((nobody, ()), (inherited, ()), script_user="nobody")
    assert (notifier.failed, lines) == (0, [])


@pytest.mark.usefixtures("as_root")
def test_a_user_that_does_not_exist_runs_nothing() -> None:
    notifier, lines = run((Script(("/bin/true",), user="no-such-user"), ()))
    assert notifier.failed == 1
    assert lines[0].startswith("4 script /bin/true: not run: no such user or group:")


@pytest.mark.usefixtures("as_root")
def test_a_script_that_others_can_write_is_refused_only_under_script_security(tmp_path: Path) -> None:
    out = tmp_path / "out"
    open_ = script(tmp_path, "open", f"echo ran >> {out}")
    Path(open_.argv[0]).chmod(0o777)
    notifier, lines = run((open_, ()), enable_script_security=True)
    assert not out.exists()
    assert lines == [f"4 script {tmp_path}/open: not run: {tmp_path}/open can be written by others than root"]
    notifier, lines = run((open_, ()))
    assert out.read_text() == "ran\n"
    assert notifier.failed == 0
