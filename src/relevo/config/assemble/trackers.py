"""Trackers: declarations, and what each instance tracks by itself and with its sync group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from relevo.config.blocks.arguments import Located
from relevo.config.blocks.registry import Fields, Keyword
from relevo.config.blocks.trackers import (
    COMMAND,
    DELAY,
    FILE,
    FILE_WEIGHT,
    FORK_DELAY,
    FULL_COMMAND,
    INIT_FILE,
    MATCH,
    PROCESS_WEIGHT,
    QUORUM,
    QUORUM_MAX,
    SCRIPT,
    SCRIPT_WEIGHT,
    TERMINATE_DELAY,
    TIMEOUT,
    TRACKS,
    USER,
    InitFile,
    Reference,
    ServiceReference,
    Weight,
)
from relevo.config.blocks.vrrp import TRACKING_WEIGHT, name_of
from relevo.config.diagnostics import Severity
from relevo.config.place import Places
from relevo.config.tree import Statement
from relevo.model import (
    ParameterMatch,
    SyncGroup,
    Tracked,
    TrackerKind,
    Trackers,
    TrackFile,
    TrackProcess,
    VirtualServer,
    VrrpInstance,
    VrrpScript,
)
from relevo.model.trackers import MAX_QUORUM
from relevo.model.vrrp import PRIORITY_OWNER

DEFAULT_FILE_WEIGHT: Final = 1


class Sources(msgspec.Struct):
    """What can be tracked: the declared trackers, their own weights and blocks, and the virtual servers.

    ``order`` has the position in the file of each top-level statement, by identity.
    """

    trackers: Trackers
    weights: dict[tuple[TrackerKind, str], Weight] = {}
    blocks: dict[tuple[TrackerKind, str], Statement] = {}
    services: tuple[VirtualServer, ...] = ()
    order: dict[int, int] = {}

    def declare(self, kind: TrackerKind, name: str, weight: Weight, fields: Fields) -> None:
        """Record the weight and the place of a declaration."""
        self.weights[kind, name] = weight
        self.blocks[kind, name] = fields.cursor.statement

    def follows(self, kind: TrackerKind, name: str, user: Statement) -> bool:
        """Whether a tracker is declared below the top-level statement ``user``."""
        return self.order[id(self.blocks[kind, name])] > self.order[id(user)]


def sources(
    scripts: Sequence[Fields],
    files: Sequence[Fields],
    processes: Sequence[Fields],
    services: tuple[VirtualServer, ...],
    statements: Sequence[Statement],
) -> Sources:
    """Return the usable declarations. Of two of one kind and name the first is used. ``statements`` are the top level's."""
    order = {id(statement): index for index, statement in enumerate(statements)} if scripts or files or processes else {}
    found = Sources(Trackers(), services=services, order=order)
    found.trackers = Trackers(
        scripts=tuple(_script(fields, found) for fields in _usable(scripts, SCRIPT, "script")),
        files=tuple(_file(fields, found) for fields in _usable(files, FILE, "file")),
        processes=tuple(_process(fields, found) for fields in _usable(processes, COMMAND, "process")),
    )
    return found


def _usable(blocks: Sequence[Fields], row: Keyword[Any], what: str) -> Iterable[Fields]:
    """Yield the blocks of one kind that have a name of their own and what they cannot do without."""
    names: set[str] = set()
    for fields in blocks:
        name, block = name_of(fields), fields.block.name
        if name in names:
            fields.report(Severity.ERROR, "name", f"{block} '{name}' is there already: left out", "rename one of the two")
        elif fields.given(row) is None:
            fields.report(Severity.ERROR, "name", f"{block} '{name}' has no {what}: left out", f"write {row.name} …")
        else:
            names.add(name)
            yield fields


