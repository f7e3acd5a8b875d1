"""``relevo pair`` prints the other node's file, or says what does not agree in the files of both."""

from __future__ import annotations

import sys

import click
import msgspec

from relevo.cli.options import compiled_or_exit, config_id_option, exit_unreadable
from relevo.config import Places, exit_status, render
from relevo.config.agreement import Node, look_at_pair
from relevo.config.export import plain_finding
from relevo.config.pair import peer_of
from relevo.errors import ConfigurationError
from relevo.host.configuration_file import read_configuration
from relevo.host.includes import read_included, surroundings


@click.command()
@click.argument("file")
@click.argument("other", required=False)
@click.option("-j", "--json", "as_json", is_flag=True, help="With OTHER: findings as JSON.")
@config_id_option
def pair(file: str, other: str | None, as_json: bool, config_id: str | None) -> None:
    """Print the other node's FILE: roles, priorities and unicast addresses exchanged, router_id with another number.

    What only an administrator knows is reported on standard error. With OTHER, which is the other node's file, say what must
    agree in both and does not: virtual_router_id, version, authentication, addresses, intervals, priorities, services.

    Exit 0 without findings, 4 when a file cannot be read; with OTHER 5 when something does not agree.
    """
    if other is not None:
        _compare(file, other, as_json, config_id)
    try:
        made = peer_of(read_configuration(file), file, read_included, surroundings(file, config_id))
    except ConfigurationError as error:
        exit_unreadable(error)
    for finding in made.findings.in_order():
        click.echo(render(finding, {}) + "\n", err=True)
    click.echo(made.text, nl=False)


def _compare(file: str, other: str, as_json: bool, config_id: str | None) -> None:
    nodes = []
    for each in (file, other):
        places = Places()
        nodes.append(Node(each, compiled_or_exit(each, config_id, places), places))
    findings = look_at_pair(*nodes)
    ordered = findings.in_order()
    if as_json:
        click.echo(msgspec.json.encode([plain_finding(finding) for finding in ordered]))
    else:
        for finding in ordered:
            click.echo(render(finding, findings.sources) + "\n", err=True)
        click.echo(f"{len(ordered)} finding{'s' * (len(ordered) != 1)}" if ordered else "the files agree")
    sys.exit(exit_status(ordered))
