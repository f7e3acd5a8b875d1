"""The ebpf plane: Relevo's own eBPF programs at TC and XDP, for kernels from 5.10 on.

``bpf`` has the programs, ``build`` compiles them, ``instance`` loads and pins them, ``attach`` attaches them to interfaces,
``table`` writes services and servers into their maps, ``plane`` implements the port.
"""

from relevo.planes.ebpf.instance import ROOT, remove_pins
from relevo.planes.ebpf.plane import EbpfPlane, capabilities_of_ebpf, sizes_for, survey, try_load, unavailable_reason

__all__ = ["ROOT", "EbpfPlane", "capabilities_of_ebpf", "remove_pins", "sizes_for", "survey", "try_load", "unavailable_reason"]