def _script(fields: Fields, found: Sources) -> VrrpScript:
    name = name_of(fields)
    found.declare(TrackerKind.SCRIPT, name, fields.given(SCRIPT_WEIGHT, Weight(0)), fields)
    script = fields.given(SCRIPT)
    assert script is not None
    user, group = fields.given(USER, ("", ""))
    compiled = fields.into(VrrpScript, name=name, script=msgspec.structs.replace(script, user=user, group=group))
    return msgspec.structs.replace(compiled, timeout_s=fields.given(TIMEOUT, compiled.interval_s))


def weight_of(fields: Fields) -> Weight:
    """Return the weight that a ``track_file`` has where a reference names none."""
    return fields.given(FILE_WEIGHT, Weight(DEFAULT_FILE_WEIGHT))


def _file(fields: Fields, found: Sources) -> TrackFile:
    name = name_of(fields)
    found.declare(TrackerKind.FILE, name, weight_of(fields), fields)
    init: InitFile | None = fields.given(INIT_FILE)
    if init is None:
        return fields.into(TrackFile, name=name)
    return fields.into(TrackFile, name=name, init_value=init.value, init_overwrite=init.overwrite)


def _process(fields: Fields, found: Sources) -> TrackProcess:
    name = name_of(fields)
    found.declare(TrackerKind.PROCESS, name, fields.given(PROCESS_WEIGHT, Weight(0)), fields)
    command = fields.given(COMMAND)
    assert command is not None
    match = fields.given(MATCH, ParameterMatch.EXACT if command.parameters else ParameterMatch.ANY)
    most = fields.given(QUORUM_MAX, MAX_QUORUM)
    least = fields.given(QUORUM, 1 if most else 0)
    if least > most:
        message = f"quorum {least} is above quorum_max {most}: quorum_max is left out"
        fields.report(Severity.ERROR, QUORUM_MAX.key, message, "write a range that can be met")
        most = MAX_QUORUM
    return fields.into(
        TrackProcess,
        name=name,
        process=command.name,
        parameters=command.parameters,
        match=match,
        full_command=fields.given(FULL_COMMAND, False) or match is not ParameterMatch.ANY,
        quorum=least,
        quorum_max=most,
        fork_delay_s=fields.given(FORK_DELAY, fields.given(DELAY, 0.0)),
        terminate_delay_s=fields.given(TERMINATE_DELAY, fields.given(DELAY, 0.0)),
    )


# -- lists -----------------------------------------------------------------------------------------------------------


class Line(msgspec.Struct, frozen=True):
    """A resolved line of a ``track_…`` list. ``own_weight``: the line names the weight itself."""

    tracked: Tracked
    at: Located[Reference] | Located[ServiceReference]
    keyword: str
    own_weight: bool


