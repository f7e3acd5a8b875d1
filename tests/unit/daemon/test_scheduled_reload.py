"""The time of a reload: what a line means, and what happens when the file and the clock change."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from datetime import UTC, datetime

import pytest

from relevo.daemon.scheduled_reload import ScheduledReload, reload_time
from relevo.model.process import ReloadSettings

NOW = datetime(2026, 3, 10, 12, 0, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("12:00:01Z", "2026-03-10 12:00:01"),
        ("11:59:59Z", "2026-03-11 11:59:59"),
        ("12:00:00Z", "2026-03-11 12:00:00"),
        ("26-03-10 12:30:00Z", "2026-03-10 12:30:00"),
        ("2027-01-01 00:00:00Z", "2027-01-01 00:00:00"),
        ("68-01-01 00:00:00Z", "2068-01-01 00:00:00"),
    ],
)
def test_a_line_means_a_time(line, expected):
    assert reload_time(line, NOW) == datetime.fromisoformat(f"{expected}+00:00").timestamp()


def test_without_z_the_time_is_local(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Madrid")
    time.tzset()
    try:
        assert reload_time("14:00:00", NOW) == NOW + 3600
        assert reload_time("2026-07-01 14:00:00", NOW) == datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "line",
    [
        "", " 12:00:01", "12:00:01 ", "12:00", "24:00:00", "12:60:00", "2026-02-30 12:00:00", "2026-03-10  12:00:01", "1:00:00",
        "12:00:01z", "\u0661\u0662:00:00", "2026-03-10T12:00:01", "0000-01-01 00:00:00",
    ],
)  # fmt: skip
def test_other_lines_mean_none(line):
    assert "is no time" in reload_time(line, NOW)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "UTC"])
@pytest.mark.parametrize("line", ["0001-01-01 00:00:00", "9999-12-31 23:59:59", "0001-01-01 00:00:00Z"])
def test_the_ends_of_the_calendar_raise_nothing(monkeypatch, zone, line):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert isinstance(reload_time(line, NOW), float | str)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("line", ["69-01-01 00:00:00Z", "2026-03-10 11:59:59Z"])
def test_a_date_in_the_past_is_ignored(line):
    assert reload_time(line, NOW) == f"'{line}' is in the past: ignored"


class Story:
    """A scheduled reload on a clock that the test sets."""

    def __init__(self, path, **settings):
        self.now = NOW
        self.path = path
        self.reloads = 0
        self.lines = []
        self.done = asyncio.Event()
        self.scheduled = ScheduledReload(self.reload, lambda text, severity: self.lines.append(text), lambda: self.now)
        self.scheduled.configure(ReloadSettings(time_file=str(path), **settings))

    def reload(self):
        self.reloads += 1
        self.done.set()

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


def at(seconds):
    return datetime.fromtimestamp(NOW + seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ\n")


def run(story):
    asyncio.run(story)


def test_a_file_that_appears_schedules_a_reload_changes_it_and_cancels_it(tmp_path):
    async def story():
        path = tmp_path / "at"
        told = Story(path)
        assert told.scheduled.at is None
        path.write_text(at(500))
        await told.until(lambda: told.scheduled.at == NOW + 500)
        path.write_text(at(600))
        await told.until(lambda: told.scheduled.at == NOW + 600)
        path.unlink()
        await told.until(lambda: told.scheduled.at is None)
        assert [line.split(" ")[0] for line in told.lines] == ["Scheduling", "Reload", "Cancelling"]
        told.scheduled.close()

    run(story())


DATED, DAILY = at(1), at(1).partition(" ")[2]


@pytest.mark.parametrize(
    ("line", "repeat", "stays"),
    [(DATED, False, False), (DATED, True, False), (DAILY, False, False), (DAILY, True, True)],
)
def test_when_the_time_has_come_it_reloads_and_removes_the_file_unless_it_repeats(tmp_path, line, repeat, stays):
    async def story():
        path = tmp_path / "at"
        path.write_text(line)
        told = Story(path, repeat=repeat)
        assert told.scheduled.at == NOW + 1
        told.now = NOW + 1
        await told.done.wait()
        assert told.reloads == 1
        assert path.exists() is stays
        assert told.scheduled.at == (NOW + 86_401 if stays else None)
        told.scheduled.close()

    run(story())


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/nonexistent", path)])
def test_what_is_no_regular_file_counts_as_none(tmp_path, make):
    async def story():
        make(tmp_path / "at")
        told = Story(tmp_path / "at")
        assert told.scheduled.at is None
        assert told.lines == []
        told.scheduled.close()

    run(story())


def test_a_line_that_means_nothing_is_reported_once(tmp_path):
    async def story():
        path = tmp_path / "at"
        path.write_text("tomorrow\n")
        told = Story(path)
        told.scheduled.configure(ReloadSettings(time_file=str(path)))
        assert len(told.lines) == 1
        assert "'tomorrow' is no time" in told.lines[0]
        told.scheduled.close()

    run(story())


def test_without_the_keyword_nothing_is_watched(tmp_path):
    async def story():
        told = Story(tmp_path / "at")
        (tmp_path / "at").write_text(at(500))
        told.scheduled.configure(ReloadSettings())
        assert told.scheduled.at is None
        told.scheduled.close()

    run(story())


def test_a_file_that_cannot_be_removed_does_not_keep_the_reload_away(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async def story():
        path = tmp_path / "at"
        path.write_text(DATED)
        told = Story(path)
        monkeypatch.setattr(os, "unlink", refuse)
        told.now = NOW + 1
        await told.done.wait()
        assert any("cannot be removed: Read-only file system" in line for line in told.lines)
        told.scheduled.close()

    run(story())


def test_a_time_that_passes_while_a_configuration_is_read_is_not_lost(tmp_path):
    async def story():
        path = tmp_path / "at"
        path.write_text(DAILY)
        told = Story(path)
        told.now = NOW + 2
        told.scheduled.configure(ReloadSettings(time_file=str(path)))
        assert told.reloads == 1
        assert not path.exists()
        told.scheduled.close()

    run(story())
