"""Severity of log lines, by syslog's numbers (RFC 5424 §6.2.1)."""

from __future__ import annotations

import enum


class Severity(enum.IntEnum):
    """ERROR: something failed. WARNING: an administrator should look into it. NOTICE: a change of state. INFO: an event."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7