class Tracks:
    """Resolves the lists of instances and sync groups."""

    def __init__(self, known: Sources) -> None:
        self._known = known
        self._files = {file.name for file in known.trackers.files}

    def lines(self, fields: Fields) -> list[Line]:
        """Return the lines of a block whose source exists, each source once."""
        found: dict[tuple[TrackerKind, str], Line] = {}
        for kind, row in TRACKS.items():
            for located in fields.given(row, ()):
                for line in self._resolve(kind, row.name, located, fields):
                    key = (kind, line.tracked.name)
                    if key in found:
                        message = f"{key[1]} is tracked already: the first line counts, in keepalived too"
                        fields.findings.add(Severity.WARNING, located.at.place(1), message, "remove one of the two", row.name)
                    found.setdefault(key, line)
        return list(found.values())

    def _resolve(
        self, kind: TrackerKind, keyword: str, at: Located[Reference] | Located[ServiceReference], fields: Fields
    ) -> list[Line]:
        value = at.value
        if isinstance(value, ServiceReference):
            return [
                Line(Tracked(kind, name, value.reference.weight or 0, bool(value.reference.reverse)), at, keyword, True)
                for name in self._services(value.words, at.at, fields)
            ]
        own = self._known.weights.get((kind, value.name), Weight(0))
        if kind is not TrackerKind.INTERFACE and (kind, value.name) not in self._known.weights:
            message = f"{keyword} '{value.name}' is not declared: ignored, as in keepalived"
            fields.findings.add(Severity.ERROR, at.at.place(1), message, self._declare(kind, value.name), keyword)
            return []
        if kind is not TrackerKind.INTERFACE and self._known.follows(kind, value.name, fields.cursor.statement):
            message = f"{keyword} '{value.name}' is declared further below: it counts here, keepalived ignores this line"
            fields.findings.add(Severity.WARNING, at.at.place(1), message, "move the declaration above", keyword)
        weight = own.value if value.weight is None else value.weight
        reverse = own.reverse if value.reverse is None else value.reverse
        return [Line(Tracked(kind, value.name, weight, reverse), at, keyword, value.weight is not None)]

    @staticmethod
    def _declare(kind: TrackerKind, name: str) -> str:
        block = {TrackerKind.SCRIPT: "vrrp_script", TrackerKind.FILE: "track_file"}.get(kind, "vrrp_track_process")
        return f"declare it: {block} {name} {{ … }}"

    def _services(self, words: tuple[str, ...], at: Statement, fields: Fields) -> list[str]:
        """Return the names of the virtual servers that these words name."""
        found = [service.name for service in self._known.services if _is_named(service, words)]
        if not found:
            message = f"virtual server '{' '.join(words)}' does not exist: ignored"
            hint = "write what follows virtual_server in its own line"
            fields.findings.add(Severity.ERROR, at.place(1), message, hint, "track_virtual_server")
        return found

    # -- the rules of sync groups and owners -------------------------------------------------------------------

    def of_instance(
        self, instance: VrrpInstance, lines: list[Line], fields: Fields, *, group_without_weights: bool
    ) -> list[Line]:
        """Return what an instance tracks by itself. Weights do not count for an owner, nor in a group without tracking weight.

        Those of interfaces do in such a group: keepalived says that it ignores them, but has applied them before.
        """
        lines = self._without_own_interface(instance, lines, fields)
        owner = instance.priority == PRIORITY_OWNER
        if not owner and not group_without_weights:
            return lines
        why = "the sync group has no sync_group_tracking_weight" if group_without_weights else "the instance owns its address"
        kept = []
        for line in lines:
            tracked = line.tracked
            if tracked.weight == 0 or (tracked.kind is TrackerKind.PROCESS and not owner):
                kept.append(line)
                continue
            if tracked.kind is TrackerKind.INTERFACE and group_without_weights:
                message = f"the weight counts although {why}: keepalived applies it too, and says the contrary"
                hint = "write sync_group_tracking_weight to make it plain, or the weight 0"
                fields.findings.add(Severity.WARNING, line.at.at.place(1), message, hint, line.keyword)
                kept.append(line)
                continue
            plain = tracked.kind is TrackerKind.FILE and tracked.weight == DEFAULT_FILE_WEIGHT
            what = "the weight is" if plain else "the line is"
            message = f"{what} ignored, as in keepalived: {why}"
            hint = "write the weight 0, or sync_group_tracking_weight" if group_without_weights else "write the weight 0"
            fields.findings.add(Severity.WARNING, line.at.at.place(1), message, hint, line.keyword)
            if plain:
                kept.append(_with_weight(line, 0))
        return kept

    @staticmethod
    def _without_own_interface(instance: VrrpInstance, lines: list[Line], fields: Fields) -> list[Line]:
        """Leave the instance's own interface out: unless ``dont_track_primary`` is given, its loss means FAULT anyway."""
        kept = []
        for line in lines:
            if line.tracked.kind is TrackerKind.INTERFACE and line.tracked.name == instance.interface:
                message = f"{instance.interface} is the instance's own interface: ignored, as in keepalived"
                fields.findings.add(Severity.WARNING, line.at.at.place(1), message, "remove the line", line.keyword)
            else:
                kept.append(line)
        return kept

    def of_group(self, members: Sequence[VrrpInstance], lines: list[Line], fields: Fields) -> list[Line]:
        """Return what a sync group tracks for all members; weights do not count if one of them owns its address."""
        if all(member.priority != PRIORITY_OWNER for member in members):
            return lines
        kept = []
        for line in lines:
            if line.tracked.weight:
                message = "the weight is 0, as in keepalived: a member of the sync group owns its address"
                fields.findings.add(Severity.WARNING, line.at.at.place(1), message, "write the weight 0", line.keyword)
            kept.append(_with_weight(line, 0))
        return kept


