"""Evaluated blocks → model: defaults across blocks, and the checks that look at more than one of them. One concern a file."""

from __future__ import annotations

from relevo.config.assemble.global_defs import global_defs
from relevo.config.assemble.groups import named_groups
from relevo.config.assemble.instances import Instances
from relevo.config.assemble.scripts import look_at_scripts
from relevo.config.assemble.services import services
from relevo.config.assemble.sync_groups import sync_groups
from relevo.config.assemble.trackers import sources, track, used, weight_of
from relevo.config.blocks.checkers.file import FILE_WEIGHTS
from relevo.config.blocks.global_defs import GLOBAL_DEFS, SYNC_DAEMON
from relevo.config.blocks.registry import Fields
from relevo.config.blocks.root import (
    GARP_GROUPS,
    GLOBALS,
    INSTANCES,
    LOCAL_GROUPS,
    SCRIPTS,
    SERVICE_GROUPS,
    SERVICES,
    SYNC_GROUPS,
    TRACKED_FILES,
    TRACKED_PROCESSES,
)
from relevo.config.blocks.vrrp import name_of
from relevo.config.diagnostics import Severity
from relevo.config.place import Places
from relevo.model import Configuration


def configuration(root: Fields, places: Places) -> Configuration:
    """Assemble the evaluated blocks of ``root``. ``global_defs`` may follow the others, so its defaults are applied here."""
    defaults: Fields = root.given(GLOBALS) or Fields(root.cursor, GLOBAL_DEFS)
    _record(root, places)
    instances = Instances(defaults, root.given(GARP_GROUPS, []), places)
    built = instances.build(root.given(INSTANCES, []))
    pools = named_groups(root, LOCAL_GROUPS)
    files: list[Fields] = root.given(TRACKED_FILES, [])
    defaults[FILE_WEIGHTS] = {name_of(fields): weight_of(fields) for fields in reversed(files)}  # of two, the first is used
    virtual_servers = services(root.given(SERVICES, []), defaults, named_groups(root, SERVICE_GROUPS), pools, places)
    groups = sync_groups(root, defaults, {instance.name for instance in built})
    scripts: list[Fields] = root.given(SCRIPTS, [])
    processes: list[Fields] = root.given(TRACKED_PROCESSES, [])
    known = sources(scripts, files, processes, virtual_servers, root.cursor.statement.block or [])
    built = track(built, instances.blocks, groups, known, places)
    look_at_scripts(root, defaults)
    if not built and not virtual_servers:
        _nothing_to_run(root)
    return Configuration(
        global_defs=global_defs(root, defaults, defaults.given(SYNC_DAEMON) or instances.sync_daemon, root.given(INSTANCES, [])),
        vrrp_instances=built,
        sync_groups=tuple(group for group, _ in groups),
        trackers=used(known, built, scripts),
        virtual_servers=virtual_servers,
    )


def _nothing_to_run(root: Fields) -> None:
    """Report a file without anything to run, at what was left out if there is something."""
    refused = next((block for row in (INSTANCES, SERVICES) for block in root.given(row, [])), None)
    if refused is None:
        message, hint = "nothing to run: no vrrp_instance and no virtual_server", "is this the right file?"
        root.findings.add(Severity.FATAL, root.cursor.statement.source.place(), message, hint)
    else:
        message = "nothing to run: every vrrp_instance and virtual_server was left out"
        refused.report(Severity.FATAL, "", message, "see the findings about them")


def _record(root: Fields, places: Places) -> None:
    if not places.wanted:
        return
    for keyword, statement in root.given(GLOBALS, root).origin.items():
        places.record(statement, 1 if statement.args else 0, "global_defs", keyword)
    blocks: list[Fields] = [fields for row in (SCRIPTS, SYNC_GROUPS) for fields in root.given(row, [])]
    for fields in blocks:
        for keyword in fields.origin:
            places.record(*fields.located(keyword), fields.block.name, name_of(fields), keyword)
