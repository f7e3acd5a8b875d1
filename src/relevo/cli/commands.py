"""The tree of commands. A subcommand is imported when it is called, so that ``status`` starts quickly.

Exit statuses: 0 success, 1 the daemon or the lab reported a failure, 2 wrong usage or a missing argument in the
configuration, 4 the configuration cannot run, 5 it has findings, 6 it has security findings (keepalived's ``-t``).
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from relevo import __version__
from relevo.errors import RelevoError

COMMANDS = {
    "run": ("relevo.cli.run", "run", "Run the daemon."),
    "check": ("relevo.cli.check", "check", "Check a configuration file."),
    "config": ("relevo.cli.check", "config", "Show the compiled model of a configuration file."),
    "fmt": ("relevo.cli.fmt", "fmt", "Lay a configuration file out; its meaning and its comments stay."),
    "pair": ("relevo.cli.pair", "pair", "Print the configuration file of the other node."),
    "diff": ("relevo.cli.diff", "diff", "Show what two configuration files mean differently."),
    "explain": ("relevo.cli.explain", "explain", "Say what a keyword means, or how soon a configuration reacts."),
    "status": ("relevo.cli.status", "status", "Show which instances are master and which servers are up."),
    "connections": ("relevo.cli.connections", "connections", "List connections, or drop them."),
    "ipvsadm": ("relevo.cli.ipvsadm", "ipvsadm", "Show and change the table of services with ipvsadm's commands."),
    "failover": ("relevo.cli.failover", "failover", "Hand a virtual router over to another node."),
    "server": ("relevo.cli.server", "server", "Drain a server, take it out of service, or change its weight."),
    "sync": ("relevo.cli.sync", "sync", "Show the state of connection synchronisation."),
    "plan": ("relevo.cli.plan", "plan", "Say what a reload would do, and what it would break."),
    "reload": ("relevo.cli.status", "reload", "Reload the configuration file."),
    "stop": ("relevo.cli.status", "stop", "Stop the daemon gracefully."),
    "doctor": ("relevo.cli.doctor", "doctor", "Show which data planes work on this machine, and why others do not."),
    "lab": ("relevo.cli.lab", "lab", "Build the cluster of configuration files on this machine, and test it."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of ``COMMANDS``, which is that of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it."""
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-v", "--version", message="Relevo v%(version)s")
def relevo() -> None:
    """High-availability load balancing from keepalived.conf: VRRP, health checks, data planes."""


def main() -> None:
    """Run the command. An error prints a sentence and a hint, never a traceback."""
    try:
        relevo(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except RelevoError as error:
        click.echo(f"relevo: {error}", err=True)
        if error.hint:
            click.echo(f"  hint: {error.hint}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.filename is not None:
            raise
        click.echo(f"relevo: cannot write the output: {error.strerror}", err=True)
        sys.exit(1)
    except SystemExit as end:
        if isinstance(end.code, int):
            _leave(end.code)
        raise


def _leave(status: int) -> NoReturn:
    """End the process without freeing its memory object by object: a quarter of the time of checking 10 000 servers."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed by the caller
                stream.flush()
    except OSError:
        sys.exit(status)  # Python says what is wrong with the output
    os._exit(status)
