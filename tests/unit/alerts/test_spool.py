"""The queue on disk: whole mails or none, also after errors."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.alerts.spool import Spool


def spool(folder: Path) -> tuple[Spool, list[int]]:
    made = Spool(folder)
    return made, made.recover()


def test_a_mail_is_on_disk_as_soon_as_it_is_added_and_for_us_alone(tmp_path: Path) -> None:
    queue, found = spool(tmp_path / "deep" / "mail")
    assert found == []
    number = queue.add(b"first\r\n")
    (path,) = queue.folder.iterdir()
    assert path.name == "000000000001.eml"
    assert path.read_bytes() == b"first\r\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert queue.folder.stat().st_mode & 0o777 == 0o700
    assert queue.read(number) == b"first\r\n"
    queue.remove(number)
    assert list(queue.folder.iterdir()) == []
    assert queue.errors == 0


def test_a_new_run_finds_what_the_former_one_left_in_its_order_and_numbers_go_on(tmp_path: Path) -> None:
    queue, _ = spool(tmp_path)
    numbers = [queue.add(b"%d" % n) for n in range(12)]
    for number in numbers[3:6]:
        queue.remove(number)
    again, found = spool(tmp_path)
    assert found == [1, 2, 3, 7, 8, 9, 10, 11, 12]
    assert [again.read(n) for n in found] == [b"%d" % (n - 1) for n in found]
    assert again.add(b"new") == 13


def test_a_crash_amid_writing_leaves_no_half_of_a_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, _ = spool(tmp_path)
    queue.add(b"whole")

    def crash(source: object, target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        queue.add(b"half")
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000000001.eml", "000000000002.part"]
    again, found = spool(tmp_path)
    assert found == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["000000000001.eml"]
    assert again.add(b"next") == 2


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    others = ["README", "note.eml", "a1.eml", "-1.eml", "1.eml.bak", ".eml", "1.txt"]
    for name in others:
        (tmp_path / name).write_text(name)
    (tmp_path / "000000000004.eml").write_bytes(b"ours")
    queue, found = spool(tmp_path)
    assert found == [4]
    queue.remove(queue.add(b"x"))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "000000000004.eml"])
    assert [(tmp_path / name).read_text() for name in others] == others


def test_a_folder_that_looks_like_half_a_mail_does_not_hide_the_mails_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "000000000000.part").mkdir()
    (tmp_path / "000000000001.eml").write_bytes(b"waiting")
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listed(self))))
    queue, found = spool(tmp_path)
    assert found == [1]
    queue.add(b"new")
    assert (tmp_path / "000000000001.eml").read_bytes() == b"waiting"


def test_a_mail_that_is_gone_or_a_folder_reads_as_none_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "000000000009.eml").mkdir()
    queue, found = spool(tmp_path)
    assert found == [9]
    assert queue.read(9) is None
    assert queue.read(10) is None
    assert queue.errors == 2
    assert queue.last_error == f"{tmp_path}/000000000010.eml: No such file or directory"
    queue.remove(9)  # records an error, does not raise
    assert queue.errors == 3


def test_without_a_folder_mails_are_kept_in_memory_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("a file in the folder's place")
    queue, found = spool(tmp_path / "mail")
    assert found == []
    assert queue.last_error.endswith(("File exists", "Not a directory"))
    numbers = [queue.add(b"%d" % n) for n in range(3)]
    assert queue.errors == 4
    assert [queue.read(n) for n in numbers] == [b"0", b"1", b"2"]
    for number in numbers:
        queue.remove(number)
    assert queue.read(numbers[0]) is None
    assert (tmp_path / "mail").read_text() == "a file in the folder's place"


def test_a_folder_that_cannot_be_written_keeps_mails_in_memory(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    queue, _ = spool(tmp_path)
    assert queue.read(queue.add(b"kept")) == b"kept"
    assert queue.last_error.endswith("Permission denied")
    tmp_path.chmod(0o700)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond ``room`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_mail_in_memory_and_leaves_no_half_of_it(tmp_path: Path) -> None:
    queue, _ = spool(tmp_path)
    with full_disk(100):
        number = queue.add(b"x" * 1000)
    assert list(tmp_path.iterdir()) == []
    assert queue.errors == 1
    assert "File too large" in queue.last_error
    assert queue.read(number) == b"x" * 1000
    assert queue.add(b"fits again") == number + 1
    assert [p.name for p in tmp_path.iterdir()] == ["000000000002.eml"]
    queue.remove(number)
    assert queue.read(number) is None
    assert queue.errors == 2  # nothing on disk to remove was no error, the read of it was


def test_a_mail_too_large_to_be_ours_is_not_read_whole(tmp_path: Path) -> None:
    with open(tmp_path / "000000000001.eml", "wb") as file:
        file.truncate(1 << 30)
    queue, found = spool(tmp_path)
    assert found == [1]
    assert len(queue.read(1) or b"") == 1 << 20


@settings(max_examples=30)
@given(st.lists(st.one_of(st.binary(max_size=50), st.integers(0, 20), st.none()), max_size=40))
def test_whatever_is_added_removed_and_restarted_the_disk_holds_what_is_left(steps: list[bytes | int | None]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        queue, _ = spool(Path(folder))
        left: dict[int, bytes] = {}
        for step in steps:
            if step is None:
                queue, found = spool(Path(folder))
                assert found == sorted(left)
            elif isinstance(step, bytes):
                number = queue.add(step)
                assert number not in left
                assert number > max(left, default=0)
                left[number] = step
            else:
                queue.remove(step)
                left.pop(step, None)
        assert {n: queue.read(n) for n in left} == left
