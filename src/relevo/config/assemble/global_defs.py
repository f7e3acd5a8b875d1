"""``global_defs``: identity, alerts, and settings of the whole daemon."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from relevo.config.blocks.global_defs import SCRIPT_USER, SYNC_KEY, User
from relevo.config.blocks.registry import Fields
from relevo.config.blocks.vrrp import PREEMPT_WHEN_SYNCED
from relevo.config.diagnostics import Severity
from relevo.model import GlobalDefs, Mail, SyncDaemon


def global_defs(defaults: Fields, daemon: SyncDaemon | None, instances: Sequence[Fields]) -> GlobalDefs:
    """Make the model's ``global_defs``; ``daemon`` is the declared synchronisation, wherever it was declared."""
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
    """Warn that without a key a node cannot know whether it has all connections."""
    for fields in instances:
        if fields.given(PREEMPT_WHEN_SYNCED) is not None:
            message = "preempt_when_synced has no effect without lvs_sync_daemon and lvs_sync_key: it always waits the whole time"
            fields.report(Severity.WARNING, PREEMPT_WHEN_SYNCED.key, message, "write both into global_defs")
