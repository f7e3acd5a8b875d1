"""Files: keys that only their owner reads, and PID files that are never half written."""

import os
import threading
from pathlib import Path

import pytest

from relevo.errors import ConfigurationError, HostError
from relevo.host.configuration_file import read_configuration
from relevo.host.files import MAX_KEY, MIN_KEY, read_key, read_password, remove_pid_file, write_pid_file
from relevo.host.includes import read_included


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> str:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_end_of_the_line_is_no_part_of_a_key(tmp_path: Path, end: bytes) -> None:
    assert read_key(key_file(tmp_path, b"k" * MIN_KEY + end)) == b"k" * MIN_KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, b"k" * MIN_KEY, mode)
    with pytest.raises(HostError, match="others may read the key") as caught:
        read_key(path)
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("length", [0, MIN_KEY - 1, MAX_KEY + 1])
def test_a_key_that_is_too_short_or_too_long_is_refused_and_not_shown(tmp_path: Path, length: int) -> None:
    with pytest.raises(HostError, match="a key has 16 to 4096 bytes") as caught:
        read_key(key_file(tmp_path, b"s" * length))
    assert "sss" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot read"):
        read_key(str(tmp_path / "missing"))
    with pytest.raises(HostError):
        read_key(str(tmp_path))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(HostError, match="is not a file"):
        read_key(str(pipe))


def test_a_pid_file_is_never_empty_and_a_device_stays_one(tmp_path):
    file = tmp_path / "pid"
    file.write_text("17\n")
    seen = set()
    done = threading.Event()

    def read():
        while not done.is_set():
            seen.add(file.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(300):
        write_pid_file(file, 17)
    done.set()
    reader.join()
    assert seen == {"17\n"}
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader_end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_pid_file(pipe, 5)
    remove_pid_file(pipe)
    assert (os.read(reader_end, 10), pipe.is_fifo()) == (b"5\n", True)
    os.close(reader_end)
    with pytest.raises(HostError, match="cannot write"):
        write_pid_file(tmp_path / "no" / "pid", 1)


@pytest.mark.parametrize("path", ["/proc/version", "/proc/kmsg", "/sys/kernel/notes", "/dev/null", "/proc/self/environ"])
def test_what_the_kernel_makes_is_no_configuration(tmp_path: Path, path: str) -> None:
    link = tmp_path / "link.conf"
    link.symlink_to(path)
    for each in (path, str(link)):
        with pytest.raises(ConfigurationError, match="the kernel's"):
            read_configuration(each)
        (included,) = read_included(each, str(tmp_path / "main.conf"))
        assert included.text == ""
        assert "the kernel's" in included.error or included.missing or "executed" in included.error


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_password_that_others_may_read_is_none(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "password"
    file.write_text("secret\r\n")
    file.chmod(0o600)
    assert read_password(str(file)) == "secret"
    file.chmod(mode)
    with pytest.raises(HostError, match="others may read the password"):
        read_password(str(file))


def test_a_password_that_is_no_text_is_none(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xff")
    file.chmod(0o600)
    with pytest.raises(HostError, match="no UTF-8"):
        read_password(str(file))
