"""The benchmarks' own programs, and frames sent from XDP without a socket (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from relevo.planes.ebpf import syscall
from relevo.planes.ebpf.attach import add_filter
from relevo.planes.ebpf.build import FLAGS, compiler
from relevo.planes.ebpf.libbpf import Object
from relevo.planes.ebpf.objects import SOURCES

HERE = Path(__file__).parent
LIVE_FRAMES = 2
XDP = 37
DRIVER = 4


class Traffic(ctypes.LittleEndianStructure):
    """``struct plan`` of traffic.bpf.c."""

    _fields_ = [
        ("interface", ctypes.c_uint32),
        ("flows", ctypes.c_uint32),
        ("next", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("received", ctypes.c_uint64),
        ("frame", ctypes.c_uint8 * 64),
    ]


def compiled(name: str) -> Path:
    """Compile a program of this folder; return its object."""
    target = Path(tempfile.gettempdir()) / f"relevo-bench-{os.getpid()}-{name}.o"
    subprocess.run([*compiler(), *FLAGS, f"-I{SOURCES}", "-c", str(HERE / f"{name}.bpf.c"), "-o", str(target)], check=True)
    return target


def native(name: str) -> Path:
    """Compile a program of this folder for the machine itself; return it."""
    target = Path(tempfile.gettempdir()) / f"relevo-bench-{os.getpid()}-{name}"
    command = [found] if (found := shutil.which("cc")) else [sys.executable, "-m", "ziglang", "cc"]
    subprocess.run([*command, "-O2", "-Wall", "-o", str(target), str(HERE / f"{name}.c")], check=True)
    return target


class Generator:
    """The programs of traffic.bpf.c, loaded with a separate plan."""

    def __init__(self) -> None:
        file = compiled("traffic")
        self._object = Object(file)
        self._object.load()
        file.unlink()
        self.programs = self._object.program_descriptors()
        maps = self._object.map_descriptors()
        plans = syscall.Map(maps.pop("plans"))
        self._memory = plans.mapped()
        for descriptor in (plans.descriptor, *maps.values()):
            os.close(descriptor)
        self.plan = Traffic.from_buffer(self._memory)
        self._links: list[int] = []

    def attach(self, program: str, interface: int) -> None:
        """Put a program on an interface of this namespace."""
        self._links.append(syscall.link_create(self.programs[program], interface, XDP, DRIVER))

    def attach_tc(self, program: str, interface: int) -> None:
        """Put a program at TC ingress of an interface of this namespace; it stays as long as the interface."""
        add_filter(interface, self.programs[program])

    def send(self, program: str, frame: bytes, count: int) -> None:
        """Run a program on ``count`` live frames of 64 bytes."""
        self.plan.frame[:] = frame
        given = ctypes.create_string_buffer(frame, len(frame))
        head = b"".join(n.to_bytes(4, "little") for n in (self.programs[program], 0, len(frame), 0))
        pointers = ctypes.addressof(given).to_bytes(8, "little") + bytes(8)
        tail = b"".join(n.to_bytes(4, "little") for n in (count, 0, 0, 0)) + bytes(16)
        syscall._call(
            syscall._TEST_RUN, head + pointers + tail + b"".join(n.to_bytes(4, "little") for n in (LIVE_FRAMES, 0, 64)), "live"
        )

    def close(self) -> None:
        for descriptor in (*self._links, *self.programs.values()):
            os.close(descriptor)
        self._object.close()
