"""Fixtures of the proxy plane's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.unit.proxy.rig import Backend, Process, proxy_process


@pytest.fixture
def plane() -> Iterator[Process]:
    """A proxy plane's process, which must have survived the test."""
    with proxy_process() as process:
        yield process
        assert process.running(), "the plane's process has died"


@pytest.fixture
def backend() -> Iterator[Callable[..., Backend]]:
    """Makes servers that end with the test."""
    made: list[Backend] = []

    def make(*arguments: object, **options: object) -> Backend:
        made.append(Backend(*arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()
    assert [error for one in made for error in one.errors] == []
