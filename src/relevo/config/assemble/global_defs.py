"""``global_defs``: identity, alerts, and what holds for the whole daemon."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from relevo.config.blocks.global_defs import SCRIPT_USER, SYNC_KEY, User
from relevo.config.blocks.registry import Fields
from relevo.config.blocks.vrrp import PREEMPT_WHEN_SYNCED
from relevo.config.diagnostics import Severity
from relevo.model import GlobalDefs, Mail, SyncDaemon


def global_defs(defaults: Fields, daemon: SyncDaemon | None, instances: Sequence[Fields]) -> GlobalDefs:
    """Make the model's ``global_defs``; ``daemon`` is the synchronisation that was declared, wherever."""
    user = defaults.given(SCRIPT_USER, User(""))
    key_file = defaults.given(SYNC_KEY, "")
    if daemon is None or not key_file:
        _look_at_waiting(instances)
    else:
        daemon = msgspec.structs.replace(daemon, key_file=key_file)
    return defaults.into(
        GlobalDefs, mail=defaults.into(Mail), script_user=user.user, script_group=user.group, lvs_sync_daemon=daemon
    )


def _look_at_waiting(instances: Sequence[Fields]) -> None:
    """Without a key nobody knows whether connections are here."""
    for fields in instances:
        if fields.given(PREEMPT_WHEN_SYNCED) is not None:
            message = "preempt_when_synced learns nothing without lvs_sync_daemon and lvs_sync_key: it waits its whole time"
            fields.report(Severity.WARNING, PREEMPT_WHEN_SYNCED.key, message, "write both into global_defs")
