"""``relevo check`` lists the findings about a configuration file, ``relevo config`` prints its model."""

from __future__ import annotations

import sys

import click
import msgspec

from relevo.cli.options import compiled_or_exit, config_id_option
from relevo.config import Compiled, Finding, Places, Severity, exit_status, render
from relevo.config.export import plain_finding, sarif
from relevo.host.configuration_file import DEFAULT_CONFIGURATION
from relevo.model import Configuration
from relevo.observe.configuration import without_secrets


@click.command()
@click.argument("file", default=DEFAULT_CONFIGURATION)
@click.option("-j", "--json", "as_json", is_flag=True, help="Findings as JSON.")
@click.option("--sarif", "as_sarif", is_flag=True, help="Findings as a SARIF 2.1.0 log, for code forges and editors.")
@click.option("--strict", is_flag=True, help="Fail on any finding, notes included.")
@click.option("--offline", is_flag=True, help="Skip what depends on this machine: interfaces, users, the data plane.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; only return the exit status.")
@config_id_option
def check(file: str, as_json: bool, as_sarif: bool, strict: bool, offline: bool, quiet: bool, config_id: str | None) -> None:
    """Check FILE. Exit 0 without findings, 5 with findings, 2, 4 or 6 with more severe ones.

    Findings concern the file and, unless --offline is given, this machine and its data plane.
    """
    places = None if offline else Places()
    compiled = compiled_or_exit(file, config_id, places)
    if places is not None:
        from relevo.daemon.preflight import Preflight  # data planes and asyncio: half the time of a start

        Preflight(compiled, places, file).look()
    findings = compiled.findings.in_order()
    status = exit_status(findings) or (5 if strict and findings else 0)
    if as_json:
        click.echo(msgspec.json.encode([plain_finding(finding) for finding in findings]))
    elif as_sarif:
        click.echo(msgspec.json.encode(sarif(findings)))
    elif not quiet:
        for finding in findings:
            click.echo(render(finding, compiled.sources) + "\n", err=True)
        click.echo(_summary(compiled, findings))
    sys.exit(status)


def _summary(compiled: Compiled, findings: list[Finding]) -> str:
    model = compiled.configuration
    servers = sum(len(service.real_servers) for service in model.virtual_servers)
    counts = [f"{n} {s.value}{'s' if n > 1 else ''}" for s in Severity if (n := sum(f.severity is s for f in findings))]
    amounts = (
        (len(model.vrrp_instances), "VRRP instance"),
        (len(model.virtual_servers), "virtual server"),
        (servers, "real server"),
    )
    parts = ", ".join(f"{number} {what}{'' if number == 1 else 's'}" for number, what in amounts)
    return f"{parts}: {', '.join(counts) or 'no findings'}"


@click.command()
@click.argument("file", default=DEFAULT_CONFIGURATION)
@click.option("-j", "--json", "as_json", is_flag=True, help="JSON on one line instead of indented.")
@click.option("--schema", is_flag=True, help="The JSON schema of the model, instead of a file's.")
@config_id_option
def config(file: str, as_json: bool, schema: bool, config_id: str | None) -> None:
    """Print the compiled model of FILE as JSON with secrets masked. Findings go to standard error."""
    if schema:
        text = msgspec.json.encode(msgspec.json.schema(Configuration))
        click.echo(text if as_json else msgspec.json.format(text))
        return
    compiled = compiled_or_exit(file, config_id)
    for finding in compiled.findings.in_order():
        click.echo(render(finding, compiled.sources) + "\n", err=True)
    text = msgspec.json.encode(without_secrets(compiled.configuration))
    click.echo(text if as_json else msgspec.json.format(text))
