"""``relevo check`` lists the findings about a configuration file, ``relevo config`` prints its model."""

from __future__ import annotations

import grp
import pwd
import sys
from collections.abc import Iterator
from ipaddress import ip_address

import click
import msgspec

from relevo.cli.options import config_id_option
from relevo.config import Compiled, Finding, Place, Places, Severity, Step, compile_text, exit_status, render
from relevo.errors import ConfigurationError, HostError, PlaneError
from relevo.host.addresses import local_networks
from relevo.host.files import DEFAULT_CONFIGURATION, read_configuration, read_included, surroundings
from relevo.host.interfaces import Interfaces
from relevo.model import Forwarding, Script, TrackerKind
from relevo.observe.configuration import without_secrets
from relevo.planes import catalogue
from relevo.planes.port import shortcomings

STATUS_UNREADABLE = 4
"""keepalived's status for a file that cannot be read under ``-t``."""


@click.command()
@click.argument("file", default=DEFAULT_CONFIGURATION)
@click.option("-j", "--json", "as_json", is_flag=True, help="Findings as JSON.")
@click.option("--strict", is_flag=True, help="Fail on any finding, notes included.")
@click.option("--offline", is_flag=True, help="Skip what depends on this machine: interfaces, users, the data plane.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; only return the exit status.")
@config_id_option
def check(file: str, as_json: bool, strict: bool, offline: bool, quiet: bool, config_id: str | None) -> None:
    """Check FILE. Exit 0 without findings, 5 with findings, 2, 4 or 6 with more severe ones.

    Findings concern the file and, unless --offline is given, this machine and its data plane.
    """
    places = Places()
    compiled = _compile(file, config_id, places)
    if not offline:
        _Surroundings(compiled, places, Place(file, 1)).look()
    findings = compiled.findings.in_order()
    status = exit_status(findings) or (5 if strict and findings else 0)
    if as_json:
        click.echo(msgspec.json.encode([_plain(finding) for finding in findings]))
    elif not quiet:
        for finding in findings:
            click.echo(render(finding, compiled.sources) + "\n", err=True)
        click.echo(_summary(compiled, findings))
    sys.exit(status)


def _compile(file: str, config_id: str | None, places: Places | None = None) -> Compiled:
    try:
        text = read_configuration(file)
        return compile_text(text, file, read_included, places=places, surroundings=surroundings(file, config_id))
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
        "chain": [_plain_step(step) for step in place.chain],
        "keyword": finding.keyword,
        "message": finding.message,
        "hint": finding.hint,
    }


def _plain_step(step: Step) -> dict[str, object]:
    plain: dict[str, object] = {"how": step.how.value, "file": step.file, "line": step.line}
    return plain | {"text": step.text} if step.text else plain


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


