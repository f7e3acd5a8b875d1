"""Tree → model: the root of the language, defaults across blocks, and the checks that look at the whole file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from relevo.config.cursor import Cursor, Rejected
from relevo.config.diagnostics import Findings, Place, Severity
from relevo.config.keywords.global_defs import GLOBAL_DEFS
from relevo.config.keywords.groups import Group, local_address_group, virtual_server_group
from relevo.config.keywords.registry import Block, Fields, Keyword
from relevo.config.keywords.services import VIRTUAL_SERVER, build_service
from relevo.config.keywords.vrrp import MAX_ADVERTISED, VRRP_INSTANCE, VRRP_SYNC_GROUP, advert_interval, one_family
from relevo.config.tree import Reader, Statement, parse
from relevo.model import (
    Authentication,
    AuthenticationType,
    Configuration,
    GarpPolicy,
    GlobalDefs,
    Mail,
    Script,
    ServiceKey,
    SyncDaemon,
    SyncGroup,
    VirtualServer,
    VrrpInstance,
    VrrpNotify,
    VrrpTransport,
)

ROOT = Block(
    "",
    (
        Keyword("global_defs", GLOBAL_DEFS, "identity, mail and defaults", repeats=True),
        Keyword("vrrp_instance", VRRP_INSTANCE, "a virtual router", repeats=True),
        Keyword("vrrp_sync_group", VRRP_SYNC_GROUP, "instances that move together", repeats=True),
        Keyword("virtual_server", VIRTUAL_SERVER, "a virtual service", repeats=True),
        Keyword("virtual_server_group", virtual_server_group, "addresses and firewall marks that one pool serves", repeats=True),
        Keyword("local_address_group", local_address_group, "source addresses for FULLNAT [Relevo]", repeats=True),
    ),
    lambda fields: fields,
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a configuration text means, what was found in it, and its lines for showing the findings."""

    configuration: Configuration
    findings: Findings
    sources: dict[str, list[str]] = field(repr=False)


def compile_text(text: str, file: str, reader: Reader = lambda pattern, including: []) -> Compiled:
    """Compile ``text``, known as ``file`` in findings. Never raises: what cannot be used is left out and reported."""
    findings = Findings()
    tree = parse(text, file, reader, findings)
    root = Fields(Cursor(Statement("", [], file, tree.sources[file], 1, 0), findings))
    ROOT.evaluate(tree.statements, root)
    return Compiled(_Assembler(root, findings).configuration(Place(file, 1)), findings, tree.sources)


