"""Reading a configuration in processes of its own: what comes back, and what the compiler's process cannot do."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from relevo import config
from relevo.config import Compiled
from relevo.daemon import reading
from relevo.daemon.configuration import compile_file
from relevo.daemon.reading import read_apart
from relevo.errors import ConfigurationError
from tests.unit.proxy.rig import wait_until

ARTICLE = Path(__file__).parents[3] / "examples" / "article" / "master.conf"


def read(file: Path, *, strict: bool = False) -> reading.Reading:
    return read_apart(str(file), None, strict=strict)


def in_the_compiler(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Have the compiler's process do something else than compile; what it returns is the error of the reading."""

    def compile_text(*arguments: Any, **named: Any) -> Compiled:
        raise ConfigurationError(str(act()))

    monkeypatch.setattr(config, "compile_text", compile_text)


def test_a_file_means_what_it_means_in_one_process() -> None:
    found, compiled = read(ARTICLE), compile_file(str(ARTICLE))
    assert found.configuration == compiled.configuration
    assert found.findings == tuple(f"{f.place}: {f.severity.value}: {f.message}" for f in compiled.findings.in_order())
    assert (found.error, found.blocking, found.status) == ("", "", 5)
    assert "lvs_id LVS_EXAMPLE_01" in found.rendered[0]


def test_strict_is_passed_on() -> None:
    assert "(--strict)" in read(ARTICLE, strict=True).blocking


def test_included_files_are_found_from_the_file_that_includes_them(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "main.conf").write_text("include d/*.conf\ninclude nowhere.conf\n")
    (tmp_path / "d" / "a.conf").write_text("global_defs {\n  router_id first\n}\ninclude b.txt\n")
    (tmp_path / "d" / "b.txt").write_text("vrrp_sync_group {\n")
    found = read(tmp_path / "main.conf")
    assert found.configuration.global_defs.router_id == "first"
    assert any("b.txt" in each for each in found.findings)
    assert any("nowhere.conf" in each for each in found.findings)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can open them")
def test_the_reader_opens_what_only_root_can(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "main.conf").write_text("include secret.conf\n")
    (tmp_path / "secret.conf").write_text("global_defs {\n  router_id secret\n}\n")
    (tmp_path / "secret.conf").chmod(0o600)
    assert read(tmp_path / "main.conf").configuration.global_defs.router_id == "secret"


@pytest.mark.parametrize(("name", "message"), [("nowhere", "cannot read"), ("", "directory"), ("pipe", "is not a file")])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert message in read(tmp_path / name).error


def test_names_that_are_no_unicode_do_not_end_the_reading(tmp_path: Path) -> None:
    (tmp_path / "main.conf").write_text("include ?.conf\n")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.conf")).write_text("nonsense\n")
    found = read(tmp_path / "main.conf")
    assert found.error == ""
    assert any(r"\udcff.conf" in finding and "nonsense" in finding for finding in found.findings)


def test_the_compiler_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_compiler(monkeypatch, lambda: os.open("/etc/passwd", os.O_RDONLY))
    assert "PermissionError" in read(ARTICLE).error or "ended with status 1" in read(ARTICLE).error


def test_a_compiler_that_crashes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_compiler(monkeypatch, lambda: ctypes.string_at(0))
    assert "was ended by signal 11" in read(ARTICLE).error


def test_a_compiler_that_takes_all_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_MEMORY", resource.getpagesize() * (1 << 16))
    in_the_compiler(monkeypatch, lambda: len(b"x" * (1 << 40)))
    assert "ended with status 1" in read(ARTICLE).error


def test_a_reading_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ_S", 0.5)
    started = []
    begin = reading.begin

    def note(*arguments: Any, **named: Any) -> tuple[int, socket.socket]:
        pid, sock = begin(*arguments, **named)
        started.append(pid)
        return pid, sock

    monkeypatch.setattr(reading, "begin", note)
    in_the_compiler(monkeypatch, lambda: time.sleep(3600))
    assert read(ARTICLE) is reading.TOO_SLOW
    assert started
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "the end of the reader")


def test_an_answer_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_encode", lambda value: b"\xc1")
    assert "does not keep to the protocol" in read(ARTICLE).error or "sent no configuration" in read(ARTICLE).error
