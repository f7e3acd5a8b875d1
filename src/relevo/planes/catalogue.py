"""The data planes by name: which exist, which one a configuration gets and why, and how each is made.

No other module depends on a plane's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from relevo.errors import PlaneError
from relevo.model import Configuration, Forwarding
from relevo.planes import ebpf, ipvs
from relevo.planes.ipvs import IpvsPlane
from relevo.planes.memory import MemoryPlane
from relevo.planes.port import Capabilities, Plane
from relevo.planes.proxy.client import ProxyPlane
from relevo.planes.table import capabilities_of_user_space

PACKET_PLANES = {"ipvs": ipvs.unavailable_reason, "ebpf": ebpf.unavailable_reason}
"""Planes that a system may lack, with the function that says why it does."""


def needs_process(name: str) -> bool:
    """Whether the plane moves connections in a process of its own."""
    return name == "proxy"


def is_kernel_table(name: str) -> bool:
    """Whether the plane's table is the kernel's IPVS, which other tools can read."""
    return name == "ipvs"


@dataclass(frozen=True, slots=True)
class Choice:
    """A plane's name, and why it was chosen."""

    name: str
    reason: str


def choose(configuration: Configuration) -> Choice:
    """Return the plane for a configuration; ``PlaneError`` when the one it names is unavailable."""
    wanted = configuration.global_defs.plane
    if wanted in PACKET_PLANES:
        reason = PACKET_PLANES[wanted]()
        if reason:
            raise PlaneError(f"data_plane {wanted}: {reason}", hint="write data_plane auto")
    if wanted != "auto":
        return Choice(wanted, "as configured")
    no_packets = _unfit_for_packets(configuration)
    if no_packets:
        return Choice("proxy", f"auto: {no_packets}")
    no_ipvs = _unfit_for_ipvs(configuration) or ipvs.unavailable_reason()
    if not no_ipvs:
        return Choice("ipvs", "auto: the kernel has it")
    no_ebpf = ebpf.unavailable_reason()
    if not no_ebpf:
        return Choice("ebpf", f"auto: {no_ipvs}")
    return Choice("proxy", f"auto: {no_ipvs}; no ebpf: {no_ebpf}")


def _unfit_for_packets(configuration: Configuration) -> str:
    """Return why no packet plane can serve these services; empty when one can."""
    services = configuration.virtual_servers
    if services and all(ip_address(service.endpoint.address).is_loopback for service in services):
        return "every virtual server has a loopback address"
    if any(server.proxy_protocol for service in services for server in service.real_servers):
        return "the PROXY protocol needs a proxy"
    return ""


def _unfit_for_ipvs(configuration: Configuration) -> str:
    """Return why the kernel's IPVS cannot serve these services; empty when it can."""
    services = configuration.virtual_servers
    if any(server.forwarding is Forwarding.FULLNAT for service in services for server in service.real_servers):
        return "lb_kind FULLNAT is not in ipvs"
    return ""


def capabilities(name: str) -> Capabilities:
    """What the plane ``name`` can do."""
    match name:
        case "ipvs":
            return ipvs.capabilities_of_ipvs()
        case "ebpf":
            return ebpf.capabilities_of_ebpf()
        case _:
            return capabilities_of_user_space(name)


def pin_folder(runtime: Path) -> Path:
    """Return the folder in which the eBPF plane of this daemon is pinned. The BPF file system takes no dots in names."""
    return ebpf.ROOT / "relevo" / re.sub(r"[^A-Za-z0-9_-]+", "-", str(runtime.resolve())).strip("-")


def proxy_socket(runtime: Path) -> Path:
    """Return where the proxy listens for the balancer: in a folder of its own, which only the balancer's user can enter."""
    return runtime / "proxy" / "control.sock"


def prepare(plane: Plane, owner: tuple[int, int]) -> None:
    """Do what needs root, for a process that will be ``owner``, a user and a group; ``PlaneError`` if that fails."""
    match plane:
        case ebpf.EbpfPlane():
            plane.open_for(*owner)
        case ProxyPlane():
            plane.stay_in_folder()


def make(name: str, runtime: Path, configuration: Configuration) -> Plane:
    """Return the port to plane ``name`` of the daemon whose run folder is ``runtime``."""
    if name == "memory":
        return MemoryPlane()
    if name == "ipvs":
        return IpvsPlane(configuration.global_defs.lvs_timeouts)
    if name == "ebpf":
        chosen = configuration.global_defs
        sizes = ebpf.sizes_for(configuration)
        return ebpf.EbpfPlane(
            pin_folder(runtime),
            sizes,
            hooks=chosen.ebpf_hooks,
            maglev_size=chosen.mh_table_size,
            timeouts=chosen.lvs_timeouts,
        )
    return ProxyPlane(str(proxy_socket(runtime)))
