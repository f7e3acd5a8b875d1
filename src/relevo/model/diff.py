"""The difference of two configurations, for every part of the program that handles a reload.

Instances, groups and services are identified by name, servers by endpoint, and checks of a server by their kind and their
number within that kind. A check whose settings change is therefore the same check.
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
    """A value that only the new configuration declares."""

    name: K
    value: T


@dataclass(frozen=True, slots=True)
class Removed(Generic[K, T]):
    """A value that only the old configuration declares."""

    name: K
    value: T


@dataclass(frozen=True, slots=True)
class Changed(Generic[K, T]):
    """A value that both configurations declare, with different ``fields``."""

    name: K
    before: T
    after: T
    fields: frozenset[str]


@dataclass(frozen=True, slots=True)
class Changes(Generic[K, T]):
    """Differences of the values of one type. ``added`` and ``changed`` have the order of the new configuration."""

    added: tuple[Added[K, T], ...] = ()
    removed: tuple[Removed[K, T], ...] = ()
    changed: tuple[Changed[K, T], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True, slots=True)
class Difference:
    """Differences of two configurations; ``global_defs`` are names of changed fields."""

    global_defs: frozenset[str]
    instances: Changes[str, VrrpInstance]
    groups: Changes[str, SyncGroup]
    services: Changes[str, VirtualServer]

    def __bool__(self) -> bool:
        return bool(self.global_defs or self.instances or self.groups or self.services)


def difference(before: Configuration, after: Configuration) -> Difference:
    """Return the changes from ``before`` to ``after``."""
    return Difference(
        global_defs=changed_fields(before.global_defs, after.global_defs),
        instances=changes(before.vrrp_instances, after.vrrp_instances, lambda each: each.name),
        groups=changes(before.sync_groups, after.sync_groups, lambda each: each.name),
        services=changes(before.virtual_servers, after.virtual_servers, lambda each: each.name),
    )


def server_changes(before: VirtualServer, after: VirtualServer) -> Changes[Endpoint, RealServer]:
    """Return the changes of a service's servers."""
    return changes(before.real_servers, after.real_servers, lambda each: each.endpoint)


def changes(before: Iterable[T], after: Iterable[T], name: Callable[[T], K]) -> Changes[K, T]:
    """Compare two lists of values identified by ``name``. If a list has a name twice, the last one counts."""
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
    """Return the checks of a server, each with the name that a reload keeps: its kind, and its number within that kind."""
    seen: dict[str, int] = {}
    named: list[tuple[tuple[str, int], Check]] = []
    for check in server.checks:
        number = seen.get(check.name, 0)
        seen[check.name] = number + 1
        named.append(((check.name, number), check))
    return named