def _with_weight(line: Line, weight: int) -> Line:
    return Line(msgspec.structs.replace(line.tracked, weight=weight), line.at, line.keyword, line.own_weight)


def _is_named(service: VirtualServer, words: tuple[str, ...]) -> bool:
    match words:
        case ("group", name):
            return service.group == name
        case ("fwmark", number):
            return str(service.mark) == number
        case (address,):
            return not service.group and not service.mark and str(service.endpoint.address) == address
        case (address, port):
            return not service.group and (service.endpoint.address, str(service.endpoint.port)) == (address, port)
        case (address, port, protocol):
            named = (service.endpoint.address, str(service.endpoint.port), service.protocol.value) == (
                address,
                port,
                protocol.upper(),
            )
            return not service.group and named
    return False


def join(own: Iterable[Tracked], of_group: Iterable[Tracked]) -> tuple[Tracked, ...]:
    """Return what an instance tracks in all. Where both name a source, the group's weight counts unless the own one is 0."""
    found = {(tracked.kind, tracked.name): tracked for tracked in own}
    for tracked in of_group:
        key = (tracked.kind, tracked.name)
        if key not in found or found[key].weight:
            found[key] = tracked
    return tuple(found.values())


def used(known: Sources, instances: Iterable[VrrpInstance], blocks: Sequence[Fields]) -> Trackers:
    """Return the declared trackers without the scripts that nothing tracks: keepalived does not run them either."""
    tracked = {each.name for instance in instances for each in instance.tracked if each.kind is TrackerKind.SCRIPT}
    declared = known.trackers
    for fields in blocks:
        name = name_of(fields)
        if name not in tracked and any(script.name == name for script in declared.scripts):
            message = f"vrrp_script '{name}' is not used: it does not run"
            fields.report(Severity.WARNING, "name", message, f"write track_script {{ {name} }}, or remove the block")
    return msgspec.structs.replace(declared, scripts=tuple(each for each in declared.scripts if each.name in tracked))


def track(
    instances: Sequence[VrrpInstance],
    blocks: dict[str, Fields],
    groups: Sequence[tuple[SyncGroup, Fields]],
    known: Sources,
    places: Places,
) -> tuple[VrrpInstance, ...]:
    """Return the instances with what they track; ``blocks`` are theirs by name, ``groups`` the sync groups with their blocks."""
    tracks = Tracks(known)
    by_name = {instance.name: instance for instance in instances}
    grouped: dict[str, list[Line]] = {}
    without_weights: set[str] = set()
    for group, fields in groups:
        lines = tracks.of_group([by_name[name] for name in group.members], tracks.lines(fields), fields)
        _record(lines, places, "vrrp_sync_group", group.name)
        grouped.update(dict.fromkeys(group.members, lines))
        if not fields.given(TRACKING_WEIGHT, False):
            without_weights.update(group.members)
    found = []
    for instance in instances:
        name, fields = instance.name, blocks[instance.name]
        lines = tracks.of_instance(instance, tracks.lines(fields), fields, group_without_weights=name in without_weights)
        _record(lines, places, "vrrp_instance", name)
        tracked = join((line.tracked for line in lines), (line.tracked for line in grouped.get(name, ())))
        found.append(msgspec.structs.replace(instance, tracked=tracked))
    return tuple(found)


def _record(lines: Iterable[Line], places: Places, *path: str) -> None:
    if places.wanted:
        for line in lines:
            places.record(line.at.at, 1, *path, line.keyword, line.tracked.name)
