"""What two configurations differ in: one answer that every part of the program takes.

Instances, groups and services are the same when they have the same name, servers when they have the same endpoint, checks of
a server when they are the same one of their kind: a check whose settings change is still that check.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from relevo.model.checks import Check
from relevo.model.configuration import Configuration
from relevo.model.endpoint import Endpoint
from relevo.model.services import RealServer, VirtualServer
from relevo.model.vrrp import SyncGroup, VrrpInstance

T = TypeVar("T", bound=msgspec.Struct)
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Added(Generic[K, T]):
    """Declared now, and not before."""

    name: K
    value: T


@dataclass(frozen=True, slots=True)
class Removed(Generic[K, T]):
    """Declared before, and not any more."""

    name: K
    value: T


@dataclass(frozen=True, slots=True)
class Changed(Generic[K, T]):
    """Declared before and now, with other values in ``fields``."""

    name: K
    before: T
    after: T
    fields: frozenset[str]


@dataclass(frozen=True, slots=True)
class Changes(Generic[K, T]):
    """What became of the values of one kind; additions and changes in the order of the new configuration."""

    added: tuple[Added[K, T], ...] = ()
    removed: tuple[Removed[K, T], ...] = ()
    changed: tuple[Changed[K, T], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True, slots=True)
class Difference:
    """What two configurations differ in; ``global_defs`` are names of fields."""

    global_defs: frozenset[str]
    instances: Changes[str, VrrpInstance]
    groups: Changes[str, SyncGroup]
    services: Changes[str, VirtualServer]

    def __bool__(self) -> bool:
        return bool(self.global_defs or self.instances or self.groups or self.services)


def difference(before: Configuration, after: Configuration) -> Difference:
    """Return what turns ``before`` into ``after``."""
    return Difference(
        global_defs=changed_fields(before.global_defs, after.global_defs),
        instances=changes(before.vrrp_instances, after.vrrp_instances, lambda each: each.name),
        groups=changes(before.sync_groups, after.sync_groups, lambda each: each.name),
        services=changes(before.virtual_servers, after.virtual_servers, lambda each: each.name),
    )


def server_changes(before: VirtualServer, after: VirtualServer) -> Changes[Endpoint, RealServer]:
    """Return what became of the servers of a service."""
    return changes(before.real_servers, after.real_servers, lambda each: each.endpoint)


def changes(before: Iterable[T], after: Iterable[T], name: Callable[[T], K]) -> Changes[K, T]:
    """Compare two lists of values that ``name`` identifies; of equal names the last one counts."""
    former = {name(each): each for each in before}
    present = {name(each): each for each in after}
    return Changes(
        added=tuple(Added(key, value) for key, value in present.items() if key not in former),
        removed=tuple(Removed(key, value) for key, value in former.items() if key not in present),
        changed=tuple(
            Changed(key, former[key], value, changed_fields(former[key], value))
            for key, value in present.items()
            if key in former and former[key] != value
        ),
    )


def changed_fields(before: msgspec.Struct, after: msgspec.Struct) -> frozenset[str]:
    """Return the names of the fields in which two values of one type differ."""
    return frozenset(name for name in after.__struct_fields__ if getattr(before, name) != getattr(after, name))


def check_names(server: RealServer) -> list[tuple[tuple[str, int], Check]]:
    """Return the checks of a server, each with what it keeps over a reload: its kind, and which one of that kind it is."""
    seen: dict[str, int] = {}
    named: list[tuple[tuple[str, int], Check]] = []
    for check in server.checks:
        number = seen.get(check.name, 0)
        seen[check.name] = number + 1
        named.append(((check.name, number), check))
    return named
