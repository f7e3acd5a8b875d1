"""The plane of our own: eBPF programs at TC and XDP, on any kernel from 5.10 on."""

from relevo.planes.ebpf.plane import EbpfPlane, capabilities_of_ebpf, refusal

__all__ = ["EbpfPlane", "capabilities_of_ebpf", "refusal"]
