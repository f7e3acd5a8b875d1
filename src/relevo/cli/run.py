"""``relevo run``: the daemon."""

from __future__ import annotations

import sys

import click

from relevo.cli.options import config_id_option
from relevo.config import exit_status, render
from relevo.daemon.configuration import Options, blocking_problem, compile_file
from relevo.daemon.supervisor import run as run_daemon
from relevo.errors import ConfigurationError
from relevo.host.files import DEFAULT_CONFIGURATION, runtime_directory, state_directory


@click.command()
@click.option("-f", "--file", default=DEFAULT_CONFIGURATION, show_default=True, help="Configuration file.")
@click.option("--run-dir", help="Folder of the control socket [default: /run/relevo, or the user's].")
@click.option("--state-dir", help="Folder of the mail queue [default: /var/lib/relevo, or the user's].")
@click.option("-l", "--log-console", is_flag=True, help="Log to standard error, not to syslog.")
@click.option("--strict", is_flag=True, help="Refuse to start when the file has findings.")
@config_id_option
def run(file: str, run_dir: str | None, state_dir: str | None, log_console: bool, strict: bool, config_id: str | None) -> None:
    """Run the daemon in the foreground. SIGHUP reloads the file, SIGTERM stops gracefully."""
    try:
        compiled = compile_file(file, config_id)
    except ConfigurationError as error:
        click.echo(f"relevo: {error}", err=True)
        if error.hint:
            click.echo(f"  hint: {error.hint}", err=True)
        sys.exit(6)
    for finding in compiled.findings.in_order():
        click.echo(render(finding, compiled.sources), err=True)
    problem = blocking_problem(compiled, strict=strict)
    if problem:
        click.echo(f"relevo: not started: {problem}", err=True)
        sys.exit(exit_status(compiled.findings))
    runtime = runtime_directory(run_dir)
    options = Options(
        file,
        runtime,
        state_directory(state_dir, runtime),
        console=log_console or sys.stderr.isatty(),
        strict=strict,
        config_id=config_id,
    )
    sys.exit(run_daemon(options, compiled))
