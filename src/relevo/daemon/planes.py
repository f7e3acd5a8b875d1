"""Which data plane a configuration gets, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from relevo.errors import PlaneError
from relevo.model import Configuration
from relevo.planes import ebpf
from relevo.planes.memory import MemoryPlane
from relevo.planes.port import Capabilities, Plane
from relevo.planes.proxy.client import ProxyPlane
from relevo.planes.table import capabilities_of_user_space

NO_IPVS: Final = "this version has no ipvs plane"


@dataclass(frozen=True, slots=True)
class Choice:
    """A plane's name, and why it was taken."""

    name: str
    reason: str


def choose(configuration: Configuration) -> Choice:
    """Return the plane for a configuration; ``PlaneError`` when the one it names cannot be had."""
    wanted = configuration.global_defs.plane
    if wanted == "ipvs":
        raise PlaneError(f"data_plane ipvs: {NO_IPVS}", hint="write data_plane auto, ebpf or proxy")
    if wanted == "ebpf":
        refused = ebpf.refusal()
        if refused:
            raise PlaneError(f"data_plane ebpf: {refused}", hint="write data_plane auto or proxy")
    if wanted != "auto":
        return Choice(wanted, "as configured")
    refused = _unfit_for_packets(configuration) or ebpf.refusal()
    if refused:
        return Choice("proxy", f"auto: {NO_IPVS}; no ebpf plane: {refused}")
    return Choice("ebpf", f"auto: {NO_IPVS}")


def _unfit_for_packets(configuration: Configuration) -> str:
    """Why packets of these services never cross an interface that a program could be on; empty when they do."""
    services = configuration.virtual_servers
    if services and all(ip_address(service.endpoint.address).is_loopback for service in services):
        return "every virtual server has a loopback address"
    if any(server.proxy_protocol for service in services for server in service.real_servers):
        return "the PROXY protocol needs a proxy"
    return ""


def capabilities(name: str) -> Capabilities:
    """What the plane ``name`` can do."""
    return ebpf.capabilities_of_ebpf() if name == "ebpf" else capabilities_of_user_space(name)


def pin_folder(runtime: Path) -> Path:
    """Where the eBPF plane of the daemon with this run folder is pinned (the file system takes no dots)."""
    return ebpf.ROOT / "relevo" / re.sub(r"[^A-Za-z0-9_-]+", "-", str(runtime.resolve())).strip("-")


def make(name: str, runtime: Path, configuration: Configuration) -> Plane:
    """Return the port to plane ``name`` of the daemon with this run folder."""
    if name == "memory":
        return MemoryPlane()
    if name == "ebpf":
        chosen = configuration.global_defs
        sizes = ebpf.sizes_for(configuration)
        return ebpf.EbpfPlane(pin_folder(runtime), sizes, hooks=chosen.ebpf_hooks, maglev_size=chosen.mh_table_size)
    return ProxyPlane(str(runtime / "proxy.sock"))
