"""Effects in the order of their execution: adverts, then addresses, then log lines and events."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from relevo.node.effects import Effect, InstanceChanged, Log
from relevo.severity import Severity

MAX_WARNED: Final = 4096
"""Keys of warnings that are remembered; with more there are no new ones, because packets can make keys without end."""


class EffectBuffer:
    """Collects effects. ``state_changed``: a router changed state since the last ``flush``."""

    def __init__(self) -> None:
        self.packets: list[Effect] = []
        self.network: list[Effect] = []
        self.events: list[Effect] = []
        self.state_changed = False
        self._logged: dict[tuple[str, str], str] = {}

    def log(self, text: str, severity: Severity = Severity.INFO) -> None:
        """Write a log line."""
        self.events.append(Log(text, severity))

    def warn_once(self, key: tuple[str, str], text: str) -> None:
        """Write a warning, unless the last one of this ``key`` has the same text."""
        if key not in self._logged and len(self._logged) >= MAX_WARNED:
            return
        if self._logged.get(key) != text:
            self._logged[key] = text
            self.log(text, Severity.WARNING)

    def rename_stop(self, name: str) -> None:
        """Report the stop of a router as its deletion by a reload."""
        for number, each in enumerate(self.events):
            if isinstance(each, InstanceChanged) and (each.name, each.state) == (name, "STOP"):
                self.events[number] = replace(each, state="DELETED")

    def flush(self) -> list[Effect]:
        """Remove and return all effects in order."""
        effects = [*self.packets, *self.network, *self.events]
        self.packets, self.network, self.events = [], [], []
        self.state_changed = False
        return effects
