"""Reloads at a time that a file says (keepalived.conf(5), "reload_time_file").

All nodes of a cluster can then change at the same moment to files that do not go together with the former ones.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from relevo.host.watched_files import FileWatcher, read_beginning
from relevo.model.process import ReloadSettings
from relevo.severity import Severity

LONGEST_WAIT_S: Final = 30.0
"""The file and the clock are looked at this often, at least: the clock may be set, and the file's directory may appear."""
MAX_LINE: Final = 64
"""Bytes of the file that are read: a time has at most 20."""
_TIME: Final = re.compile(r"(?:(?:(\d\d|\d{4})-(\d\d)-(\d\d)) )?(\d\d):(\d\d):(\d\d)(Z?)", re.ASCII)

Log = Callable[[str, int], None]


class ScheduledReload:
    """Watches the file, and calls ``reload`` when its time has come."""

    def __init__(self, reload: Callable[[], None], log: Log, clock: Callable[[], float] = time.time) -> None:
        self._reload = reload
        self._log = log
        self._clock = clock
        self._settings = ReloadSettings()
        self._watcher: FileWatcher | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._complaint = ""
        self.at: float | None = None

    def configure(self, settings: ReloadSettings) -> None:
        """Use these settings from now on, and look at their file."""
        if settings.time_file != self._settings.time_file:
            self.close()
        self._settings = settings
        if settings.time_file:
            if self._watcher is None:
                self._watch(settings.time_file)
            self._look()

    def close(self) -> None:
        """Forget the file and its time."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            asyncio.get_running_loop().remove_reader(self._watcher.fileno())
            self._watcher.close()
        self._watcher, self._timer, self.at = None, None, None

    def _watch(self, path: str) -> None:
        self._watcher = FileWatcher()
        self._watcher.watch([path])
        asyncio.get_running_loop().add_reader(self._watcher.fileno(), self._changed)

    def _changed(self) -> None:
        if self._watcher is not None and self._watcher.changed():
            self._look()

    def _tick(self) -> None:
        if self._watcher is not None:
            self._watcher.sweep()
        self._look()

    def _look(self) -> None:
        """Reload if it is time, read the file, and set the timer."""
        if self.at is not None and self.at <= self._clock():
            self._fire()
        former, self.at = self.at, self._read()
        if former != self.at:
            self._say(former)
        if self._timer is not None:
            self._timer.cancel()
        wait_s = LONGEST_WAIT_S if self.at is None else min(LONGEST_WAIT_S, max(0.0, self.at - self._clock()))
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)

    def _say(self, former: float | None) -> None:
        if self.at is None:
            self._log(f"Cancelling reload scheduled for {_text(former)}", Severity.NOTICE)
        elif former is None:
            self._log(f"Scheduling reload for {_text(self.at)}", Severity.NOTICE)
        else:
            self._log(f"Reload time updated from {_text(former)} to {_text(self.at)}", Severity.NOTICE)

    def _read(self) -> float | None:
        line = _first_line(self._settings.time_file)
        if line is None:
            self._complaint = ""
            return None
        found = reload_time(line, self._clock())
        complaint = found if isinstance(found, str) else ""
        if complaint and complaint != self._complaint:
            self._log(f"reload_time_file {self._settings.time_file}: {complaint}", Severity.WARNING)
        self._complaint = complaint
        return None if isinstance(found, str) else found

    def _fire(self) -> None:
        path, self.at = self._settings.time_file, None
        line = _first_line(path)
        if not self._settings.repeat or (line is not None and "-" in line):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                self._log(f"reload_time_file {path} cannot be removed: {error.strerror}", Severity.WARNING)
        self._log("The time of reload_time_file has come", Severity.NOTICE)
        self._reload()


def reload_time(line: str, now: float) -> float | str:
    """Return the Unix time that a line means, or why it means none. A time without a date is the next one after ``now``."""
    match = _TIME.fullmatch(line)
    if match is None:
        return f"{line!r} is no time: write HH:MM:SS, YY-MM-DD HH:MM:SS or YYYY-MM-DD HH:MM:SS, each with Z for UTC"
    year, month, day, *clock, utc = match.groups()
    zone = UTC if utc else None
    today = datetime.fromtimestamp(now, zone)
    try:
        at = today.replace(hour=int(clock[0]), minute=int(clock[1]), second=int(clock[2]), microsecond=0)
        if year is not None:
            at = at.replace(year=_full_year(year), month=int(month), day=int(day))
        if at.timestamp() <= now and year is None:
            at += timedelta(days=1)
        due = at.timestamp()
    except (ValueError, OverflowError, OSError) as error:  # the calendar ends with the year 9999
        return f"{line!r} is no time: {error}"
    return due if due > now else f"{line!r} is in the past: ignored"


def _full_year(digits: str) -> int:
    """Return the year; two digits from 69 to 99 are of the last century, as in strptime(3)."""
    year = int(digits)
    return year if len(digits) == 4 else year + (1900 if year >= 69 else 2000)


def _first_line(path: str) -> str | None:
    """Return the first line of a regular file, ``None`` if there is none."""
    data = read_beginning(path, MAX_LINE)
    return data.decode("ascii", "replace").partition("\n")[0] if data else None


def _text(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
