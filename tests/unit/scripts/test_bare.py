"""``scripts/bare`` where no bare machine can be made, and the messages of all scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"
TOOLS = (
    "bash",
    "dirname",
    "env",
    "findmnt",
    "grep",
    "awk",
    "sort",
    "sed",
    "xargs",
    "rm",
    "id",
    "git",
    "setpriv",
    "mktemp",
    "tail",
    "tr",
    "sleep",
    "echo",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the scripts, and a PATH in it that leads to a few tools: no unshare, no debootstrap, no apt-get."""
    made = tmp_path / "checkout"
    shutil.copytree(SCRIPTS, made / "scripts")
    tools = made / "tools"
    tools.mkdir()
    for name in TOOLS:
        if found := shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            (tools / name).symlink_to(found)
    return made


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": str(checkout / "tools")}
    return subprocess.run(arguments, cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_where_no_root_can_be_made_a_sentence_says_why_and_the_command_runs_here(checkout: Path) -> None:
    done = run(checkout, "scripts/bare", "bash", "-c", "echo in $PWD; exit 7")
    assert (done.returncode, done.stdout) == (7, f"in {checkout}\n")
    (line,) = done.stderr.splitlines()
    why = "unshare and setpriv (util-linux) are not installed" if os.geteuid() == 0 else "only root can make one"
    assert line.startswith(f"bare: no bare machine, because {why}: ")


def test_without_a_command_it_says_what_it_takes(checkout: Path) -> None:
    done = run(checkout, "scripts/bare")
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: scripts/bare" in done.stderr


def test_a_step_that_fails_shows_the_end_of_its_output_and_one_that_does_not_shows_none(checkout: Path) -> None:
    script = """
        . scripts/progress
        run_with_progress "one step" bash -c 'echo all is well'
        run_with_progress "another step" bash -c 'printf "%s\\\\n" {1..100}; echo no such mirror >&2; exit 100' || say "status $?"
    """
    done = run(checkout, "bash", "-c", script, "setup")
    first, *others = done.stderr.splitlines()
    assert first == "setup: one step"
    assert others[0] == "setup: another step"
    assert others[-2:] == ["    no such mirror", "setup: status 100"]
    assert len(others) < 30
