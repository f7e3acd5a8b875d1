"""``relevo pair`` prints the other node's file."""

from __future__ import annotations

import click

from relevo.cli.options import config_id_option, exit_unreadable
from relevo.config import render
from relevo.config.pair import peer_of
from relevo.errors import ConfigurationError
from relevo.host.files import read_configuration, read_included, surroundings


@click.command()
@click.argument("file")
@config_id_option
def pair(file: str, config_id: str | None) -> None:
    """Print the other node's FILE: roles, priorities and unicast addresses exchanged, router_id with another number.

    What only an administrator knows is reported on standard error. Exit 4 when FILE cannot be read.
    """
    try:
        made = peer_of(read_configuration(file), file, read_included, surroundings(file, config_id))
    except ConfigurationError as error:
        exit_unreadable(error)
    for finding in made.findings.in_order():
        click.echo(render(finding, {}) + "\n", err=True)
    click.echo(made.text, nl=False)
