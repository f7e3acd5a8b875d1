"""``DNS_CHECK``: a server is up when it answers a query."""

from __future__ import annotations

from typing import Final

from relevo.config.blocks.arguments import Argument
from relevo.config.blocks.checks import CONNECTION, Common, Kind, register, timing
from relevo.config.blocks.registry import Again, Block, Fields, Keyword
from relevo.config.cursor import Cursor
from relevo.model.checks import CheckTiming, DnsCheck
from relevo.wire.dns import TYPES, encode_name


def _type(cursor: Cursor) -> int:
    return TYPES[cursor.choice(tuple(TYPES), "a record type", any_case=True).upper()]


def _name(cursor: Cursor) -> str:
    word = cursor.word("a name")
    try:
        encode_name(word)
    except ValueError as error:
        raise cursor.reject(f"{error}: ignored", "such as example.org, or . for the root") from None
    return word


DNS_CHECK: Final = Block(
    "DNS_CHECK",
    (
        *CONNECTION,
        *timing(retry=3, delay_before_retry_s=None),
        Keyword(
            "type", Argument(_type, "TYPE", "", " ".join(TYPES)), "type of the records", target="record_type", default_text="SOA"
        ),
        Keyword("name", Argument(_name, "NAME"), "name that is asked for", target="domain", default_text=".", again=Again.FIRST),
    ),
    (DnsCheck, CheckTiming),
)


def _build(fields: Fields, common: Common) -> DnsCheck:
    return fields.into(DnsCheck, timing=common.timing, connect=common.connect, bind=common.bind)


register(Kind("DNS_CHECK", "up when a name server answers", DNS_CHECK, _build))
