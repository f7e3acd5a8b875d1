"""Runs user-mode kernels beside the other tests from the beginning: they take minutes, but only one processor."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.conftest import PATH, program
from tests.uml.rig import Kernels, Ran

STARTED = pytest.StashKey[Kernels]()


def command_of(item: pytest.Item) -> list[str] | None:
    """Return the command that a test runs in its kernel: the arguments of its marker."""
    marker = item.get_closest_marker("uml")
    return list(marker.args) if marker else None


def can_run(item: pytest.Item) -> bool:
    """Whether a test has the ``modprobe`` that it needs. Without it the test is skipped, and its command need not run."""
    return "modprobe" not in getattr(item, "fixturenames", ()) or shutil.which("modprobe", path=PATH) is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: command_of(item) is not None)  # these come last, so that the others need not wait for them


def pytest_collection_finish(session: pytest.Session) -> None:
    commands = {item.name: command for item in session.items if (command := command_of(item)) and can_run(item)}
    kernel = shutil.which("linux.uml", path=PATH)
    if session.config.option.collectonly or not commands or kernel is None or os.geteuid() != 0:
        return
    session.config.stash[STARTED] = Kernels(kernel, commands)


def pytest_unconfigure(config: pytest.Config) -> None:
    if STARTED in config.stash:
        config.stash[STARTED].close()


@pytest.fixture
def modprobe() -> None:
    """Skip the test without ``modprobe``: IPVS is a module of that kernel."""
    program("modprobe")


@pytest.fixture
def ran(request: pytest.FixtureRequest) -> Ran:
    """Result of the command of the test's marker. The test is skipped where user-mode Linux is not installed."""
    program("linux.uml")
    if os.geteuid() != 0:
        pytest.skip("not root: user-mode Linux would have only this user's access to the files")
    return request.config.stash[STARTED].wait(request.node.name)
