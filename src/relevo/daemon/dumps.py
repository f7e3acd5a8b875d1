"""Files that keepalived's signals write: the state of the daemon, in the run directory."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from relevo.host.files import write_at_once
from relevo.observe.snapshot import Snapshot
from relevo.severity import Severity

FILE_MODE: Final = 0o600
CLEAR: Final = signal.SIGRTMAX - 1
NOT_CLEARED: Final = "signal to clear statistics ignored: counters only grow; read them twice and subtract"


@dataclass(frozen=True, slots=True)
class Kind:
    """A dump: its file, and whether it has only the counters of the director."""

    file: str
    statistics: bool = False


SIGNALS: Final = {
    signal.SIGUSR1: Kind("relevo.data.json"),
    signal.SIGUSR2: Kind("relevo.stats.json", statistics=True),
    signal.SIGRTMIN + 2: Kind("relevo.json"),
}
"""keepalived(8), "SIGNALS": data, statistics, JSON. The content is the snapshot that ``relevo status -j`` prints."""


def write(path: Path, kind: Kind, snapshot: Snapshot) -> None:
    """Write a dump."""
    content = msgspec.json.encode(snapshot.director if kind.statistics else snapshot)
    write_at_once(path, msgspec.json.format(content, indent=2) + b"\n", FILE_MODE)


async def dump(
    folder: Path, kind: Kind, take_snapshot: Callable[[], Awaitable[Snapshot]], log: Callable[[str, int], None]
) -> None:
    """Write a dump into ``folder``, the run directory: in a shared directory its name could be a link of another user."""
    path = folder / kind.file
    try:
        write(path, kind, await take_snapshot())
        log(f"wrote {path}", Severity.NOTICE)
    except OSError as error:
        log(f"cannot write {path}: {error.strerror}", Severity.ERROR)
