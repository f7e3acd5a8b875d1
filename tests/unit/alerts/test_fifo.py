"""Pipes for events: real FIFOs, with and without a reader."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from relevo.alerts import fifo
from relevo.alerts.fifo import Fifos
from relevo.model import GlobalDefs, Script
from relevo.model.process import NotifyFifo, NotifyFifos

OWN = {"script_user": "root"} if os.geteuid() == 0 else {}


class Office:
    """Pipes, and what they logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fifos = Fifos(lambda text, level: self.lines.append(text))

    def configure(self, **declared: NotifyFifo) -> None:
        self.fifos.configure(GlobalDefs(fifos=NotifyFifos(**declared), **OWN))  # type: ignore[arg-type]


def run(work: Callable[[Office], Coroutine[Any, Any, None]]) -> list[str]:
    office = Office()

    async def main() -> None:
        await work(office)
        await office.fifos.close(2.0)

    asyncio.run(main())
    return office.lines


def read(path: Path) -> str:
    """What is in the pipe now."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, 1 << 20).decode()
    except BlockingIOError:
        return ""
    finally:
        os.close(descriptor)


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10.0):
        while not condition():
            await asyncio.sleep(0.01)


def test_each_pipe_gets_its_events_in_order_and_is_gone_afterwards(tmp_path: Path) -> None:
    pipes = {name: tmp_path / name for name in ("everything", "vrrp", "services")}

    async def work(office: Office) -> None:
        office.configure(**{name: NotifyFifo(path=str(path)) for name, path in pipes.items()})
        assert stat.S_IMODE(pipes["vrrp"].stat().st_mode) == 0o600
        office.fifos.vrrp("INSTANCE", "VI 1", "MASTER", 150)
        office.fifos.services("VS [192.0.2.1]:tcp:80 UP")
        office.fifos.vrrp("GROUP", "G", "MASTER", 0)
        assert read(pipes["everything"]) == 'INSTANCE "VI 1" MASTER 150\nVS [192.0.2.1]:tcp:80 UP\nGROUP "G" MASTER 0\n'
        assert read(pipes["vrrp"]) == 'INSTANCE "VI 1" MASTER 150\nGROUP "G" MASTER 0\n'
        assert read(pipes["services"]) == "VS [192.0.2.1]:tcp:80 UP\n"

    assert run(work) == []
    assert not any(path.exists() for path in pipes.values())


def test_no_line_is_lost_while_the_reader_is_slow(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    count = 5000  # more than a pipe holds
    found: list[str] = []

    async def work(office: Office) -> None:
        office.configure(vrrp=NotifyFifo(path=str(path)))
        for number in range(count):
            office.fifos.vrrp("INSTANCE", f"V{number:04}", "BACKUP", 100)

        def all_read() -> bool:
            found.extend(read(path).splitlines())
            return len(found) == count

        await wait_for(all_read)

    assert run(work) == []
    assert found == [f'INSTANCE "V{number:04}" BACKUP 100' for number in range(count)]


def test_lines_that_nobody_reads_are_dropped_at_a_limit_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fifo, "MAX_WAITING", 10)
    path = tmp_path / "pipe"

    async def work(office: Office) -> None:
        office.configure(vrrp=NotifyFifo(path=str(path)))
        for number in range(5000):
            office.fifos.vrrp("INSTANCE", f"V{number:04}", "BACKUP", 100)
        read(path)

    assert run(work) == [f"nobody reads {path}: further lines are dropped"]


def test_a_reload_that_changes_the_reader_keeps_the_pipe_and_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    node: list[int] = []
    count = 3000  # more than a pipe holds

    async def work(office: Office) -> None:
        office.configure(vrrp=NotifyFifo(path=str(path)))
        node.append(path.stat().st_ino)
        for number in range(count):
            office.fifos.vrrp("INSTANCE", "a rather long name of an instance", "MASTER", number)
        office.configure(vrrp=NotifyFifo(path=str(path), user="root"))
        office.fifos.vrrp("INSTANCE", "last", "MASTER", count)
        text = ""
        async with asyncio.timeout(10.0):
            while '"last"' not in text:
                text += read(path)
                await asyncio.sleep(0.01)
        assert [int(line.split()[-1]) for line in text.splitlines()] == list(range(count + 1))
        await wait_for(lambda: not office.fifos._tasks)
        assert path.stat().st_ino == node[0], "the pipe that was left must not take the file along"

    run(work)
    assert not path.exists()


def test_a_reload_that_keeps_a_pipe_loses_nothing_and_one_that_removes_it_closes_it(tmp_path: Path) -> None:
    path, other = tmp_path / "pipe", tmp_path / "other"

    async def work(office: Office) -> None:
        office.configure(vrrp=NotifyFifo(path=str(path)))
        office.fifos.vrrp("INSTANCE", "A", "MASTER", 1)
        office.configure(vrrp=NotifyFifo(path=str(path)), services=NotifyFifo(path=str(other)))
        office.fifos.vrrp("INSTANCE", "B", "MASTER", 1)
        assert read(path) == 'INSTANCE "A" MASTER 1\nINSTANCE "B" MASTER 1\n'
        office.configure()
        await wait_for(lambda: not path.exists() and not other.exists())

    assert run(work) == []


def test_a_script_reads_the_pipe_from_the_first_line_to_the_last(tmp_path: Path) -> None:
    path, copy, script = tmp_path / "pipe", tmp_path / "copy", tmp_path / "reader"
    script.write_text(f'#!/bin/sh\necho "$1" > {copy}\nexec cat "$2" >> {copy}\n')
    script.chmod(0o755)

    async def work(office: Office) -> None:
        office.configure(vrrp=NotifyFifo(path=str(path), script=Script((str(script), "word"))))
        office.fifos.vrrp("INSTANCE", "A", "BACKUP", 1)
        await wait_for(lambda: copy.exists() and "BACKUP" in copy.read_text())
        office.fifos.vrrp("INSTANCE", "A", "STOP", 1)

    run(work)
    assert copy.read_text() == 'word\nINSTANCE "A" BACKUP 1\nINSTANCE "A" STOP 1\n'


def test_a_reader_that_ends_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fifo, "RESTART_S", 0.01)
    path, copy, script = tmp_path / "pipe", tmp_path / "copy", tmp_path / "reader"
    script.write_text(f'#!/bin/sh\nread line < "$1"\necho "$line" >> {copy}\n')
    script.chmod(0o755)

    async def work(office: Office) -> None:
        office.configure(vrrp=NotifyFifo(path=str(path), script=Script((str(script),))))
        for number in range(2):
            office.fifos.vrrp("INSTANCE", f"V{number}", "BACKUP", 1)
            await wait_for(lambda number=number: copy.exists() and f"V{number}" in copy.read_text())  # type: ignore[misc]

    assert f"reader of {path} ended with status 0: starting it again" in run(work)


def test_what_is_no_pipe_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(path)

    async def work(office: Office) -> None:
        office.configure(vrrp=NotifyFifo(path=str(path)), services=NotifyFifo(path=str(link)))
        office.fifos.vrrp("INSTANCE", "A", "BACKUP", 1)

    lines = run(work)
    assert len(lines) == 2
    assert f"cannot use the pipe {path}: {path} is not a pipe" in lines
    assert path.read_text() == "precious"