class _Surroundings:
    """Adds findings about this machine: interfaces and users that are missing, and what the data plane cannot do.

    The compiler does no I/O. It supplies the places, so that findings point at the right words.
    """

    def __init__(self, compiled: Compiled, places: Places, top: Place) -> None:
        self.model = compiled.configuration
        self.findings = compiled.findings
        self.places = places
        self.top = top

    def look(self) -> None:
        """Add the findings about interfaces, users and the data plane."""
        self._look_for_interfaces()
        self._look_for_users()
        try:
            plane = catalogue.choose(self.model)
        except PlaneError as error:
            self._add(Severity.FATAL, str(error), error.hint, "global_defs", "data_plane")
            return
        for lacking in shortcomings(self.model, catalogue.capabilities(plane.name)):
            name = next((s.name for s in self.model.virtual_servers if lacking.message.startswith(f"{s.name}: ")), "")
            path = ("virtual_server", name) if name else ("global_defs",)
            self._add(Severity.NOTE, lacking.message, lacking.hint, *path, lacking.keyword)
        if plane.name != "proxy":
            self._look_for_neighbours()

    def _add(self, severity: Severity, message: str, hint: str, *path: str) -> None:
        """Add a finding at the place of ``path``, whose last part is a keyword."""
        self._add_at(self.places.of(*path), severity, message, hint, path[-1])

    def _add_at(self, place: Place | None, severity: Severity, message: str, hint: str, keyword: str) -> None:
        self.findings.add(severity, place or self.top, message, hint, keyword)

    def _look_for_interfaces(self) -> None:
        interfaces = Interfaces()
        for name, what, path, hint in self._named_interfaces():
            if "$" in name:
                message = f"{what}: '{name}' contains a name that is not defined"
                self._add_at(
                    self.places.of(*path), Severity.WARNING, message, "define it above, or write the interface's name", path[2]
                )
            elif interfaces.find(name) is None:
                message = f"interface {name} of {what} is not on this machine"
                self._add_at(self.places.of(*path), Severity.WARNING, message, f"{hint}; --offline skips this check", path[2])
        interfaces.close()

    def _named_interfaces(self) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
        """Yield each interface in the file: its name, what names it, the word's path, what happens while it is missing."""
        for instance in self.model.vrrp_instances:
            path = ("vrrp_instance", instance.name)
            owner = f"vrrp_instance '{instance.name}'"
            yield instance.interface, owner, (*path, "interface"), "the instance stays in FAULT until it appears"
            for keyword, addresses in (
                ("virtual_ipaddress", instance.addresses),
                ("virtual_ipaddress_excluded", instance.excluded_addresses),
            ):
                for address in addresses:
                    if address.device not in ("", instance.interface):
                        what = f"address {address} of {owner}"
                        yield address.device, what, (*path, keyword, str(address), address.device), "the address cannot be set"
            for tracked in instance.tracked:
                if tracked.kind is not TrackerKind.INTERFACE:
                    continue
                what = f"track_interface of {owner}"
                yield (
                    tracked.name,
                    what,
                    (*path, "track_interface", tracked.name),
                    "it counts as down; keepalived ignores the line",
                )
        daemon = self.model.global_defs.lvs_sync_daemon
        if daemon is not None:
            yield daemon.interface, "lvs_sync_daemon", ("global_defs", "lvs_sync_daemon", ""), "connections are not synchronised"

    def _look_for_users(self) -> None:
        known = self.model.global_defs
        if known.script_user:
            self._look_for_user(known.script_user, known.script_group, "script_user", ("global_defs", "script_user"))
        for script, path in self._scripts():
            if script.user:
                self._look_for_user(script.user, script.group, f"{path[-1]} of {path[0]} '{path[1]}'", path)

    def _scripts(self) -> Iterator[tuple[Script, tuple[str, ...]]]:
        """Yield each script with its path."""
        for instance in self.model.vrrp_instances:
            for kind in instance.notify.__struct_fields__:
                script = getattr(instance.notify, kind)
                if script is not None:
                    yield script, ("vrrp_instance", instance.name, "notify" if kind == "any" else f"notify_{kind}")
        for service in self.model.virtual_servers:
            for keyword, script in (("quorum_up", service.quorum_up), ("quorum_down", service.quorum_down)):
                if script is not None:
                    yield script, ("virtual_server", service.name, keyword)
            for server in service.real_servers:
                for keyword, script in (("notify_up", server.notify_up), ("notify_down", server.notify_down)):
                    if script is not None:
                        yield script, ("virtual_server", service.name, "real_server", server.endpoint.address, keyword)

    def _look_for_user(self, user: str, group: str, what: str, path: tuple[str, ...]) -> None:
        missing = _missing_identity(user, group)
        if missing:
            message = f"{missing} of {what} is not on this machine: scripts cannot run"
            self._add(Severity.WARNING, message, "create it, or name another one; --offline skips this check", *path)

    def _look_for_neighbours(self) -> None:
        """Warn of NAT servers on the network of their virtual address, whose answers bypass the director."""
        try:
            networks = local_networks()
        except HostError:
            return
        for service in self.model.virtual_servers:
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
                    "lb_kind FULLNAT serves every client; with NAT, "
                    f"{server.endpoint.address} must answer others through this node"
                )
                place = self.places.of("virtual_server", service.name, "real_server", server.endpoint.address)
                self._add_at(place, Severity.WARNING, message, hint, "lb_kind")


def _missing_identity(user: str, group: str) -> str:
    """Return the user or group that this machine does not have; empty when it has both."""
    try:
        pwd.getpwnam(user)
    except KeyError:
        return f"user '{user}'"
    try:
        if group:
            grp.getgrnam(group)
    except KeyError:
        return f"group '{group}'"
    return ""


@click.command()
@click.argument("file", default=DEFAULT_CONFIGURATION)
@click.option("-j", "--json", "as_json", is_flag=True, help="JSON on one line instead of indented.")
@config_id_option
def config(file: str, as_json: bool, config_id: str | None) -> None:
    """Print the compiled model of FILE as JSON with secrets masked. Findings go to standard error."""
    compiled = _compile(file, config_id)
    for finding in compiled.findings.in_order():
        click.echo(render(finding, compiled.sources) + "\n", err=True)
    text = msgspec.json.encode(without_secrets(compiled.configuration))
    click.echo(text if as_json else msgspec.json.format(text))
