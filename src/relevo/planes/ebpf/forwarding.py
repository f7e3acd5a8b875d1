"""Route look-ups where the system does not forward (``net.ipv4.ip_forward=0``).

The kernel answers a program's route look-up only for an interface that forwards. IPVS asks as a sender of its own and needs no
forwarding for DR and TUN; the programs do the same and ask for ``lo``, which has to forward for that. Nothing comes in by
``lo`` from outside, so the node routes no more than before; the other interfaces' switches are left alone.
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
    """Let ``lo`` forward packets of each family (4, 6) where the system does not; return what could not be done, grave."""
    return [notice for family in sorted(families) if (notice := _allow(family)) is not None]


def _allow(family: int) -> PlaneEvent | None:
    switch = _switch(family, "lo")
    try:
        if switch.read_text(encoding="ascii").strip() != "0":
            return None
        if family == 6 and (interface := advertised_route()):
            return PlaneEvent(
                f"ebpf: IPv6 is not forwarded, and may not be asked for: the kernel would forget the routes that routers "
                f"advertise on {interface}; set net.ipv6.conf.{interface}.accept_ra to 2, or net.ipv6.conf.all.forwarding to 1",
                True,
            )
        switch.write_text("1", encoding="ascii")
    except OSError as error:
        return PlaneEvent(
            f"ebpf: IPv{family} is not forwarded, and net.ipv{family}.conf.lo.forwarding cannot be set to 1: {error.strerror}",
            True,
        )
    return None


def advertised_route() -> str:
    """Return an interface with a route that a router advertised, ``accept_ra`` being below 2: the kernel deletes it when anything
    at all begins to forward IPv6. Empty when there is none.
    """
    for line in _ROUTES.read_text(encoding="ascii").splitlines():
        *_, flags, interface = line.split()
        if int(flags, 16) & (RTF_DEFAULT | RTF_ADDRCONF):
            accepts = _SWITCHES / "ipv6" / "conf" / interface / "accept_ra"
            if accepts.read_text(encoding="ascii").strip() != ACCEPT_ALWAYS:
                return interface
    return ""


def restore() -> None:
    """Let ``lo`` forward if, and only if, the system does."""
    for family in (4, 6):
        try:
            general = _switch(family, "all").read_text(encoding="ascii").strip()
            if general == "0" != _switch(family, "lo").read_text(encoding="ascii").strip():
                _switch(family, "lo").write_text("0", encoding="ascii")
        except OSError:  # there is no such family here, or the switches are not ours to move
            continue
