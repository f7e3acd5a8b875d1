"""``relevo failover``: a planned hand-over, with connections first."""

from __future__ import annotations

import click

from relevo.api import schema
from relevo.cli.status import ask_daemon, run_dir_option


@click.command()
@click.argument("instance")
@click.option("--back", is_flag=True, help="Let priorities decide again: the higher one takes over as ever.")
@run_dir_option
def failover(instance: str, back: bool, run_dir: str | None) -> None:
    """Hand INSTANCE over to another node: tell it every connection, then give the addresses away.

    This node does not take them back by its priority, only when the other falls silent or with --back. Exit 1 when nobody
    takes over: then nothing has changed.
    """
    ask_daemon(run_dir, schema.Failover(instance, back=back))
    click.echo(f"priorities decide about {instance} again" if back else f"{instance} is handed over")
