"""The plane without packets, for tests, the simulator and dry runs."""

from relevo.planes.memory.plane import MemoryPlane

__all__ = ["MemoryPlane"]
