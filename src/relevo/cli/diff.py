"""``relevo diff`` shows what two files mean differently."""

from __future__ import annotations

import sys

import click
import msgspec

from relevo.cli.options import compiled_or_exit, config_id_option
from relevo.observe.difference import differences

STATUS_DIFFERENT, STATUS_TROUBLE = 1, 2
"""As those of diff(1)."""


@click.command()
@click.argument("former")
@click.argument("latter")
@click.option("-j", "--json", "as_json", is_flag=True, help="Differences as JSON.")
@config_id_option
def diff(former: str, latter: str, as_json: bool, config_id: str | None) -> None:
    """Show what LATTER means differently from FORMER: comments, order and spelling do not count.

    Exit 0 when both mean the same, 1 when they differ, 2 when a file cannot be read. Of secrets it shows only that they differ.
    """
    one, other = (compiled_or_exit(file, config_id, status=STATUS_TROUBLE).configuration for file in (former, latter))
    found = differences(one, other)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        for difference in found:
            click.echo(str(difference))
    sys.exit(STATUS_DIFFERENT if found else 0)
