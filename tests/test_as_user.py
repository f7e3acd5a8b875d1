"""An ordinary user runs the tests that need namespaces too: as root of a user namespace."""

from __future__ import annotations

import os

import pytest

from tests.conftest import in_user_namespace


def test_the_cluster_and_the_peers_in_a_user_namespace(namespace_refusal: str) -> None:
    if os.geteuid() == 0:
        pytest.skip("root ran them directly")
    if namespace_refusal:
        pytest.skip(f"no network namespaces: {namespace_refusal}")
    done = in_user_namespace("-q", "-k", "namespaces or keepalived or bad_input", "tests/netns", "tests/interop")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
