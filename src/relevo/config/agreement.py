"""What must agree in the files of a pair of directors, and does not.

A finding stands in the second file, and names the value and the line of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from relevo.config.compile import Compiled
from relevo.config.diagnostics import Findings, Severity
from relevo.config.place import Place, Places
from relevo.model import Configuration, SyncDaemon, VrrpInstance
from relevo.model.vrrp import PRIORITY_OWNER


@dataclass(frozen=True, slots=True)
class Node:
    """The compiled file of one director, with the places of its declarations."""

    file: str
    compiled: Compiled
    places: Places

    @property
    def configuration(self) -> Configuration:
        """Return the model."""
        return self.compiled.configuration

    def place(self, *path: str) -> Place:
        """Return the place of a declaration; the top of the file if there is none."""
        return self.places.of(*path) or Place(self.file, 1)


@dataclass(frozen=True, slots=True)
class Rule:
    """A value of an instance that both nodes must have: ``keyword`` sets it, ``otherwise`` says what follows if they differ."""

    keyword: str
    value: Callable[[VrrpInstance], Any]
    severity: Severity
    otherwise: str
    secret: bool = False
    within: str = ""
    """Keyword of the block that has it, if it is not that of the instance."""


def _addresses(instance: VrrpInstance) -> str:
    return " ".join(sorted(address.address for address in instance.addresses)) or "none"


RULES: Final = (
    Rule("virtual_router_id", lambda i: i.virtual_router_id, Severity.ERROR, "neither hears the other: both become master"),
    Rule("version", lambda i: i.version, Severity.ERROR, "adverts of the other version are dropped: both become master"),
    Rule(
        "auth_type",
        lambda i: i.authentication.type.value if i.authentication else "none",
        Severity.ERROR,
        "adverts are dropped: both become master",
        within="authentication",
    ),
    Rule(
        "auth_pass",
        lambda i: i.authentication.password if i.authentication else "",
        Severity.ERROR,
        "adverts are dropped: both become master",
        secret=True,
        within="authentication",
    ),
    Rule("vrrp_transport", lambda i: i.transport.udp_port or "IP", Severity.ERROR, "neither hears the other: both become master"),
    Rule("virtual_ipaddress", _addresses, Severity.WARNING, "after a takeover addresses are missing, or are there twice"),
)

SERVICE_FIELDS: Final = (("lb_algo", "scheduler"), ("lb_kind", "forwarding"), ("persistence_timeout", "persistence_timeout_s"))
"""Keywords of a virtual server whose values should be the same, and their fields in the model."""


def look_at_pair(one: Node, other: Node) -> Findings:
    """Return what does not agree in the files of two directors."""
    findings = Findings(sources={**one.compiled.findings.sources, **other.compiled.findings.sources})
    _Comparison(one, other, findings).look()
    return findings


class _Comparison:
    def __init__(self, one: Node, other: Node, findings: Findings) -> None:
        self.one = one
        self.other = other
        self.findings = findings

    def look(self) -> None:
        if self.one.configuration.global_defs.router_id == self.other.configuration.global_defs.router_id:
            name = self.other.configuration.global_defs.router_id
            message = f"both nodes have router_id '{name}': mails do not tell which one sent them"
            self._add(Severity.NOTE, message, "give each node its own", "global_defs", "router_id")
        pairs = list(self._pairs())
        for node, instance in self._alone(pairs):
            self._missing(node, instance)
        for first, second in pairs:
            self._compare(first, second)
        self._look_at_groups()
        self._look_at_sync()
        self._look_at_services()

    def _add(self, severity: Severity, message: str, hint: str, *path: str, node: Node | None = None) -> None:
        self.findings.add(severity, (node or self.other).place(*path), message, hint, path[-1])

    # -- instances ---------------------------------------------------------------------------------------------

    def _pairs(self) -> Iterator[tuple[VrrpInstance, VrrpInstance]]:
        """Yield the instances that belong together: of one name, else of one virtual router id."""
        left = list(self.other.configuration.vrrp_instances)
        for first in self.one.configuration.vrrp_instances:
            second = next((each for each in left if each.name == first.name), None)
            second = second or next((each for each in left if each.virtual_router_id == first.virtual_router_id), None)
            if second is not None:
                left.remove(second)
                yield first, second

    def _alone(self, pairs: list[tuple[VrrpInstance, VrrpInstance]]) -> Iterator[tuple[Node, VrrpInstance]]:
        firsts, seconds = ({id(pair[side]) for pair in pairs} for side in (0, 1))
        for node, known in ((self.one, firsts), (self.other, seconds)):
            yield from ((node, each) for each in node.configuration.vrrp_instances if id(each) not in known)

    def _missing(self, node: Node, instance: VrrpInstance) -> None:
        missing = self.one.file if node is self.other else self.other.file
        message = f"vrrp_instance '{instance.name}' is not in {missing}: no node takes it over"
        self._add(Severity.WARNING, message, "declare it on both nodes", "vrrp_instance", instance.name, node=node)

    def _compare(self, first: VrrpInstance, second: VrrpInstance) -> None:
        for rule in RULES:
            values = rule.value(first), rule.value(second)
            if values[0] != values[1]:
                shown = "differs" if rule.secret else f"is {values[1]}, and {values[0]}"
                self._differ(rule.severity, rule.keyword, shown, rule.otherwise, first, second, rule.within)
        self._compare_intervals(first, second)
        self._compare_priorities(first, second)
        self._compare_destinations(first, second)

    def _differ(
        self,
        severity: Severity,
        keyword: str,
        shown: str,
        otherwise: str,
        first: VrrpInstance,
        second: VrrpInstance,
        within: str = "",
    ) -> None:
        at = self.one.place("vrrp_instance", first.name, within or keyword)
        message = f"{keyword} of '{second.name}' {shown} at {at.file}:{at.line}: {otherwise}"
        self._add(severity, message, "write the same on both nodes", "vrrp_instance", second.name, within or keyword)

    def _compare_intervals(self, first: VrrpInstance, second: VrrpInstance) -> None:
        values = first.advert_interval_s, second.advert_interval_s
        if values[0] == values[1]:
            return
        shown = f"is {values[1]:g} s, and {values[0]:g} s"
        if second.version == 2:
            self._differ(Severity.ERROR, "advert_int", shown, "adverts are dropped: both become master", first, second)
        else:
            self._differ(Severity.WARNING, "advert_int", shown, "a backup uses that of the master", first, second)

    def _compare_priorities(self, first: VrrpInstance, second: VrrpInstance) -> None:
        if first.priority == second.priority:
            at = self.one.place("vrrp_instance", first.name, "priority")
            message = f"priority of '{second.name}' is {second.priority} at {at.file}:{at.line} too"
            severity, hint = Severity.WARNING, "give the node that shall be master a higher one"
            if second.priority == PRIORITY_OWNER:
                severity, message = Severity.ERROR, f"{message}: both own the addresses, and both are master"
            else:
                message = f"{message}: the higher address becomes master"
            self._add(severity, message, hint, "vrrp_instance", second.name, "priority")
        elif first.starts_as_master and second.starts_as_master:
            message = f"'{second.name}' is declared MASTER on both nodes: both take over at a start, until priority decides"
            self._add(Severity.NOTE, message, "declare the lower one BACKUP", "vrrp_instance", second.name, "state")

    def _compare_destinations(self, first: VrrpInstance, second: VrrpInstance) -> None:
        if bool(first.unicast_peers) is not bool(second.unicast_peers):
            shown = "is declared, and not" if second.unicast_peers else "is not declared, and is"
            otherwise = "one sends unicast, one multicast: both become master"
            self._differ(Severity.ERROR, "unicast_peer", shown, otherwise, first, second)
            return
        if not second.unicast_peers:
            if first.multicast_group != second.multicast_group:
                shown = f"is {second.multicast_group}, and {first.multicast_group}"
                self._differ(Severity.ERROR, "mcast_group", shown, "neither hears the other: both become master", first, second)
            return
        for node, own, peer in ((self.other, second, first), (self.one, first, second)):
            if peer.source_address and peer.source_address not in own.unicast_peers:
                message = f"unicast_peer of '{own.name}' does not list {peer.source_address}, the other node's unicast_src_ip"
                self._add(Severity.ERROR, message, "add it", "vrrp_instance", own.name, "unicast_peer", node=node)

    # -- the rest ----------------------------------------------------------------------------------------------

    def _look_at_groups(self) -> None:
        groups = {group.name: frozenset(group.members) for group in self.one.configuration.sync_groups}
        for group in self.other.configuration.sync_groups:
            if group.name in groups and groups[group.name] != frozenset(group.members):
                other = f"vrrp_sync_group '{group.name}' has other members than in {self.one.file}"
                message = f"{other}: they do not fail over together"
                self._add(Severity.WARNING, message, "list the same on both nodes", "vrrp_sync_group", group.name, "group")

    def _look_at_sync(self) -> None:
        first, second = (node.configuration.global_defs.lvs_sync_daemon for node in (self.one, self.other))
        if (first is None) is not (second is None):
            without = self.one.file if first is None else self.other.file
            message = f"lvs_sync_daemon is not in {without}: connections do not survive a failover"
            self._add(Severity.WARNING, message, "declare it on both nodes", "global_defs", "lvs_sync_daemon")
        elif first is not None and second is not None:
            for name in ("sync_id", "port", "group"):
                if getattr(first, name) != getattr(second, name) and not self._follows_instance(name, first, second):
                    values = f"{getattr(second, name)}, and {getattr(first, name)} in {self.one.file}"
                    message = f"lvs_sync_daemon: {name} is {values}: connections are not synchronised"
                    self._add(Severity.ERROR, message, "write the same on both nodes", "global_defs", "lvs_sync_daemon")
            if bool(first.key_file) is not bool(second.key_file):
                message = "only one node has lvs_sync_key: it refuses the messages of the other"
                self._add(Severity.ERROR, message, "give both the same key", "global_defs", "lvs_sync_key")

    @staticmethod
    def _follows_instance(name: str, first: SyncDaemon, second: SyncDaemon) -> bool:
        """Whether the value is that of the VRRP instance on one of the nodes, and compared there."""
        return name == "sync_id" and None in (first.sync_id, second.sync_id)

    def _look_at_services(self) -> None:
        first, second = ({s.name: s for s in node.configuration.virtual_servers} for node in (self.one, self.other))
        for name in [*first, *(name for name in second if name not in first)]:
            if name not in first or name not in second:
                node, without = (self.other, self.one) if name not in first else (self.one, self.other)
                message = f"virtual server {name} is not in {without.file}: after a takeover nobody serves it"
                self._add(Severity.WARNING, message, "declare it on both nodes", "virtual_server", name, node=node)
                continue
            servers = [{each.endpoint for each in services[name].real_servers} for services in (first, second)]
            if servers[0] != servers[1]:
                message = f"virtual server {name} has other real servers than in {self.one.file}"
                self._add(Severity.WARNING, message, "list the same on both nodes", "virtual_server", name)
            for keyword, field in SERVICE_FIELDS:
                values = getattr(first[name], field), getattr(second[name], field)
                if values[0] != values[1]:
                    message = f"{keyword} of virtual server {name} is {values[1]}, and {values[0]} in {self.one.file}"
                    self._add(Severity.WARNING, message, "write the same on both nodes", "virtual_server", name, keyword)
