"""Who may send ICMP echo requests without privilege: groups in a range, which is empty in a new network namespace (icmp(7))."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SETTING: Final = Path("/proc/sys/net/ipv4/ping_group_range")
"""It is for IPv6 too."""


class EchoRange:
    """Widens the range while it is needed, and puts it back."""

    def __init__(self) -> None:
        self._former = ""

    def allow(self, group: int) -> str:
        """Let a group send echo requests; return what was done, empty if nothing was needed, or why it cannot."""
        try:
            text = SETTING.read_text()
            first, last = map(int, text.split())
            if first <= group <= last:
                return ""
            if first > last:
                first = last = group
            SETTING.write_text(f"{min(first, group)} {max(last, group)}\n")
        except (OSError, ValueError) as error:
            return f"PING_CHECK: {SETTING} does not allow echo requests of group {group}, and cannot be changed: {error}"
        self._former = self._former or text
        return f"PING_CHECK: {SETTING} was {' '.join(text.split())}, and allows group {group} now, until the stop"

    def restore(self) -> None:
        """Put the former range back."""
        if self._former:
            try:
                SETTING.write_text(self._former)
            except OSError:
                pass  # a namespace that has gone, or is not ours any more
            self._former = ""
