"""Compiles ``bpf/*.bpf.c`` into ``objects/*.bpf.o`` with the ``ziglang`` wheel's compiler, or with clang if that is missing.

Run as ``python -m relevo.planes.ebpf.build``, and by the build backend of the package, which loads this file and ``objects.py``
by themselves: they import nothing else of Relevo. The machine that runs the objects needs neither compiler nor headers.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from relevo.planes.ebpf.objects import OBJECTS, PROGRAMS, SOURCES, object_file

TIMEOUT_S: Final = 300

FLAGS: Final = (
    "-O2",
    "-g",  # type information: map values, and what global functions take
    "-mcpu=v3",  # 32-bit registers and jumps: kernel 5.1; no atomics beyond the addition that v1 has
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-function",
    "-Wno-unused-parameter",
    "-Wno-unused-const-variable",
    "-Wno-unknown-warning-option",
)


def _zig() -> Path | None:
    """Return the folder of the ``ziglang`` wheel, ``None`` if it is not installed."""
    spec = importlib.util.find_spec("ziglang")
    return Path(spec.submodule_search_locations[0]) if spec is not None and spec.submodule_search_locations else None


def compiler() -> list[str]:
    """Return the command that compiles for BPF with the kernel's user-space headers, or an empty list without a compiler."""
    if zig := _zig():
        headers = zig / "lib" / "libc" / "include"
        includes = [f"-isystem{headers / name}" for name in ("any-linux-any", "x86-linux-any")]
        return [sys.executable, "-m", "ziglang", "cc", "-target", "bpfel-freestanding", *includes]
    clang = shutil.which("clang")
    if clang is None:
        return []
    multiarch = [f"-isystem{path}" for path in sorted(Path("/usr/include").glob("*-linux-gnu"))]
    return [clang, "-target", "bpfel", *multiarch]


def stale(program: str) -> bool:
    """Whether an object is missing or older than a source."""
    built = object_file(program)
    if not built.exists():
        return True
    return any(source.stat().st_mtime > built.stat().st_mtime for source in SOURCES.iterdir())


def build(program: str) -> str:
    """Compile one program; return an empty string, or the compiler's message."""
    command = compiler()
    if not command:
        return "no compiler for BPF: pip install ziglang, or install clang"
    OBJECTS.mkdir(exist_ok=True)
    target = object_file(program)
    fresh = target.with_suffix(".new")
    # The paths of this machine stay out of the debugging information, so that the same source gives the same object anywhere.
    maps = [f"-ffile-prefix-map={path}={name}" for path, name in ((Path.cwd(), "."), (_zig(), "zig"), (SOURCES, "bpf")) if path]
    arguments = [*command, *FLAGS, *maps, "-c", str(SOURCES / f"{program}.bpf.c"), "-o", str(fresh)]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode:
        return done.stderr.strip()
    fresh.replace(target)  # atomic: a loader never reads half an object
    return ""


def main() -> int:
    """Build the programs that are stale; return 0, or 1 after a message when one cannot be built."""
    for program in PROGRAMS:
        if not stale(program):
            continue
        print(f"build: compiling {program}.bpf.c", file=sys.stderr)  # noqa: T201
        message = build(program)
        if message:
            print(f"build: {program}.bpf.c: {message}", file=sys.stderr)  # noqa: T201
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
