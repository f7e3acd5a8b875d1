"""``vrrp_sync_group`` blocks → groups of instances that exist, each in one group."""

from __future__ import annotations

from collections.abc import Sequence

from relevo.config.blocks.registry import NO_BLOCKS, Fields
from relevo.config.blocks.root import SYNC_GROUPS
from relevo.config.blocks.vrrp import MEMBERS, name_of
from relevo.config.diagnostics import Severity
from relevo.model import SyncGroup, VrrpNotify


def sync_groups(root: Fields, defaults: Fields, instances: set[str]) -> tuple[tuple[SyncGroup, Fields], ...]:
    """Return the groups that have members among ``instances``, each with its block."""
    built: dict[str, tuple[SyncGroup, Fields]] = {}
    taken: dict[str, str] = {}
    blocks: Sequence[Fields] = root.given(SYNC_GROUPS, [])
    for fields in blocks:
        fields.above = NO_BLOCKS.with_block(defaults)
        name = name_of(fields)
        if name in built:
            message = f"vrrp_sync_group '{name}' is there already: left out"
            fields.report(Severity.ERROR, "name", message, "rename one of the two")
            continue
        members = _members(fields, instances, taken)
        if not members:
            message = f"vrrp_sync_group '{name}' has no members: left out"
            fields.report(Severity.ERROR, "name", message, "list them in group { … }")
            continue
        if len(members) == 1:
            message = f"vrrp_sync_group '{name}' has one member: there is nothing to synchronise"
            fields.report(Severity.NOTE, "name", message, "list another instance, or remove the group")
        taken.update(dict.fromkeys(members, name))
        built[name] = fields.into(SyncGroup, name=name, members=members, notify=fields.into(VrrpNotify)), fields
    return tuple(built.values())


def _members(fields: Fields, instances: set[str], taken: dict[str, str]) -> tuple[str, ...]:
    members: list[str] = []
    named: tuple[str, ...] = fields.given(MEMBERS, ())
    for member in dict.fromkeys(named):
        if member not in instances:
            message = f"vrrp_instance '{member}' does not exist: left out of the group"
            fields.report(Severity.ERROR, MEMBERS.key, message, "name an instance of this file")
        elif member in taken:
            message = f"'{member}' is in group '{taken[member]}' already: left out"
            fields.report(Severity.ERROR, MEMBERS.key, message, "an instance is in one group")
        else:
            members.append(member)
    return tuple(members)
