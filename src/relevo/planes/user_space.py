"""Defaults of the port for planes of user space: no packets, no time-outs to set, no connection synchronisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from relevo.model import PlaneTimeouts, Sysctl
from relevo.model.table import PlaneSettings, SyncState, SyncTask


class UserSpace:
    """The part of the port that planes of user space share. ``relevo check`` reports what a configuration asks for in vain."""

    async def synchronise(self, task: SyncTask | None, in_sync: Callable[[bool], None]) -> str:
        """Do nothing: a connection terminated here cannot be handed over."""
        return ""

    async def complete_sync(self) -> int:
        """Return 0: there is nothing to send."""
        return 0

    async def sync_state(self, *, counted: bool) -> SyncState | None:
        """Return ``None``: the plane does not synchronise."""
        return None

    async def settings(self) -> PlaneSettings:
        """Return zeros: there is no table size and no time-out."""
        return PlaneSettings()

    async def set_timeouts(self, wanted: PlaneTimeouts) -> str:
        """Refuse any time-out."""
        return "connections of user space have no time-outs to set" if wanted != PlaneTimeouts() else ""

    async def set_sysctls(self, wanted: Sequence[Sysctl]) -> list[str]:
        """Do nothing: ``relevo check`` reports every sysctl as unsupported."""
        return []

    def attachments(self) -> tuple[str, ...]:
        """Return nothing: the plane attaches to no interface."""
        return ()

    def drop_counters(self) -> dict[str, int]:
        """Return nothing: the plane sees no packets."""
        return {}
