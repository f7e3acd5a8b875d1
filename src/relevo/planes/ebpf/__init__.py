"""The plane of our own: eBPF programs at TC and XDP, on any kernel from 5.10 on.

``bpf`` has the programs, ``build`` compiles them, ``instance`` loads and pins them, ``attach`` puts them on interfaces, ``table``
is what they read, ``plane`` the port.
"""

from relevo.planes.ebpf.instance import ROOT, remove_pins
from relevo.planes.ebpf.plane import EbpfPlane, capabilities_of_ebpf, sizes_for, survey, try_load, unavailable_reason

__all__ = ["ROOT", "EbpfPlane", "capabilities_of_ebpf", "remove_pins", "sizes_for", "survey", "try_load", "unavailable_reason"]
