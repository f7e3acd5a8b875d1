"""Effects in the order in which they must be carried out: adverts, then addresses, then lines and events."""

from __future__ import annotations

from relevo.node.effects import Effect, Log
from relevo.severity import Severity


class EffectBuffer:
    """Collects effects; ``flush`` gives them out. ``state_changed`` tells whether a router changed state since then."""

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
        """Write a warning, unless the last one of this ``key`` said the same."""
        if self._logged.get(key) != text:
            self._logged[key] = text
            self.log(text, Severity.WARNING)

    def flush(self) -> list[Effect]:
        """Take everything, in order."""
        effects = [*self.packets, *self.network, *self.events]
        self.packets, self.network, self.events = [], [], []
        self.state_changed = False
        return effects
