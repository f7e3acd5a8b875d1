"""The package as a user gets it: a source distribution, a wheel from that, and the eBPF programs in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from relevo.planes.ebpf.objects import PROGRAMS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SOURCE = ("MANIFEST.in", "README.md", "LICENSE", "pyproject.toml", "packaging", "src")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "objects")
EPOCH = "1700000000"
OBJECTS = {f"relevo/planes/ebpf/objects/{program}.bpf.o" for program in PROGRAMS}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=os.environ | environment)


@pytest.fixture(scope="module")
def requirements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a build installs first; skip where it cannot be downloaded."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folder = tmp_path_factory.mktemp("requirements")
    needed = [*wanted["build-system"]["requires"], *wanted["project"]["optional-dependencies"]["bpf"]]
    done = run("-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *needed)
    if done.returncode:
        pytest.skip(f"no package index: {' '.join(needed)} cannot be downloaded")
    return folder


def source(folder: Path) -> Path:
    """A copy of what the package is built from, with nothing compiled in it."""
    made = folder / "source"
    made.mkdir()
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, made / name, ignore=LEFT_OUT)
        else:
            shutil.copy(ROOT / name, made)
    return made


def build(made: Path, requirements: Path, *options: str) -> tuple[Path, str]:
    """Build a source distribution and, in an environment of its own, a wheel from that; return it and what the build said."""
    done = run("-m", "build", *options, str(made), PIP_NO_INDEX="1", PIP_FIND_LINKS=str(requirements), SOURCE_DATE_EPOCH=EPOCH)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (made / "dist").glob("*.whl")
    return wheel, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(requirements: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source(tmp_path_factory.mktemp("package")), requirements)[0]


def test_a_wheel_has_the_programs_and_all_else_that_the_checkout_has(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not [name for name in names if name.endswith(".pyc")]
    assert {name for name in names if name.endswith(".o")} == OBJECTS
    sources = {path for path in (ROOT / "src").rglob("*") if path.suffix in (".py", ".c", ".h")}
    assert {str(path.relative_to(ROOT / "src")) for path in sources} - names == set()


def test_the_same_source_gives_the_same_wheel(wheel: Path, requirements: Path, tmp_path: Path) -> None:
    """Elsewhere, later, and with another umask."""
    folder = tmp_path / "another" / "folder"
    folder.mkdir(parents=True)
    former = os.umask(0o002)
    try:
        again, _ = build(source(folder), requirements)
    finally:
        os.umask(former)
    parts = [[(each.filename, each.CRC) for each in zipfile.ZipFile(built).infolist()] for built in (wheel, again)]
    assert parts[0] == parts[1]
    assert wheel.read_bytes() == again.read_bytes(), "the same files, and other times or modes"


@pytest.mark.usefixtures("ebpf")
def test_the_programs_of_a_wheel_load(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    done = run("-c", "import relevo; print(relevo.__file__)", PYTHONPATH=str(tmp_path))
    assert done.stdout.startswith(str(tmp_path)), "the checkout was tested, not the wheel"
    done = run("-m", "relevo", "doctor", "--load", PYTHONPATH=str(tmp_path))
    (line,) = [line for line in done.stdout.splitlines() if " plane ebpf " in line]
    assert line.startswith("ok"), done.stdout
    assert "accepted by the verifier" in line


def test_a_program_that_cannot_be_compiled_leaves_a_wheel_without_any(requirements: Path, tmp_path: Path) -> None:
    made = source(tmp_path)
    with (made / "src/relevo/planes/ebpf/bpf/xdp.bpf.c").open("a") as program:
        program.write("#error not today\n")
    wheel, said = build(made, requirements, "--wheel")
    assert {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".o")} == set()
    assert "not today" in said
    assert "the package will have no ebpf plane" in said
