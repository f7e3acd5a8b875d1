"""Which data plane a configuration gets, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from relevo.errors import PlaneError
from relevo.planes.memory import MemoryPlane
from relevo.planes.port import Capabilities, Plane
from relevo.planes.proxy.client import ProxyPlane
from relevo.planes.table import capabilities_of_user_space

ABSENT: Final = {
    "ipvs": "this version has no ipvs plane",
    "ebpf": "this version has no ebpf plane",
}
"""Planes of the design that have no code yet, and what to say of them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A plane's name, and why it was taken."""

    name: str
    reason: str


def choose(wanted: str) -> Choice:
    """Return the plane for ``data_plane wanted``; ``PlaneError`` when it cannot be had."""
    if wanted in ABSENT:
        raise PlaneError(f"data_plane {wanted}: {ABSENT[wanted]}", hint="write data_plane auto or proxy")
    if wanted == "auto":
        return Choice("proxy", "auto: " + "; ".join(ABSENT.values()))
    return Choice(wanted, "as configured")


def capabilities(name: str) -> Capabilities:
    """What the plane ``name`` can do."""
    return capabilities_of_user_space(name)


def make(name: str, proxy_socket: str) -> Plane:
    """Return the port to plane ``name``."""
    return MemoryPlane() if name == "memory" else ProxyPlane(proxy_socket)
