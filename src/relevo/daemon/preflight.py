"""What this machine lacks for a configuration: interfaces, users, scripts, and what its data plane cannot do."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from relevo.config import Compiled, Place, Places, Severity
from relevo.errors import HostError, PlaneError
from relevo.host import pcre
from relevo.host.addresses import local_networks
from relevo.host.interfaces import Interfaces
from relevo.host.names import name_problem
from relevo.host.run_command import prepare, problem_of
from relevo.model import Check, Forwarding, HttpCheck, Script, TrackerKind, VrrpNotify
from relevo.model.checks import MiscCheck
from relevo.planes import catalogue
from relevo.planes.port import shortcomings

LOOKUP_S: Final = 3.0
"""Seconds that looking up a name may take."""


class Preflight:
    """Adds findings about this machine: interfaces, users and scripts that are missing, and what the data plane cannot do.

    The compiler does no I/O. It supplies the places, so that findings point at the right words.
    """

    def __init__(self, compiled: Compiled, places: Places, file: str) -> None:
        self.model = compiled.configuration
        self.findings = compiled.findings
        self.places = places
        self.top = Place(file, 1)

    def look(self) -> None:
        """Add all of them."""
        self._look_for_interfaces()
        self._look_for_scripts()
        self._look_at_expressions()
        self._look_for_mail_server()
        try:
            plane = catalogue.choose(self.model)
        except PlaneError as error:
            self._add(Severity.FATAL, str(error), error.hint, "global_defs", "data_plane")
            return
        capabilities = catalogue.capabilities(plane.name)
        for lacking in shortcomings(self.model, capabilities):
            name = next((s.name for s in self.model.virtual_servers if lacking.message.startswith(f"{s.name}: ")), "")
            path = ("virtual_server", name) if name else ("global_defs",)
            self._add(Severity.NOTE, lacking.message, lacking.hint, *path, lacking.keyword)
        if plane.name != "proxy":
            self._look_for_neighbours()
        if capabilities.sync_keys:
            self._look_for_sync_key()

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
            yield daemon.interface, "lvs_sync_daemon", self._sync_path(), "connections are not synchronised"

    def _look_for_scripts(self) -> None:
        """Report the users that do not exist, and the scripts that cannot run, each once."""
        known = self.model.global_defs
        default = _missing_identity(known.script_user, known.script_group) if known.script_user else ""
        if default:
            self._add(
                Severity.WARNING,
                f"{default} of script_user is not on this machine: scripts cannot run",
                "create it, or name another one; --offline skips this check",
                "global_defs",
                "script_user",
            )
        seen: set[Script] = set()
        for script, path in self._scripts():
            if script in seen or (default and not script.user):
                continue
            seen.add(script)
            missing = _missing_identity(script.user, script.group) if script.user else ""
            try:
                problem = f"{missing} is not on this machine" if missing else problem_of(prepare(script, known))
            except HostError as error:
                problem = str(error)
            if problem:
                owner = path[0] if len(path) == 2 else f"{path[0]} '{path[1]}'"
                what = "misc_path" if path[-2] == "real_server" else path[-1]
                message = f"{what} of {owner} cannot run: {problem}"
                self._add_at(self.places.of(*path), Severity.WARNING, message, "--offline skips this check", what)

    def _look_for_mail_server(self) -> None:
        server = self.model.global_defs.mail.server
        if server is None or not (problem := name_problem(server.address, LOOKUP_S)):
            return
        message = f"mail server {server.address} is not found: {problem}"
        self._add(Severity.WARNING, message, "mails wait until it is; --offline skips this check", "global_defs", "smtp_server")

    def _look_for_sync_key(self) -> None:
        daemon = self.model.global_defs.lvs_sync_daemon
        if daemon is not None and not daemon.key_file:
            message = f"connections are synchronised without a key: every host on {daemon.interface} can send forged ones"
            hint = "lvs_sync_key file:PATH, where all directors are Relevo's; forged connections yield to those of this node"
            self._add(Severity.NOTE, message, hint, *self._sync_path())

    def _sync_path(self) -> tuple[str, str, str]:
        """Return the path of what declares the sync daemon: today's keyword, or that of old releases."""
        blocks = [("global_defs", ""), *(("vrrp_instance", instance.name) for instance in self.model.vrrp_instances)]
        for block in blocks:
            for keyword in ("lvs_sync_daemon", "lvs_sync_daemon_interface"):
                if self.places.of(*block, keyword) != self.places.of(*block):
                    return (*block, keyword)
        return ("global_defs", "", "lvs_sync_daemon")

    def _look_at_expressions(self) -> None:
        """Report the expressions of HTTP checks that are invalid, each once."""
        seen: set[tuple[str, tuple[str, ...]]] = set()
        for check, path in self._checks():
            for url in check.urls if isinstance(check, HttpCheck) else ():
                if not url.regex or (url.regex, url.regex_options) in seen:
                    continue
                seen.add((url.regex, url.regex_options))
                try:
                    pcre.pattern(url.regex, url.regex_options)
                except HostError as error:
                    message = f"{error}: the check always fails"
                    self._add_at(self.places.of(*path), Severity.ERROR, message, error.hint or "see pcre2pattern(3)", "regex")

    def _checks(self) -> Iterator[tuple[Check, tuple[str, ...]]]:
        """Yield each check with the path of its server."""
        for service in self.model.virtual_servers:
            for server in service.real_servers:
                for check in server.checks:
                    yield check, ("virtual_server", service.name, "real_server", server.endpoint.address)

    def _scripts(self) -> Iterator[tuple[Script, tuple[str, ...]]]:
        """Yield each script with its path."""
        processes, fifos = self.model.global_defs.processes, self.model.global_defs.fifos
        for keyword, script in (
            ("startup_script", processes.startup_script),
            ("shutdown_script", processes.shutdown_script),
            ("notify_fifo_script", fifos.everything.script),
            ("vrrp_notify_fifo_script", fifos.vrrp.script),
            ("lvs_notify_fifo_script", fifos.services.script),
        ):
            if script is not None:
                yield script, ("global_defs", keyword)
        yield from ((each.script, ("vrrp_script", each.name, "script")) for each in self.model.trackers.scripts)
        yield from ((check.script, path) for check, path in self._checks() if isinstance(check, MiscCheck))
        for instance in self.model.vrrp_instances:
            yield from _notify_scripts(instance.notify, "vrrp_instance", instance.name)
        for group in self.model.sync_groups:
            yield from _notify_scripts(group.notify, "vrrp_sync_group", group.name)
        for service in self.model.virtual_servers:
            for keyword, script in (("quorum_up", service.quorum_up), ("quorum_down", service.quorum_down)):
                if script is not None:
                    yield script, ("virtual_server", service.name, keyword)
            for server in service.real_servers:
                for keyword, script in (("notify_up", server.notify_up), ("notify_down", server.notify_down)):
                    if script is not None:
                        yield script, ("virtual_server", service.name, "real_server", server.endpoint.address, keyword)

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


def _notify_scripts(notify: VrrpNotify, *path: str) -> Iterator[tuple[Script, tuple[str, ...]]]:
    keywords = {"any": "notify", "lower_priority": "notify_master_rx_lower_pri"}
    for kind in notify.__struct_fields__:
        script = getattr(notify, kind)
        if script is not None:
            yield script, (*path, keywords.get(kind, f"notify_{kind}"))


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