class _Assembler:
    """Puts the evaluated blocks together. ``global_defs`` may stand anywhere, so defaults are applied here."""

    def __init__(self, root: Fields, findings: Findings) -> None:
        self.root = root
        self.findings = findings
        self.globals: dict[str, Any] = {}
        for fields in root.get("global_defs", ()):
            self.globals.update(fields)
        self.sync_daemon: SyncDaemon | None = self.globals.get("lvs_sync_daemon")

    def configuration(self, top: Place) -> Configuration:
        instances = self._instances()
        services = self._services()
        groups = self._groups({instance.name for instance in instances})
        self._look_at_scripts()
        if not instances and not services:
            message = "nothing to run: no vrrp_instance and no virtual_server"
            self.findings.add(Severity.FATAL, top, message, "is this the right file?")
        return Configuration(
            global_defs=self._global_defs(),
            vrrp_instances=instances,
            sync_groups=groups,
            virtual_servers=services,
        )

    def _look_at_scripts(self) -> None:
        """Say once that scripts run without ``enable_script_security`` (keepalived's status 6)."""
        if self.globals.get("enable_script_security"):
            return
        blocks = [f for name in ("vrrp_instance", "vrrp_sync_group", "virtual_server") for f in self.root.get(name, ())]
        blocks += [server for fields in blocks for server in fields.get("real_servers", ())]
        named = (fields.origin[name] for fields in blocks for name, value in fields.items() if isinstance(value, Script))
        first = next(named, None)
        if first is not None:
            message = "scripts run without enable_script_security: whoever can write one becomes root"
            hint = "write enable_script_security, and script_user, into global_defs"
            self.findings.add(Severity.SECURITY, first.place(), message, hint, first.keyword)

    # -- global_defs -------------------------------------------------------------------------------------------

    def _picked(self, *names: str) -> dict[str, Any]:
        return {name: self.globals[name] for name in names if name in self.globals}

    def _global_defs(self) -> GlobalDefs:
        known = self.globals
        renamed = {
            "notification_email": "recipients",
            "notification_email_from": "sender",
            "smtp_server": "server",
            "smtp_connect_timeout": "connect_timeout_s",
            "smtp_helo_name": "helo_name",
            "smtp_security": "security",
            "smtp_user": "user",
            "smtp_password": "password_file",
        }
        mail = Mail(**{field: known[name] for name, field in renamed.items() if name in known})
        user, group = known.get("script_user", ("", ""))
        return GlobalDefs(
            mail=mail,
            script_user=user,
            script_group=group,
            lvs_sync_daemon=self._sealed(self.sync_daemon),
            **self._picked(
                "router_id", "no_email_faults", "no_checker_emails", "script_timeout_s", "enable_script_security",
                "plane", "vrrp_realtime_priority", "connection_table_size", "ebpf_hooks", "mh_table_size",
                "lvs_timeouts", "lvs_sysctls", "lvs_flush", "lvs_flush_on_stop",
            ),
        )  # fmt: skip

    def _sealed(self, daemon: SyncDaemon | None) -> SyncDaemon | None:
        key_file = self.globals.get("lvs_sync_key", "")
        if daemon is None or not key_file:
            self._look_at_waiting()
            return daemon
        return msgspec.structs.replace(daemon, key_file=key_file)

    def _look_at_waiting(self) -> None:
        """Without a key nobody knows whether connections are here."""
        for fields in self.root.get("vrrp_instance", ()):
            if "preempt_when_synced_s" in fields:
                message = "preempt_when_synced learns nothing without lvs_sync_daemon and lvs_sync_key: it waits its whole time"
                fields.complain(Severity.WARNING, "preempt_when_synced_s", message, "write both into global_defs")

    # -- VRRP --------------------------------------------------------------------------------------------------

    def _instances(self) -> tuple[VrrpInstance, ...]:
        built: dict[str, VrrpInstance] = {}
        routers: dict[tuple[int, str], list[VrrpInstance]] = {}
        for fields in self.root.get("vrrp_instance", ()):
            name = fields["name"]
            if name in built:
                fields.complain(
                    Severity.ERROR,
                    "name",
                    f"vrrp_instance '{name}' is there already: left out",
                    "rename one of the two",
                )
                continue
            try:
                instance = self._instance(fields)
            except Rejected:
                continue
            number = (instance.virtual_router_id, instance.interface)
            other = next((o for o in routers.get(number, ()) if _meet(o, instance)), None)
            if other is not None:
                message = f"virtual_router_id {number[0]} is used by '{other.name}' on the same interface: left out"
                fields.complain(Severity.ERROR, "virtual_router_id", message, "give each virtual router its own number")
                continue
            routers.setdefault(number, []).append(instance)
            built[name] = instance
        return tuple(built.values())

    def _instance(self, fields: Fields) -> VrrpInstance:
        if "virtual_router_id" not in fields:
            raise _refused(fields, "has no virtual_router_id: left out", "write virtual_router_id 1..255")
        peers = fields.get("unicast_peer", ())
        transport: VrrpTransport = fields.get("vrrp_transport", self.globals.get("vrrp_transport", VrrpTransport()))
        addresses = one_family(fields, "virtual_ipaddress", fields.get("virtual_ipaddress", ()))
        interface = fields.get("interface") or next((a.device for a in addresses if peers and a.device), "")
        if not interface:
            raise _refused(fields, "has no interface: left out", "write interface <name>")
        if transport.udp_port and not (peers and "source_address" in fields):
            raise _refused(fields, "uses UDP without unicast_src_ip and unicast_peer: left out", "name both ends")
        if not addresses and not fields.get("virtual_ipaddress_excluded"):
            fields.complain(
                Severity.ERROR,
                "name",
                "no virtual_ipaddress: the instance moves nothing",
                "add a virtual_ipaddress block",
            )
        if addresses and ":" in addresses[0].address:
            raise _refused(
                fields,
                "has IPv6 addresses, which this version does not carry: left out",
                "use virtual_ipaddress_excluded",
            )
        excluded = fields.get("virtual_ipaddress_excluded", ())
        if len(addresses) > MAX_ADVERTISED:
            message = f"an advert holds {MAX_ADVERTISED} addresses: the rest is treated as excluded"
            fields.complain(Severity.WARNING, "virtual_ipaddress", message)
            addresses, excluded = addresses[:MAX_ADVERTISED], (*addresses[MAX_ADVERTISED:], *excluded)
        version = fields.get("version", self.globals.get("vrrp_version", 2))
        starts_as_master = fields.get("starts_as_master", False)
        priority = fields.get("priority", 255 if starts_as_master else 100)
        self._note_sync_daemon(fields)
        return VrrpInstance(
            name=fields["name"],
            interface=interface,
            virtual_router_id=fields["virtual_router_id"],
            priority=priority,
            starts_as_master=starts_as_master or priority == 255,
            version=version,
            advert_interval_s=advert_interval(fields, version),
            authentication=self._authentication(fields, version),
            addresses=addresses,
            excluded_addresses=excluded,
            source_address=fields.get("source_address", ""),
            unicast_peers=peers,
            multicast_group=fields.get("mcast_dst_ip", self.globals.get("vrrp_mcast_group4", "224.0.0.18")),
            transport=transport,
            preempt=self._preempt(fields, starts_as_master, priority),
            preempt_delay_s=self._preempt_delay(fields, starts_as_master),
            down_timer_adverts=self._global(fields, "down_timer_adverts", 3),
            checksum_with_pseudo_header=not fields.get("v3_checksum_as_v2", self.globals.get("v3_checksum_as_v2", False)),
            skip_check_adv_addr=self._global(fields, "skip_check_adv_addr", False),
            lower_prio_no_advert=self._global(fields, "lower_prio_no_advert", False),
            higher_prio_send_advert=self._global(fields, "higher_prio_send_advert", False),
            track_interfaces=fields.get("track_interface", ()),
            garp=self._garp(fields),
            smtp_alert=self._smtp_alert(fields, "smtp_alert_vrrp"),
            notify=_notify(fields),
            **fields.picked("track_primary", "preempt_when_synced_s"),
        )

    def _global(self, fields: Fields, name: str, default: Any) -> Any:
        return fields.get(name, self.globals.get(f"vrrp_{name}", default))

    def _smtp_alert(self, fields: Fields, specific: str) -> bool:
        return bool(fields.get("smtp_alert", self.globals.get(specific, self.globals.get("smtp_alert", False))))

    def _note_sync_daemon(self, fields: Fields) -> None:
        interface = fields.get("lvs_sync_daemon_interface")
        if interface is not None and self.sync_daemon is None:
            self.sync_daemon = SyncDaemon(interface=interface, instance=fields["name"])

    @staticmethod
    def _authentication(fields: Fields, version: int) -> Authentication | None:
        found = fields.get("authentication")
        if found is None:
            return None
        if version == 3:
            message = "VRRPv3 has no authentication: left out"
            fields.complain(Severity.WARNING, "authentication", message, "remove the block, or write version 2")
            return None
        if found["auth_type"] == AuthenticationType.AH:
            raise _refused(fields, "uses auth_type AH, which this version does not speak: left out", "write auth_type PASS")
        return Authentication(AuthenticationType.PASS, found["auth_pass"])

    @staticmethod
    def _preempt(fields: Fields, starts_as_master: bool, priority: int) -> bool:
        preempt = bool(fields.get("preempt", True))
        if not preempt and (starts_as_master or priority == 255):
            message = "nopreempt has no effect with state MASTER: ignored"
            fields.complain(Severity.WARNING, "preempt", message, "write state BACKUP on every node")
            return True
        return preempt

    @staticmethod
    def _preempt_delay(fields: Fields, starts_as_master: bool) -> float:
        delay = float(fields.get("preempt_delay", 0.0))
        if delay and (starts_as_master or not fields.get("preempt", True)):
            message = "preempt_delay has no effect with state MASTER or nopreempt: ignored"
            fields.complain(Severity.WARNING, "preempt_delay", message, "write state BACKUP and no nopreempt")
            return 0.0
        return delay

    def _garp(self, fields: Fields) -> GarpPolicy:
        names = (
            "delay_s",
            "repeat",
            "refresh_s",
            "refresh_repeat",
            "lower_prio_repeat",
            "lower_prio_delay_s",
            "interval_s",
        )
        values = {}
        for name in names:
            value = fields.get(f"garp_{name}", self.globals.get(f"garp_{name}"))
            if value is not None:
                values[name] = value
        values.setdefault("lower_prio_repeat", values.get("repeat", 5))
        values.setdefault("lower_prio_delay_s", values.get("delay_s", 5.0))
        return GarpPolicy(**values)

    def _groups(self, instances: set[str]) -> tuple[SyncGroup, ...]:
        built: dict[str, SyncGroup] = {}
        taken: dict[str, str] = {}
        for fields in self.root.get("vrrp_sync_group", ()):
            name = fields["name"]
            if name in built:
                fields.complain(Severity.ERROR, "name", f"vrrp_sync_group '{name}' is there already: left out")
                continue
            members = []
            for member in fields.get("group", ()):
                if member not in instances:
                    fields.complain(Severity.ERROR, "group", f"vrrp_instance '{member}' does not exist: left out of the group")
                elif member in taken:
                    fields.complain(Severity.ERROR, "group", f"'{member}' is in group '{taken[member]}' already: left out")
                else:
                    members.append(member)
            if not members:
                fields.complain(
                    Severity.ERROR,
                    "name",
                    f"vrrp_sync_group '{name}' has no members: left out",
                    "list them in group { … }",
                )
                continue
            taken.update(dict.fromkeys(members, name))
            built[name] = SyncGroup(
                name=name,
                members=tuple(members),
                smtp_alert=self._smtp_alert(fields, "smtp_alert_vrrp"),
                notify=_notify(fields),
            )
        return tuple(built.values())

    # -- services ----------------------------------------------------------------------------------------------

    def _services(self) -> tuple[VirtualServer, ...]:
        built: dict[str, VirtualServer] = {}
        taken: dict[ServiceKey, str] = {}
        groups, pools = self._named("virtual_server_group"), self._named("local_address_group")
        smtp_alert = self.globals.get("smtp_alert_checker", self.globals.get("smtp_alert"))
        for fields in self.root.get("virtual_server", ()):
            service = build_service(fields, smtp_alert, groups, pools)
            if service is None:
                continue
            if service.name in built:
                message = f"virtual server {service.name} is declared twice: the second is left out"
                fields.complain(Severity.ERROR, "", message, "put its servers into one block")
                continue
            former = next((key for key in service.keys if key in taken), None)
            if former is not None:
                message = f"{former} belongs to virtual server {taken[former]} already: {service.name} is left out"
                fields.complain(Severity.ERROR, "", message, "let every address and mark be in one virtual server")
                continue
            taken.update(dict.fromkeys(service.keys, service.name))
            built[service.name] = service
        return tuple(built.values())

    def _named(self, keyword: str) -> dict[str, Group]:
        """The groups that ``keyword`` declares; of two with one name the first."""
        found: dict[str, Group] = {}
        for group in self.root.get(keyword, ()):
            if group.name in found:
                self.findings.add(Severity.ERROR, self.root.origin[keyword].place(), f"{keyword} '{group.name}' is there already")
            found.setdefault(group.name, group)
        return found


def _meet(one: VrrpInstance, other: VrrpInstance) -> bool:
    """Whether the adverts of two instances reach one another's peers: unicast and multicast are separate number spaces."""
    if one.unicast_peers or other.unicast_peers:
        return not set(one.unicast_peers).isdisjoint(other.unicast_peers)
    return one.multicast_group == other.multicast_group


def _refused(fields: Fields, message: str, hint: str) -> Rejected:
    fields.complain(Severity.ERROR, "name", f"vrrp_instance '{fields['name']}' {message}", hint)
    return Rejected()


def _notify(fields: Fields) -> VrrpNotify:
    kinds = ("master", "backup", "fault", "stop", "any")
    return VrrpNotify(**{kind: fields[f"notify_{kind}"] for kind in kinds if f"notify_{kind}" in fields})
