"""The build backend (PEP 517): setuptools, and the eBPF programs compiled into the wheel.

An editable install compiles none: ``make bpf`` does that in the checkout. How to compile, ``relevo.planes.ebpf.build`` knows.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from setuptools.command.build_py import build_py

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

COMPILER = "ziglang>=0.13"
PLANE = Path("relevo", "planes", "ebpf")


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return what building a wheel needs: a compiler for BPF, which a source distribution or an editable install does without."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), COMPILER]


def build_wheel(*arguments: Any, **named: Any) -> Any:
    """Build a wheel whose files have the same modes whatever the umask is: the same source gives the same bytes."""
    former = os.umask(0o022)
    try:
        return build_meta.build_wheel(*arguments, **named)
    finally:
        os.umask(former)


def build_sdist(folder: str, *arguments: Any, **named: Any) -> str:
    """Build a source distribution; with SOURCE_DATE_EPOCH, times and owners in it are those of the source, not of this build."""
    name: str = build_meta.build_sdist(folder, *arguments, **named)
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        _settle(Path(folder, name), int(epoch))
    return name


def _settle(archive: Path, epoch: int) -> None:
    """Write an archive anew, in the order of names."""
    plain = io.BytesIO()
    with tarfile.open(archive) as source, tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as target:
        for member in sorted(source.getmembers(), key=lambda each: each.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname, member.pax_headers = epoch, 0, 0, "", "", {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            target.addfile(member, source.extractfile(member) if member.isfile() else None)
    with archive.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=epoch) as packed:
        packed.write(plain.getvalue())


class BuildPy(build_py):
    """Puts the objects beside the modules that read them; ``tool.setuptools.cmdclass`` names it."""

    def run(self) -> None:
        """Build the package, then its objects. A package without them is complete but for its ebpf plane."""
        super().run()
        if not self.editable_mode:
            compile_programs(Path(self.build_lib, PLANE))
            for file in Path(self.build_lib).rglob("*"):
                file.chmod(0o755 if file.is_dir() else 0o644)  # those of the checkout depend on its owner's umask


def compile_programs(plane: Path) -> None:
    """Compile every program below ``plane``, the folder of a built package; say so where one cannot be, and leave none."""
    _load(plane, "objects")
    build = _load(plane, "build")
    shutil.rmtree(build.OBJECTS, ignore_errors=True)  # of an earlier build
    if build.main():
        shutil.rmtree(build.OBJECTS, ignore_errors=True)
        print("build: without the eBPF programs: the package will have no ebpf plane", file=sys.stderr)  # noqa: T201


def _load(plane: Path, name: str) -> Any:
    """Load a module of the plane from its file. Importing it by name would import the plane, and what that depends on."""
    spec = importlib.util.spec_from_file_location(f"relevo.planes.ebpf.{name}", (plane / f"{name}.py").resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    former, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # bytecode has the path and time of this build
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = former
    return module
