"""Fixtures: the article's cluster, running on each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relevo.daemon.configuration import compile_file
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Loopback, Namespaces, Stage
from relevo.lab.topology import Host, plan

EXAMPLES = Path(__file__).parents[2] / "examples" / "article"
FILES = (str(EXAMPLES / "master.conf"), str(EXAMPLES / "backup.conf"))


def wait_until(condition: Callable[[], bool], limit_s: float, what: str) -> float:
    """Wait for a condition of the outside world; return the seconds it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < limit_s, f"not within {limit_s} s: {what}"
        time.sleep(0.01)
    return time.monotonic() - begun


def state_of(cluster: Cluster, director: Host) -> str:
    """State of a director's only instance; empty before VRRP starts, which waits for the plane."""
    instances = cluster.snapshot(director).director.instances
    return instances[0].state if instances else ""


def wait_for_state(cluster: Cluster, director: Host, state: str, limit_s: float = 10.0) -> float:
    return wait_until(lambda: state_of(cluster, director) == state, limit_s, f"{director.name} is {state}")


def wait_for_log(cluster: Cluster, director: Host, text: str, limit_s: float = 10.0) -> None:
    """Wait for a line of the log. The supervisor writes it after a worker did what the line says."""
    wait_until(lambda: text in cluster.log_text(director), limit_s, f"{director.name} logs: {text}")


def build(stage: Stage, files: tuple[str, ...] = FILES, speed_up: float = 20.0) -> Cluster:
    return Cluster(plan([(file, compile_file(file).configuration) for file in files]), stage, speed_up=speed_up)


def on_proxy(folder: Path) -> tuple[str, ...]:
    """Copies of the article's files with the proxy plane."""
    written = []
    for file in map(Path, FILES):
        changed = folder / file.name
        changed.write_text(file.read_text().replace("global_defs {", "global_defs {\n    data_plane proxy", 1))
        written.append(str(changed))
    return tuple(written)


def run_all(cluster: Cluster) -> Cluster:
    """Start everything and wait for the first director to be master."""
    cluster.start_servers()
    for director in cluster.topology.directors:
        cluster.start_director(director)
    master, *others = cluster.topology.directors
    wait_for_state(cluster, master, "MASTER")
    for other in others:
        wait_for_state(cluster, other, "BACKUP")
    return cluster


@pytest.fixture(params=["namespaces", "loopback"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """Both stages; namespaces only where they can be made."""
    if request.param == "loopback":
        return Loopback("as asked")
    request.getfixturevalue("namespaces")
    return Namespaces()


@pytest.fixture
def cluster(stage: Stage) -> Iterator[Cluster]:
    """The article's cluster, with the first director as master."""
    with build(stage) as made:
        yield run_all(made)
