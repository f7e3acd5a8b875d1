"""The lab and its drill as a user runs them. Nothing of the lab is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.netns.conftest import FILES, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(params=["namespaces", "loopback"])
def stage_name(request: pytest.FixtureRequest, namespace_refusal: str) -> str:
    if request.param == "namespaces" and namespace_refusal:
        pytest.skip(f"no network namespaces: {namespace_refusal}")
    return request.param


def lab(*arguments: str, **options: object) -> subprocess.Popen[str]:
    """Start the lab as from a terminal: with SIGINT handled, which a shell ignores for background jobs."""
    argv = [sys.executable, "-m", "relevo", "lab", *arguments]
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


def children_of(pid: int) -> set[int]:
    """Return the process ids of all descendants of ``pid``."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found: set[int] = set()
    while True:
        more = {p for p, parent in parents.items() if parent in found | {pid}} - found
        if not more:
            return found
        found |= more


def alive(pids: set[int]) -> set[int]:
    def lives(pid: int) -> bool:
        try:
            return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False

    return set(filter(lives, pids))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(stage_name: str, number: signal.Signals) -> None:
    tmp_path = Path(tempfile.mkdtemp(prefix="r-"))  # short: paths of Unix sockets are limited
    process = lab("up", "--stage", stage_name, *FILES, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("relevo status"):
            break
    wait_until(lambda: len(children_of(process.pid)) > 8, 10.0, "the machines of the lab")
    family = children_of(process.pid)
    try:
        process.send_signal(number)
        process.wait(timeout=15)
        wait_until(lambda: not alive(family), 8.0, "every process of the lab ends")
    finally:
        for pid in (*alive(family), process.pid):  # a process that stays would disturb the following tests
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.communicate()
    if number is not signal.SIGKILL:
        assert list(tmp_path.iterdir()) == [], "files were left"
    shutil.rmtree(tmp_path)


def test_a_step_that_fails_makes_the_drill_fail(tmp_path: Path) -> None:
    """The servers fail their checks, because the declared digest is wrong."""
    text = Path(FILES[0]).read_text()
    text = text.replace("TCP_CHECK {", "HTTP_GET {\n url {\n path /\n digest 00000000000000000000000000000000\n }\n", 1)
    file = tmp_path / "broken.conf"
    file.write_text(text)
    process = lab("drill", "-j", "--speed-up", "20", "--stage", "loopback", str(file))
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert any(not o["passed"] for o in json.loads(out))
