"""Route look-ups where the system does not forward (``net.ipv4.ip_forward=0``).

A program's route look-up works only for an interface that forwards. IPVS looks routes up as a local sender and needs no
forwarding for DR and TUN. The programs do the same by a look-up for ``lo``, which must forward for that. No packet from outside
comes in by ``lo``, so the node routes no more than before; the switches of other interfaces are not changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from relevo.planes.port import PlaneEvent

_SWITCHES: Final = Path("/proc/sys/net")
_ROUTES: Final = Path("/proc/thread-self/net/ipv6_route")
RTF_DEFAULT: Final = 0x10000
RTF_ADDRCONF: Final = 0x40000
ACCEPT_ALWAYS: Final = "2"


def _switch(family: int, interface: str) -> Path:
    return _SWITCHES / f"ipv{family}" / "conf" / interface / "forwarding"


def allow_look_ups(families: Iterable[int]) -> list[PlaneEvent]:
    """Enable forwarding on ``lo`` for each family (4, 6) where the system does not forward; return grave events for failures."""
    return [event for family in sorted(families) if (event := _allow(family)) is not None]


def _allow(family: int) -> PlaneEvent | None:
    switch = _switch(family, "lo")
    try:
        if switch.read_text(encoding="ascii").strip() != "0":
            return None
        if family == 6 and (interface := advertised_route()):
            return PlaneEvent(
                f"ebpf: IPv6 forwarding is off and is not enabled on lo: the kernel would delete the routes that routers "
                f"advertise on {interface}; set net.ipv6.conf.{interface}.accept_ra to 2, or net.ipv6.conf.all.forwarding to 1",
                True,
            )
        switch.write_text("1", encoding="ascii")
    except OSError as error:
        return PlaneEvent(
            f"ebpf: IPv{family} forwarding is off, and net.ipv{family}.conf.lo.forwarding cannot be set to 1: {error.strerror}",
            True,
        )
    return None


def advertised_route() -> str:
    """Return an interface with a route from a router advertisement and ``accept_ra`` below 2, or an empty string. The kernel
    deletes such routes when any interface begins to forward IPv6.
    """
    for line in _ROUTES.read_text(encoding="ascii").splitlines():
        *_, flags, interface = line.split()
        if int(flags, 16) & (RTF_DEFAULT | RTF_ADDRCONF):
            accepts = _SWITCHES / "ipv6" / "conf" / interface / "accept_ra"
            if accepts.read_text(encoding="ascii").strip() != ACCEPT_ALWAYS:
                return interface
    return ""


def restore() -> None:
    """Set forwarding on ``lo`` off again if it is off for all interfaces."""
    for family in (4, 6):
        try:
            general = _switch(family, "all").read_text(encoding="ascii").strip()
            if general == "0" != _switch(family, "lo").read_text(encoding="ascii").strip():
                _switch(family, "lo").write_text("0", encoding="ascii")
        except OSError:  # no such address family, or the switches are read-only
            continue
