"""The plane that moves nothing: the shipped fake, for tests, the simulator and dry runs."""

from relevo.planes.memory.plane import MemoryPlane

__all__ = ["MemoryPlane"]
