"""One ``vrrp_track_process``: whether enough processes run, and not too many.

A change counts after ``fork_delay_s`` if a process began, after ``terminate_delay_s`` if one ended, unless it is undone before
(keepalived.conf(5), "vrrp_track_process"). The first count decides at once.
"""

from __future__ import annotations

from relevo.model.trackers import TrackProcess


class ProcessMachine:
    """Judges the number of processes. ``up`` is ``None`` before the first count."""

    def __init__(self, process: TrackProcess) -> None:
        self.process = process
        self.count = 0
        self.up: bool | None = None
        self._due: float | None = None

    def reconfigure(self, process: TrackProcess) -> None:
        """Use other settings; the next count decides at once if the processes meant are others."""
        former, self.process = self.process, process
        if (former.process, former.parameters, former.match) != (process.process, process.parameters, process.match):
            self.up = None
        self._due = None

    def deadline(self) -> float | None:
        """Return when ``expire`` must be called next."""
        return self._due

    def receive(self, count: int, now: float) -> bool:
        """Process a count; return whether the verdict changed."""
        rising, self.count = count > self.count, count
        enough = self.process.quorum <= count <= self.process.quorum_max
        if enough is self.up:
            self._due = None
            return False
        delay_s = self.process.fork_delay_s if rising else self.process.terminate_delay_s
        if self.up is None or not delay_s:
            self.up, self._due = enough, None
            return True
        if self._due is None:
            self._due = now + delay_s
        return False

    def expire(self, now: float) -> bool:
        """Process the delay when it is over; return whether the verdict changed."""
        if self._due is None or self._due > now:
            return False
        self._due = None
        self.up = not self.up
        return True
