"""What a plane of sockets has not, said once: packets, time-outs of its own, connections that another director could have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relevo.model import PlaneTimeouts, Sysctl
from relevo.model.table import PlaneSettings, SyncState, SyncTask


class UserSpace:
    """The part of the port that planes of user space share. ``relevo check`` says what a configuration asks of it in vain."""

    async def synchronise(self, task: SyncTask | None, in_sync: Callable[[bool], None]) -> str:
        """Connections end here: there is nothing to hand over."""
        return ""

    async def complete_sync(self) -> int:
        """There is nobody to tell."""
        return 0

    async def sync_state(self, *, counted: bool) -> SyncState | None:
        """It takes part in none."""
        return None

    async def settings(self) -> PlaneSettings:
        """It has none."""
        return PlaneSettings()

    async def set_timeouts(self, wanted: PlaneTimeouts) -> str:
        """It has none."""
        return "connections of user space have no time-outs that could be set" if wanted != PlaneTimeouts() else ""

    async def set_sysctls(self, wanted: Sequence[Sysctl]) -> list[str]:
        """It has none."""
        return []

    def attachments(self) -> tuple[str, ...]:
        """Nothing to add."""
        return ()

    def drop_counters(self) -> dict[str, int]:
        """It sees none."""
        return {}
