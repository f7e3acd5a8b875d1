"""An intruder in each process of a running daemon achieves nothing, and the daemon works: it becomes master."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relevo.daemon import confinement
from relevo.host import landlock, seccomp
from relevo.lab.namespaces import NetworkNamespaces, bring_up, netlink, own_bpf_file_system
from tests.intruder import files_in
from tests.netns.conftest import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        landlock.version() < landlock.SCOPES_SINCE or not seccomp.available(), reason="needs Landlock with scopes, and libseccomp"
    ),
]

USER = 65533
CONF = """
global_defs {{
    data_plane {plane}
    notification_email {{
        admin@example.com
    }}
    smtp_server 127.0.0.1 9
}}
vrrp_instance VI_1 {{
    interface lo
    vrrp_transport udp 3118
    unicast_src_ip 127.0.6.61
    unicast_peer {{
        127.0.6.62
    }}
    smtp_alert
    version 3
    advert_int 0.05
    virtual_router_id 9
    virtual_ipaddress {{
        127.0.6.69
    }}
}}
virtual_server 127.0.6.69 8099 {{
    delay_loop 1
    protocol TCP
    real_server 127.0.0.1 3119 {{
        TCP_CHECK {{
            connect_timeout 1
        }}
    }}
}}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="r-") as made:
        Path(made).chmod(0o777)
        yield Path(made)


@contextmanager
def namespace() -> Iterator[None]:
    """A network of its own, with the loopback interface up."""
    own_bpf_file_system()
    made = NetworkNamespaces()
    made.make("intruder")
    try:
        with made.inside("intruder"):
            with netlink() as net:
                bring_up(net, "lo")
            yield
    finally:
        made.close()


def intruded(folder: Path, plane: str, expected: set[str], user: int | None = None) -> str:
    """Run the daemon with its intruders until ``expected`` have tried; return its log."""
    (folder / "inside").mkdir(mode=0o777)
    files_in(folder / "inside")
    (folder / "conf").write_text(CONF.format(plane=plane))
    argv = [sys.executable, "-m", "tests.netns.intruded", "run", "-l", "-f", str(folder / "conf")]
    argv += ["--run-dir", str(folder / "run"), "--state-dir", str(folder / "state")]
    log = folder / "log"
    with subprocess.Popen(["sleep", "100"], user=user) as victim, log.open("w") as file:
        environment = {"INTRUDER_FOLDER": str(folder / "inside"), "INTRUDER_VICTIM": str(victim.pid), "INTRUDER_PLANE": plane}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        with subprocess.Popen(argv, stderr=file, env={**os.environ, **environment}, user=user) as daemon:
            try:
                wait_until(lambda: all(f"INTRUDER in {name} has tried" in log.read_text() for name in expected), 40.0, "tries")
                wait_until(lambda: "Entering MASTER STATE" in log.read_text() or user is not None, 20.0, "a master")
                assert victim.poll() is None
                lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
                kept = int(next(line.split()[1] for line in lines if line.startswith("CapPrm")), 16)
                assert kept & ~sum(1 << number for number in confinement.SUPERVISOR) == 0
            finally:
                daemon.terminate()
                daemon.wait(20)
                victim.kill()
    return log.read_text()


def runs_as(user: int) -> bool:
    try:
        return (
            subprocess.run([sys.executable, "-c", "import relevo"], user=user, check=False, capture_output=True).returncode == 0
        )
    except PermissionError:
        return False


def achieved(log: str) -> list[str]:
    return [line for line in log.splitlines() if "INTRUDER" in line and "has tried" not in line]


@pytest.mark.namespaces
@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("plane", ["proxy", "ebpf"])
def test_as_root(folder: Path, plane: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root")
    expected = {"director", "balancer", "mail", "compiler", *(["proxy"] if plane == "proxy" else [])}
    with namespace():
        log = intruded(folder, plane, expected)
    assert achieved(log) == []
    assert "Traceback" not in log


def test_as_an_ordinary_user(folder: Path) -> None:
    """The director needs CAP_NET_ADMIN to set its address, which a user does not have; its process starts all the same."""
    user = USER if os.geteuid() == 0 else None
    if user is not None and not runs_as(user):
        pytest.skip("Python can be read by root alone")
    log = intruded(folder, "proxy", {"director", "balancer", "mail", "compiler", "proxy"}, user)
    assert achieved(log) == []
    assert "workers keep this user, which is not root" in log
