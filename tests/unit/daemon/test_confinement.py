"""The table of privileges, tried out: an intruder in each role, as root and as an ordinary user."""

from __future__ import annotations

import ast
import importlib.util
import os
import pkgutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from relevo import config
from relevo.daemon import confinement
from relevo.daemon.confinement import ROLES, Role, confine, identity
from relevo.host import landlock, seccomp
from relevo.host.landlock import READ
from tests.intruder import attempts, files_in

NOT_COMPILED = ("relevo.config.formatting", "relevo.config.pair", "relevo.config.edits")
"""Modules of commands, which no daemon uses."""
USER = 65533
"""An ordinary user for tests that run as root."""

pytestmark = pytest.mark.skipif(
    landlock.version() < landlock.SCOPES_SINCE or not seccomp.available(), reason="needs Landlock with scopes, and libseccomp"
)


@pytest.fixture
def files() -> Iterator[dict[str, Path]]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is for its user alone
        Path(folder).chmod(0o755)
        (Path(folder) / "inside").mkdir()
        yield files_in(Path(folder) / "inside")


@pytest.fixture
def victim() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        assert process.poll() is None, "the intruder has killed it"
        process.kill()


def inside(role: Role, files: dict[str, Path], victim: int, *, as_user: bool = False) -> list[str]:
    """Return what an intruder achieves in a process with this role."""
    for module in role.modules:  # the user may not be able to read them
        importlib.import_module(module)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if as_user:
                os.setgroups([])
                os.setresgid(USER, USER, USER)
                os.setresuid(USER, USER, USER)
            done = [f"refused: {each}" for each in confine(role)]
            wanted = identity(role)
            done += [f"user {ids}" for ids in ((os.geteuid(), os.getegid()),) if ids != wanted]
            done += list(attempts(role, files, victim))
            os.write(writer, "\n".join(done).encode()[:60_000])
        except BaseException as error:
            os.write(writer, f"broken: {error!r}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as found:
        text = found.read()
    os.waitpid(pid, 0)
    return text.splitlines()


@pytest.mark.parametrize("role", ROLES, ids=lambda role: f"{role.name}-{len(role.capabilities)}")
@pytest.mark.parametrize("as_user", [False, True], ids=["root", "user"])
def test_an_intruder_achieves_nothing(role: Role, as_user: bool, files: dict[str, Path], victim: int) -> None:
    if os.geteuid() != 0 and not as_user:
        pytest.skip("this test is for root")
    assert inside(role, files, victim, as_user=as_user and os.geteuid() == 0) == []
    assert files["open"].read_text() == "#!/bin/sh\n"


def test_without_confinement_an_intruder_achieves_much(
    files: dict[str, Path], victim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test can fail."""
    monkeypatch.setattr(landlock, "restrict", os.close)
    assert {"read a file", "write to a file", "make a file"} <= set(inside(confinement.MAIL, files, victim))
    monkeypatch.undo()
    monkeypatch.setattr(seccomp, "prepare", lambda *arguments, **named: None)
    found = inside(confinement.COMPILER, files, victim)
    assert {"fork", "socket of AF_INET", "socket of AF_UNIX"} <= set(found)


def late_imports(module: str) -> set[str]:
    """Return what functions of a module of ours import when they are called."""
    found = set()
    source = importlib.util.find_spec(module)
    assert source is not None
    assert source.origin is not None
    for function in ast.walk(ast.parse(Path(source.origin).read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    found |= {each.name for each in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module is not None:
                    found.add(node.module)
    return found


def test_what_the_compiler_imports_late_is_imported_before() -> None:
    names = [each.name for each in pkgutil.walk_packages(config.__path__, "relevo.config.")]
    late = set().union(*(late_imports(name) for name in names if name not in NOT_COMPILED))
    late |= {"random"}  # of the surroundings
    assert late == set(confinement.COMPILER.modules)


def test_every_role_has_a_user_of_its_own() -> None:
    names = {role.name: role.user for role in ROLES}
    numbers = {role.name: role.number for role in ROLES}
    assert len(set(names.values())) == len(set(numbers.values())) == len(names)


def test_what_was_opened_before_stays_usable(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    (tmp_path / "file").write_text("content")
    with open(tmp_path / "file") as file:
        if os.fork() == 0:
            confine(confinement.COMPILER)
            theirs.sendall(file.read().encode())
            os._exit(0)
    theirs.close()
    assert ours.recv(100) == b"content"
    os.wait()


def test_files_that_were_given_to_a_role_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.chdir(tmp_path)
        role = Role("test", "", os.geteuid(), "", calls=confinement.RUN | confinement.DESCRIPTORS | confinement.LOOK)
        confine(role, ((tmp_path / "file", READ),))
        os.write(writer, Path("file").read_bytes())
        os._exit(0)
    os.close(writer)
    with open(reader) as found:
        assert found.read() == "content"
    os.wait()
