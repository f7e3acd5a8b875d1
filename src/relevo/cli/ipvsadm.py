"""``relevo ipvsadm``: the command line of ipvsadm as a subcommand."""

from __future__ import annotations

import sys

import click

from relevo.compat.ipvsadm import program


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def ipvsadm(words: tuple[str, ...]) -> None:
    """Do what ipvsadm 1.31 does, to the byte: commands, layouts, messages, exit statuses. ``-j`` before ``-L`` prints JSON."""
    sys.exit(program.main([*words]))
