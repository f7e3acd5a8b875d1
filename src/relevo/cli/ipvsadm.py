"""``relevo ipvsadm``: ipvsadm's own command line after ours."""

from __future__ import annotations

import sys

import click

from relevo.compat.ipvsadm import program


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def ipvsadm(words: tuple[str, ...]) -> None:
    """Do what ipvsadm 1.31 does, to the octet: commands, layouts, messages, exit statuses. ``-j`` before ``-L`` gives JSON."""
    sys.exit(program.main([*words]))
