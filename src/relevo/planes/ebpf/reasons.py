"""Why a packet was not simply forwarded: the names of ``bpf/reasons.h``, in its order; a test compares the two."""

from __future__ import annotations

import enum


class Reason(enum.IntEnum):
    """``enum reason``. Metrics and ``status`` show the names in lower case, so they do not change."""

    GO_ON = 0
    PASS_NOT_IP = 1
    PASS_NOT_OURS = 2
    PASS_MALFORMED = 3
    PASS_MARTIAN = 4
    PASS_PROTOCOL = 5
    PASS_NO_CONNECTION = 6
    PASS_CLOSED = 7
    PASS_FTP_DATA = 8
    PASS_LOCAL = 9
    PASS_SLOW = 10
    REFUSED_NO_DESTINATION = 11
    REFUSED_TTL = 12
    REFUSED_TOO_BIG = 13
    REFUSED_ORPHAN = 14
    REFUSED_WITH_RESET = 15
    DROP_TABLE_FULL = 16
    DROP_NO_LOCAL_PORT = 17
    DROP_NO_ROUTE = 18
    DROP_FORWARDING_OFF = 19
    DROP_FRAGMENT = 20
    DROP_REWRITE = 21
    DROP_ORPHAN = 22
    DROP_REPLY_LIMIT = 23
    DROP_TOO_BIG = 24
    DROP_NOT_YET = 25
    AGAIN_HELD = 26
    AGAIN_RELEASED = 27
    AGAIN_CUT = 28
    COUNT_EVICTED = 29
    COUNT_SYNC_LOST = 30
    COUNT_TEMPLATE_FULL = 31
