"""Kernels of their own take minutes, and one processor: they run beside the other tests from the beginning on."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.conftest import PATH, program
from tests.uml.rig import Kernels, Ran

STARTED = pytest.StashKey[Kernels]()


def command_of(item: pytest.Item) -> list[str] | None:
    """What a test wants to have run: the arguments of its marker."""
    marker = item.get_closest_marker("uml")
    return list(marker.args) if marker else None


def can_run(item: pytest.Item) -> bool:
    """Whether a test has the ``modprobe`` that it needs: else it is skipped, and its command would run for minutes in vain."""
    return "modprobe" not in getattr(item, "fixturenames", ()) or shutil.which("modprobe", path=PATH) is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: command_of(item) is not None)  # nobody waits for them before there is nothing else to do


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
    """IPVS is a module of that kernel: skip the test where nothing can load modules."""
    program("modprobe")


@pytest.fixture
def ran(request: pytest.FixtureRequest) -> Ran:
    """What the command of the test's marker left; the test is skipped where there is no such kernel."""
    program("linux.uml")
    if os.geteuid() != 0:
        pytest.skip("user-mode Linux would see this machine's files as this user does: only root runs it")
    return request.config.stash[STARTED].wait(request.node.name)
