"""``relevo run``: the daemon."""

from __future__ import annotations

import sys
from typing import Final

import click

from relevo.cli.options import config_id_option
from relevo.daemon.launch import Start, hand_over
from relevo.daemon.options import Options
from relevo.daemon.reading import read_apart
from relevo.host.configuration_file import DEFAULT_CONFIGURATION
from relevo.host.files import runtime_directory, state_directory

EXIT_NO_CONFIGURATION: Final = 6
"""keepalived's exit status for a file that cannot be read (lib/scheduler.h)."""


@click.command()
@click.option("-f", "--file", default=DEFAULT_CONFIGURATION, show_default=True, help="Configuration file.")
@click.option("--run-dir", help="Folder of the control socket [default: /run/relevo, or the user's].")
@click.option("--state-dir", help="Folder of the mail queue [default: /var/lib/relevo, or the user's].")
@click.option("-l", "--log-console", is_flag=True, help="Log to standard error, not to syslog.")
@click.option("--strict", is_flag=True, help="Refuse to start when the file has findings.")
@config_id_option
def run(file: str, run_dir: str | None, state_dir: str | None, log_console: bool, strict: bool, config_id: str | None) -> None:
    """Run the daemon in the foreground. SIGHUP reloads the file, SIGTERM stops gracefully."""
    reading = read_apart(file, config_id, strict=strict)
    if reading.error:
        click.echo(f"relevo: {reading.error}", err=True)
        if reading.hint:
            click.echo(f"  hint: {reading.hint}", err=True)
        sys.exit(EXIT_NO_CONFIGURATION)
    for finding in reading.rendered:
        click.echo(finding, err=True)
    if reading.blocking:
        click.echo(f"relevo: not started: {reading.blocking}", err=True)
        sys.exit(reading.status)
    runtime = runtime_directory(run_dir)
    options = Options(
        file,
        runtime,
        state_directory(state_dir, runtime),
        console=log_console or sys.stderr.isatty(),
        strict=strict,
        config_id=config_id,
    )
    hand_over(Start(options, reading.configuration))
