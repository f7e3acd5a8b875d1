"""``relevo server``: an administrator takes a server out of service, or changes its weight, without editing the file."""

from __future__ import annotations

import sys
import time
from typing import Final

import click

from relevo.api import schema
from relevo.cli.status import ask_daemon, run_dir_option
from relevo.model import Endpoint, ServerMode
from relevo.observe.snapshot import Snapshot

POLL_S: Final = 0.5


@click.command()
@click.argument("service")
@click.argument("server")
@click.argument("mode", type=click.Choice([mode.value for mode in ServerMode]))
@click.argument("weight", type=click.IntRange(0, 65_535), required=False)
@click.option("--wait", is_flag=True, help="With drain and maint: wait until no connection is left.")
@click.option("--timeout", default=3600.0, show_default=True, help="Longest wait in seconds; exit 1 if any is left then.")
@run_dir_option
def server(service: str, server: str, mode: str, weight: int | None, wait: bool, timeout: float, run_dir: str | None) -> None:
    """Say what SERVER does in SERVICE, whatever its checks say, until it is ready again.

    SERVICE is ADDRESS:PORT, a name as in the log, a group, or "all". SERVER is ADDRESS:PORT, or ADDRESS for every port.

    \b
    drain     no new connections; those that there are go on
    maint     out of service
    weight N  this weight, in place of that of the file and the checks
    ready     what the file and the checks say
    """
    if (weight is not None) is not (mode == ServerMode.WEIGHT):
        raise click.UsageError("'weight' needs a number, and nothing else has one")
    done = ask_daemon(run_dir, schema.Server(service, server, ServerMode(mode), weight or 0)).servers
    for each in done:
        click.echo(f"{each.server} of {each.service}: {each}")
    if wait and mode in (ServerMode.DRAIN, ServerMode.MAINT):
        _wait(run_dir, {(each.service, each.server) for each in done}, timeout)


def _wait(run_dir: str | None, servers: set[tuple[str, str]], timeout: float) -> None:
    """Wait until these servers have no connection, and say how many are left."""
    ends, shown = time.monotonic() + timeout, -1
    while (left := _connections(ask_daemon(run_dir, schema.Status()), servers)) and time.monotonic() < ends:
        if left != shown:
            click.echo(f"{left} connections left", err=True)
            shown = left
        time.sleep(POLL_S)
    click.echo(f"{left} connections left")
    if left:
        sys.exit(1)


def _connections(snapshot: Snapshot, servers: set[tuple[str, str]]) -> int:
    """Return the active connections of servers, which are names of services and endpoints."""
    return sum(
        each.active
        for service in snapshot.balancer.services
        for each in service.servers
        if (service.name, str(Endpoint(each.address, each.port))) in servers
    )
