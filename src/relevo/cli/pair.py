"""``relevo pair`` prints the peer's file, ``relevo diff`` what two files mean differently."""

from __future__ import annotations

import sys

import click
import msgspec

from relevo.cli.options import config_id_option
from relevo.config import render
from relevo.config.pair import peer_of
from relevo.daemon.configuration import compile_file
from relevo.errors import ConfigurationError
from relevo.host.files import read_configuration, read_included
from relevo.observe.difference import differences

STATUS_DIFFERENT, STATUS_TROUBLE = 1, 2
"""As those of diff(1)."""


@click.command()
@click.argument("file")
def pair(file: str) -> None:
    """Print the other node's FILE: roles, priorities and unicast addresses exchanged, router_id with another number.

    What only an administrator knows is reported on standard error. Exit 4 when FILE cannot be read.
    """
    try:
        made = peer_of(read_configuration(file), file, read_included)
    except ConfigurationError as error:
        click.echo(f"relevo: {error}", err=True)
        sys.exit(4)
    for finding in made.findings.in_order():
        click.echo(render(finding, {}) + "\n", err=True)
    click.echo(made.text, nl=False)


@click.command()
@click.argument("former")
@click.argument("latter")
@click.option("-j", "--json", "as_json", is_flag=True, help="Differences as JSON.")
@config_id_option
def diff(former: str, latter: str, as_json: bool, config_id: str | None) -> None:
    """Show what LATTER means differently from FORMER: comments, order and spelling do not count.

    Exit 0 when both mean the same, 1 when they differ, 2 when a file cannot be read. Of secrets it shows only that they differ.
    """
    try:
        one, other = (compile_file(file, config_id).configuration for file in (former, latter))
    except ConfigurationError as error:
        click.echo(f"relevo: {error}", err=True)
        sys.exit(STATUS_TROUBLE)
    found = differences(one, other)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        for difference in found:
            click.echo(str(difference))
    sys.exit(STATUS_DIFFERENT if found else 0)
