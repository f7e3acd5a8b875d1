"""One plane for all packet tests: loading takes more than a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ebpf.packets import Director


@pytest.fixture(scope="package")
def loaded_director(ebpf: None) -> Iterator[Director]:
    made = Director()
    yield made
    made.close()


@pytest.fixture
def director(loaded_director: Director) -> Iterator[Director]:
    """The director with an empty table."""
    with loaded_director.at_work():
        yield loaded_director
