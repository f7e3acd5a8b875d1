"""Checkers of keepalived's that are read and checked, and that do not run yet."""

from __future__ import annotations

from typing import Any, Final

from relevo.config.blocks.arguments import boolean, flag, integer, script, seconds, text
from relevo.config.blocks.checks import CONNECTION, timing
from relevo.config.blocks.registry import Block, Keyword
from relevo.config.blocks.standing import SOME, WORDS, later
from relevo.model import TcpCheck
from relevo.model.checks import CheckTiming

_WHY: Final = "without another check the server counts as up"

_SHARED: Final = (TcpCheck, CheckTiming)
"""Models that have the fields of the shared rows."""
_HOST: Final = Block("host", (*CONNECTION, *timing(delay_before_retry_s=1.0)), _SHARED)
_ROWS: Final[dict[str, tuple[Keyword[Any], ...]]] = {
    "SMTP_CHECK": (
        *CONNECTION,
        *timing(delay_before_retry_s=1.0),
        Keyword("helo_name", text("a name"), "name given to the server"),
        Keyword("host", _HOST.argument, "old way to name what is checked"),
    ),
    "DNS_CHECK": (
        *CONNECTION,
        *timing(delay_before_retry_s=1.0),
        Keyword("type", text("a record type"), "type of the query"),
        Keyword("name", text("a name"), "name that is asked for"),
    ),
    "MISC_CHECK": (
        *timing(delay_before_retry_s=1.0),
        Keyword("misc_path", script(), "the command"),
        Keyword("misc_timeout", seconds(0, 4294, "a time limit"), "time limit of the command"),
        Keyword("misc_dynamic", flag(), "the exit status sets the weight"),
        Keyword("user", SOME, "user of the command"),
    ),
    "UDP_CHECK": (
        *CONNECTION,
        *timing(delay_before_retry_s=1.0),
        Keyword("payload", SOME, "what is sent, in hexadecimal"),
        Keyword("require_reply", WORDS, "the server must answer, with these bytes"),
        Keyword("min_reply_length", integer(0, 65_535, "a length"), "shortest answer"),
        Keyword("max_reply_length", integer(0, 65_535, "a length"), "longest answer"),
    ),
    "PING_CHECK": (*CONNECTION, *timing(delay_before_retry_s=1.0)),
    "BFD_CHECK": (Keyword("name", text("a bfd_instance"), "the session"), Keyword("alpha", boolean(), "down until it is up")),
    "FILE_CHECK": (
        Keyword("track_file", text("a track_file"), "file with the weight"),
        Keyword("weight", SOME, "what the number is multiplied by"),
    ),
}
_HELP: Final = {
    "SMTP_CHECK": "up when a mail server greets",
    "DNS_CHECK": "up when a name server answers",
    "MISC_CHECK": "up when a command succeeds",
    "UDP_CHECK": "up unless the server refuses a datagram",
    "PING_CHECK": "up when the server answers ICMP",
    "BFD_CHECK": "up while a BFD session is",
    "FILE_CHECK": "weight from a file",
}
MISSING: Final = tuple(later(name, Block(name, rows, _SHARED).argument, _HELP[name], _WHY) for name, rows in _ROWS.items())
"""One row of ``real_server`` for each."""
