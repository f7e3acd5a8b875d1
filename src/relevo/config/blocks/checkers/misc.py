"""``MISC_CHECK``: a server is up when a command succeeds."""

from __future__ import annotations

from typing import Final

import msgspec

from relevo.config.blocks.arguments import Argument, flag, script, whole_seconds
from relevo.config.blocks.checks import Common, Kind, register, timing
from relevo.config.blocks.registry import Block, Fields, Keyword
from relevo.config.cursor import Cursor
from relevo.config.diagnostics import Severity
from relevo.model.checks import CheckTiming, MiscCheck


def _user(cursor: Cursor) -> tuple[str, str]:
    user = cursor.word("a user")
    return user, cursor.word().removeprefix(":") if cursor.more() else ""


PATH: Final = Keyword("misc_path", script(), "the command", default_text="none: it is required")
TIMEOUT: Final = Keyword(
    "misc_timeout",
    whole_seconds(0, 4294, "a time limit", least=1),
    "time limit of the command",
    default_text="that of `delay_loop`",
)
USER: Final = Keyword("user", Argument(_user, "USER [GROUP]"), "user of the command", default_text="that of `script_user`")
MISC_CHECK: Final = Block(
    "MISC_CHECK",
    (
        *timing(retry=0),
        PATH,
        TIMEOUT,
        Keyword("misc_dynamic", flag(), "from exit status 2 on, the weight becomes the status less two", target="dynamic"),
        USER,
    ),
    (MiscCheck, CheckTiming),
)


def _build(fields: Fields, common: Common) -> MiscCheck | None:
    command = fields.given(PATH)
    if command is None:
        fields.report(Severity.ERROR, "", "'MISC_CHECK' without misc_path: left out", "write misc_path COMMAND")
        return None
    if USER.key in fields:
        user, group = fields[USER.key]
        command = msgspec.structs.replace(command, user=user, group=group)
    limit_s = fields.given(TIMEOUT, common.timing.delay_loop_s)
    return fields.into(MiscCheck, timing=common.timing, script=command, timeout_s=limit_s)


register(Kind("MISC_CHECK", "up when a command succeeds", MISC_CHECK, _build, over_network=False))
