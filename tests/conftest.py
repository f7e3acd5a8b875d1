"""Fixtures for what tests need of the machine. A skipped test names what is missing."""

import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import settings

from relevo.lab.namespaces import unavailable_reason

settings.register_profile("any-pace", deadline=None)  # a busy machine is no failure
settings.load_profile("any-pace")

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def program(name: str) -> str:
    """Return the path of a program, or skip the test."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="session")
def namespace_refusal() -> str:
    """Why network namespaces cannot be made here; empty when they can."""
    return unavailable_reason()


@pytest.fixture
def namespaces(namespace_refusal: str) -> None:
    """Skip where namespaces cannot be made, or only inside a user namespace, which this process could not leave."""
    if namespace_refusal:
        pytest.skip(f"no network namespaces: {namespace_refusal}")
    if os.geteuid() != 0:
        pytest.skip("not root: runs again inside a user namespace, see test_as_user")


@pytest.fixture(scope="session")
def ebpf(namespace_refusal: str) -> None:
    """Skip where the eBPF plane is not available."""
    from relevo.planes.ebpf import unavailable_reason

    why = namespace_refusal or ("not root" if os.geteuid() != 0 else "") or unavailable_reason()
    if why:
        pytest.skip(f"no eBPF plane: {why}")


def in_user_namespace(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest again as root of a user namespace."""
    code = (
        "import sys; from relevo.lab.namespaces import become_root_of_a_user_namespace as become; become();"
        "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=900, check=False)
