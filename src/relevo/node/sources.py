"""The present values of trackers, as the director knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from relevo.model import Configuration, Tracked, TrackerKind, VrrpInstance
from relevo.node.observation import Observation, World

SourceKey = tuple[TrackerKind, str]

_AWAITED: Final = frozenset((TrackerKind.SCRIPT, TrackerKind.FILE, TrackerKind.PROCESS))
"""Kinds whose first value comes soon, so that an instance can wait for it. That of a virtual server may take too long."""
_NAMES: Final = {
    TrackerKind.SCRIPT: "vrrp_script",
    TrackerKind.FILE: "track_file",
    TrackerKind.PROCESS: "vrrp_track_process",
}


class Sources:
    """Values by kind and name. A source that is missing here has no value yet; ``None`` stands for one that never has."""

    def __init__(self, values: Mapping[SourceKey, int | None]) -> None:
        self._values: dict[SourceKey, int | None] = dict(values)
        self._declared: frozenset[SourceKey] = frozenset()

    def configure(self, configuration: Configuration) -> None:
        """Forget the sources that the configuration does not declare."""
        self._declared = declared_sources(configuration)
        self._values = {key: value for key, value in self._values.items() if key in self._declared}

    def take(self, kind: TrackerKind, given: Observation) -> None:
        """Process an observation; one of a source that a reload removed is ignored."""
        if (kind, given.name) in self._declared:
            self._values[kind, given.name] = given.value

    def observed(self, world: World) -> Callable[[Tracked], int | None]:
        """Return the function that looks up a value; interfaces are those of ``world``."""

        def value(tracked: Tracked) -> int | None:
            if tracked.kind is TrackerKind.INTERFACE:
                return int(world.is_up(tracked.name))
            return self._values.get((tracked.kind, tracked.name))

        return value

    def awaited(self, instance: VrrpInstance) -> str:
        """Return the source whose first value decides whether the instance has a fault; empty if all of those are known.

        Until then the instance does not start: it must not become master and leave again at once (keepalived waits for scripts).
        """
        for tracked in instance.tracked:
            key = (tracked.kind, tracked.name)
            if tracked.weight == 0 and tracked.kind in _AWAITED and key not in self._values:
                return f"{_NAMES[tracked.kind]} {tracked.name}"
        return ""


def declared_sources(configuration: Configuration) -> frozenset[SourceKey]:
    """Return the sources whose values come as observations: the declared ones, and the virtual servers that are tracked."""
    declared = configuration.trackers
    return frozenset(
        (
            *((TrackerKind.SCRIPT, script.name) for script in declared.scripts),
            *((TrackerKind.FILE, file.name) for file in declared.files),
            *((TrackerKind.PROCESS, process.name) for process in declared.processes),
            *((TrackerKind.SERVICE, name) for name in tracked_services(configuration)),
        )
    )


def tracked_services(configuration: Configuration) -> frozenset[str]:
    """Return the names of the virtual servers that an instance tracks."""
    tracked = (each for instance in configuration.vrrp_instances for each in instance.tracked)
    return frozenset(each.name for each in tracked if each.kind is TrackerKind.SERVICE)
