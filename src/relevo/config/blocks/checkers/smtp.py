"""``SMTP_CHECK``: a server is up when it greets as a mail server, and accepts HELO."""

from __future__ import annotations

from typing import Any, Final

from relevo.config.blocks.arguments import text
from relevo.config.blocks.checks import CONNECTION, Common, Kind, bind_to, connect_to, register, timing
from relevo.config.blocks.registry import NO_BLOCKS, Again, Block, Fields, Keyword
from relevo.config.diagnostics import Severity
from relevo.model import Check
from relevo.model.checks import CheckTiming, SmtpCheck

_HOST: Final = Block("host", (*CONNECTION, *timing()), (SmtpCheck, CheckTiming))
HOSTS: Final[Keyword[Any]] = Keyword("host", _HOST.argument, "old way to name what is checked", again=Again.EACH)
SMTP_CHECK: Final = Block(
    "SMTP_CHECK",
    (*CONNECTION, *timing(), Keyword("helo_name", text("a name"), "name given to the server"), HOSTS),
    (SmtpCheck, CheckTiming),
)


def _build(fields: Fields, common: Common) -> list[Check]:
    """Return one check, and one for each ``host``; the first only if there is no host, or it has a connection of its own."""
    hosts = fields.given(HOSTS, ())
    if hosts:
        message = "'host' is deprecated: a check for each"
        fields.report(Severity.NOTE, HOSTS.key, message, "write an SMTP_CHECK for each host, with its settings in it")
    own = not hosts or any(row.key in fields for row in CONNECTION)
    made: list[Check] = [_check(fields, common, fields)] if own else []
    for host in hosts:
        host.above = fields.above
        connect = connect_to(host, "SMTP_CHECK", common.declared, common.without_port)
        settings = Common(common.timing, connect, bind_to(host, connect), common.declared, common.without_port)
        made.append(_check(host, settings, fields))
        host.above = NO_BLOCKS
    return made


def _check(connection: Fields, common: Common, named: Fields) -> SmtpCheck:
    values = {"helo_name": named["helo_name"]} if "helo_name" in named else {}
    return connection.into(SmtpCheck, timing=common.timing, connect=common.connect, bind=common.bind, **values)


register(Kind("SMTP_CHECK", "up when a mail server greets", SMTP_CHECK, _build))
