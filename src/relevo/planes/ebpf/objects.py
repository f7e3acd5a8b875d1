"""Paths of the compiled programs and their sources."""

from __future__ import annotations

from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
SOURCES: Final = HERE / "bpf"
OBJECTS: Final = HERE / "objects"
PROGRAMS: Final = ("tc", "xdp", "control")


def object_file(program: str) -> Path:
    """Return the path of a program's object file."""
    return OBJECTS / f"{program}.bpf.o"
