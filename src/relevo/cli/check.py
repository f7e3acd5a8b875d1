"""``relevo check`` and ``relevo config``: what a file means, and what is odd about it."""

from __future__ import annotations

import sys
from ipaddress import ip_address

import click
import msgspec

from relevo.config import Compiled, Finding, Place, Severity, exit_status, render
from relevo.daemon.configuration import compile_file
from relevo.errors import ConfigurationError, HostError, PlaneError
from relevo.host.addresses import local_networks
from relevo.host.files import DEFAULT_CONFIGURATION
from relevo.host.interfaces import Interfaces
from relevo.model import Forwarding
from relevo.planes import catalogue
from relevo.planes.port import shortcomings

STATUS_UNREADABLE = 4
"""keepalived's status for a file that cannot be read under ``-t``."""


@click.command()
@click.argument("file", default=DEFAULT_CONFIGURATION)
@click.option("-j", "--json", "as_json", is_flag=True, help="Findings as JSON.")
@click.option("--strict", is_flag=True, help="Any finding is a failure, notes included.")
@click.option("--offline", is_flag=True, help="Do not look at this machine's interfaces.")
@click.option("-q", "--quiet", is_flag=True, help="No findings, just the exit status.")
def check(file: str, as_json: bool, strict: bool, offline: bool, quiet: bool) -> None:
    """Check FILE and exit 0 when it is clean, 5 with findings, 2, 4 or 6 for graver ones.

    Findings are about the file and, unless --offline, about how it fits this machine and its data plane.
    """
    compiled = _compile(file)
    if not offline:
        _look_around(compiled, file)
    findings = compiled.findings.in_order()
    status = exit_status(findings) or (5 if strict and findings else 0)
    if as_json:
        click.echo(msgspec.json.encode([_plain(finding) for finding in findings]))
    elif not quiet:
        for finding in findings:
            click.echo(render(finding, compiled.sources) + "\n", err=True)
        click.echo(_summary(compiled, findings))
    sys.exit(status)


def _compile(file: str) -> Compiled:
    try:
        return compile_file(file)
    except ConfigurationError as error:
        click.echo(f"relevo: {error}", err=True)
        sys.exit(STATUS_UNREADABLE)


def _plain(finding: Finding) -> dict[str, object]:
    place = finding.place
    return {
        "severity": finding.severity.value,
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "length": place.length,
        "keyword": finding.keyword,
        "message": finding.message,
        "hint": finding.hint,
    }


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


def _look_around(compiled: Compiled, file: str) -> None:
    """Add findings about this machine: interfaces that are not there, what the data plane cannot do."""
    model, findings = compiled.configuration, compiled.findings
    top = Place(file, 1)
    interfaces = Interfaces()
    for instance in model.vrrp_instances:
        if instance.interface and interfaces.find(instance.interface) is None:
            message = f"interface {instance.interface} of vrrp_instance '{instance.name}' is not on this machine"
            hint = "the instance stays in FAULT until it appears; --offline leaves this out"
            findings.add(Severity.WARNING, _place_of(compiled, "interface", instance.interface, top), message, hint, "interface")
    interfaces.close()
    try:
        plane = catalogue.choose(model)
    except PlaneError as error:
        findings.add(
            Severity.FATAL,
            _place_of(compiled, "data_plane", model.global_defs.plane, top),
            str(error),
            error.hint,
            "data_plane",
        )
        return
    for lacking in shortcomings(model, catalogue.capabilities(plane.name)):
        place = _place_of(compiled, lacking.keyword, "", top)
        findings.add(Severity.NOTE, place, lacking.message, lacking.hint, lacking.keyword)
    if plane.name != "proxy":
        _look_for_neighbours(compiled, top)


def _look_for_neighbours(compiled: Compiled, top: Place) -> None:
    """Warn of translated servers (NAT) on a network of which clients may be: those would get answers from a stranger."""
    try:
        networks = local_networks()
    except HostError:
        return
    for service in compiled.configuration.virtual_servers:
        virtual = ip_address(service.endpoint.address)
        near = [network for network in networks if virtual in network]
        for server in service.real_servers:
            shared = next((n for n in near if ip_address(server.endpoint.address) in n), None)
            if server.forwarding is not Forwarding.NAT or shared is None:
                continue
            message = (
                f"{service.name}: {server.endpoint} is on the virtual server's own network {shared}: a client there gets the "
                "server's answer directly, from an address that it did not ask"
            )
            hint = (
                f"lb_kind FULLNAT serves every client; with NAT, {server.endpoint.address} must answer others through this node"
            )
            place = _place_of(compiled, "real_server", server.endpoint.address, top)
            findings = compiled.findings
            findings.add(Severity.WARNING, place, message, hint, "lb_kind")


def _place_of(compiled: Compiled, keyword: str, value: str, otherwise: Place) -> Place:
    """Find the first line that begins with ``keyword`` (and says ``value``); the model does not keep places."""
    for name, lines in compiled.sources.items():
        for number, line in enumerate(lines, 1):
            words = line.split()
            if words and words[0].startswith(keyword) and (not value or words[1:2] == [value]):
                shown = value or words[0]
                return Place(name, number, line.index(shown) + 1, len(shown))
    return otherwise


@click.command()
@click.argument("file", default=DEFAULT_CONFIGURATION)
@click.option("-j", "--json", "as_json", is_flag=True, help="JSON on one line instead of indented.")
def config(file: str, as_json: bool) -> None:
    """Print the compiled model of FILE as JSON, secrets masked. Findings go to standard error."""
    compiled = _compile(file)
    for finding in compiled.findings.in_order():
        click.echo(render(finding, compiled.sources) + "\n", err=True)
    plain = msgspec.to_builtins(compiled.configuration)
    for instance in plain["vrrp_instances"]:
        if instance["authentication"]:
            instance["authentication"]["password"] = "***"  # noqa: S105 - the mask
    text = msgspec.json.encode(plain)
    click.echo(text if as_json else msgspec.json.format(text))
