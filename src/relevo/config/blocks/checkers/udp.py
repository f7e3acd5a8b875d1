"""``UDP_CHECK``: a server is up unless it refuses a datagram, or when it answers with the right bytes."""

from __future__ import annotations

from typing import Final

from relevo.config.blocks.arguments import Argument, integer
from relevo.config.blocks.checks import CONNECTION, Common, Kind, register, timing
from relevo.config.blocks.registry import Block, Fields, Keyword
from relevo.config.cursor import Cursor
from relevo.config.diagnostics import Severity
from relevo.model.checks import CheckTiming, UdpCheck

MOST: Final = 65_507
"""Bytes in a datagram over IPv4."""


def _digits(cursor: Cursor) -> str:
    cursor.peek() or cursor.word("bytes in hexadecimal")
    found = "".join(cursor.rest())
    if len(found) % 2 or len(found) > 2 * MOST:
        raise cursor.reject(
            f"'{found[:40]}' is not a sequence of bytes", "two hexadecimal digits for each, with or without blanks"
        )
    return found


def _payload(cursor: Cursor) -> bytes:
    found = _digits(cursor)
    try:
        return bytes.fromhex(found)
    except ValueError:
        raise cursor.reject(f"'{found[:40]}' is not hexadecimal", "two hexadecimal digits for each byte") from None


def _reply(cursor: Cursor) -> tuple[bytes, bytes]:
    """Read the bytes of a reply, and those that are ignored in it: ``X`` stands for any digit."""
    if not cursor.more():
        return b"", b""
    found = _digits(cursor)
    masked = found.upper()
    try:
        value = bytes.fromhex(masked.replace("X", "0"))
    except ValueError:
        raise cursor.reject(f"'{found[:40]}' is not hexadecimal", "two hexadecimal digits for each byte, X for any") from None
    ignored = bytes.fromhex("".join("F" if digit == "X" else "0" for digit in masked))
    return value, ignored if any(ignored) else b""


REPLY: Final = Keyword("require_reply", Argument(_reply, "[HEX]", "", "X: any digit"), "the server must answer, with these bytes")
SHORTEST: Final = Keyword("min_reply_length", integer(0, 65_535, "a length"), "bytes that a declared reply has at least")
LONGEST: Final = Keyword("max_reply_length", integer(0, 65_535, "a length"), "bytes that it has at most")
UDP_CHECK: Final = Block(
    "UDP_CHECK",
    (*CONNECTION, *timing(), Keyword("payload", Argument(_payload, "HEX"), "what is sent", default_text="32 bytes"), REPLY, SHORTEST, LONGEST),
    (UdpCheck, CheckTiming),
)  # fmt: skip


def _build(fields: Fields, common: Common) -> UdpCheck:
    reply, ignored = fields.given(REPLY, (b"", b""))
    made = fields.into(
        UdpCheck, timing=common.timing, connect=common.connect, bind=common.bind,
        require_reply=REPLY.key in fields, reply=reply, ignored=ignored,
    )  # fmt: skip
    if made.min_reply_length > made.max_reply_length:
        message = (
            f"no reply has at least {made.min_reply_length} bytes and at most {made.max_reply_length}: the check always fails"
        )
        fields.report(Severity.ERROR, SHORTEST.key if SHORTEST.key in fields else LONGEST.key, message, "write a greater maximum")
    return made


register(Kind("UDP_CHECK", "up unless the server refuses a datagram", UDP_CHECK, _build))
