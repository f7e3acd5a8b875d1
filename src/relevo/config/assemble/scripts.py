"""Findings about all scripts of the file."""

from __future__ import annotations

from relevo.config.blocks.global_defs import ENABLE_SCRIPT_SECURITY
from relevo.config.blocks.registry import Fields
from relevo.config.blocks.root import INSTANCES, SCRIPTS, SERVICES, SYNC_GROUPS
from relevo.config.blocks.services import REAL_SERVERS
from relevo.config.diagnostics import Severity
from relevo.model import Script


def look_at_scripts(root: Fields, defaults: Fields) -> None:
    """Warn once that scripts run without ``enable_script_security`` (keepalived's status 6)."""
    if defaults.given(ENABLE_SCRIPT_SECURITY):
        return
    blocks: list[Fields] = [fields for row in (INSTANCES, SYNC_GROUPS, SERVICES, SCRIPTS) for fields in root.given(row, [])]
    blocks += [server for fields in blocks for server in fields.given(REAL_SERVERS, [])]
    named = (fields.origin[name] for fields in blocks for name, value in fields.items() if isinstance(value, Script))
    first = next(named, None)
    if first is not None:
        message = "scripts run without enable_script_security: a user who can write to one becomes root"
        hint = "write enable_script_security, and script_user, into global_defs"
        root.findings.add(Severity.SECURITY, first.place(), message, hint, first.keyword)
