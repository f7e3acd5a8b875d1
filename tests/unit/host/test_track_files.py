"""Files with a number, on a real file system with real inotify."""

import os
import select

import pytest

from relevo.errors import HostError
from relevo.host.track_files import read_number, write_first_number
from relevo.host.watched_files import FileWatcher
from relevo.model import TrackFile


@pytest.fixture
def watcher():
    made = FileWatcher()
    yield made
    made.close()


def names(found):
    return [os.path.basename(file) for file in found]


def wait_for_events(watcher):
    readable, _, _ = select.select([watcher.fileno()], [], [], 10.0)
    assert readable, "no event"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7),
        (" \t-20\n", -20),
        ("+5 and more", 5),
        ("0x1f", 31),
        ("017", 15),
        ("08", 0),
        ("", 0),
        ("many", 0),
        ("- 3", 0),
        ("9" * 500, int("9" * 127)),
    ],
)
def test_a_number_is_read_as_strtol_reads_it(tmp_path, text, number):
    path = tmp_path / "n"
    path.write_text(text)
    assert read_number(str(path)) == number


def test_what_is_no_file_is_0_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert [read_number(str(tmp_path / name)) for name in ("pipe", "missing", ".")] == [0, 0, 0]
    assert read_number("/dev/zero") == 0
    assert read_number("with\0nul") == 0


def test_a_file_that_is_written_moved_in_or_removed_has_changed(watcher, tmp_path):
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    watcher.watch((a, b))
    assert watcher.changed() == []
    (tmp_path / "a").write_text("1")
    wait_for_events(watcher)
    assert names(watcher.changed()) == ["a"]
    (tmp_path / "other").write_text("1")
    assert names(watcher.changed()) == []
    (tmp_path / "other").rename(tmp_path / "b")
    assert names(watcher.changed()) == ["b"]
    (tmp_path / "a").unlink()
    assert names(watcher.changed()) == ["a"]


def test_a_file_that_is_only_open_for_writing_has_not_changed(watcher, tmp_path):
    watcher.watch((str(tmp_path / "a"),))
    with open(tmp_path / "a", "w") as file:
        file.write("5")
        file.flush()
        assert watcher.changed() == []
    assert names(watcher.changed()) == ["a"]


def test_a_directory_that_comes_later_is_watched_then(watcher, tmp_path):
    folder = tmp_path / "later"
    watcher.watch((str(folder / "a"),))
    assert names(watcher.sweep()) == ["a"]
    folder.mkdir()
    assert names(watcher.sweep()) == ["a"]  # a file may have come with it
    assert watcher.sweep() == []
    (folder / "a").write_text("3")
    assert names(watcher.changed()) == ["a"]


def test_a_directory_that_goes_takes_its_files_along(watcher, tmp_path):
    folder = tmp_path / "goes"
    folder.mkdir()
    (folder / "a").write_text("3")
    watcher.watch((str(folder / "a"),))
    (folder / "a").unlink()
    folder.rmdir()
    assert names(watcher.changed()) == ["a"]
    assert names(watcher.sweep()) == ["a"]


def test_other_files_are_watched_instead(watcher, tmp_path):
    watcher.watch((str(tmp_path / "a"),))
    watcher.watch((str(tmp_path / "b"),))
    (tmp_path / "a").write_text("3")
    assert watcher.changed() == []


# -- init_file --------------------------------------------------------------------------------------------------------


def first(path, value=5, **changes):
    return TrackFile(name="a", path=str(path), init_value=value, **changes)


def test_a_missing_file_is_written(tmp_path):
    write_first_number(first(tmp_path / "a"), starting=False)
    assert (tmp_path / "a").read_text() == "5\n"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_an_existing_one_is_overwritten_only_at_the_start_and_if_so_declared(tmp_path):
    path = tmp_path / "a"
    path.write_text("1234567\n")
    write_first_number(first(path), starting=True)
    write_first_number(first(path, init_overwrite=True), starting=False)
    assert path.read_text() == "1234567\n"
    write_first_number(first(path, init_overwrite=True), starting=True)
    assert path.read_text() == "5\n"


def test_links_and_directories_are_left_alone(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(HostError, match="cannot write"):
        write_first_number(first(tmp_path / "link", init_overwrite=True), starting=True)
    assert (tmp_path / "victim").read_text() == "precious"
    with pytest.raises(HostError, match="cannot write"):
        write_first_number(first(tmp_path / "no" / "folder"), starting=True)
