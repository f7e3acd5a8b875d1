"""Maps events to mails and notify scripts.

Every transition sends a mail, also those that keepalived omits: a state is compared with the last one *seen*, whether or not
that was mailed. A restarted worker that resumes its state changes nothing, and so sends none.
"""

from __future__ import annotations

from typing import Protocol

from relevo.alerts.fifo import Fifos
from relevo.alerts.message import Alert, quorum_alert, server_alert, vrrp_alert
from relevo.alerts.notify import Notifier
from relevo.model import Configuration, Mail, RealServer, VirtualServer, VrrpNotify


class Outbox(Protocol):
    """What sends mails."""

    def configure(self, mail: Mail, router_id: str) -> None:
        """Use these recipients and this server from now on."""
        ...

    def send(self, alert: Alert) -> None:
        """Queue an alert; without recipients or a server nothing happens, as in keepalived."""
        ...


class Dispatcher:
    """Holds the configuration and the last state of each instance and group."""

    def __init__(self, outbox: Outbox, notifier: Notifier, fifos: Fifos) -> None:
        self._outbox = outbox
        self._fifos = fifos
        self._notifier = notifier
        self._states: dict[tuple[str, str], str] = {}
        self._priorities: dict[str, int] = {}
        self._configuration = Configuration()
        self.configure(Configuration())

    def configure(self, configuration: Configuration) -> None:
        """Use this configuration from now on; known states stay.

        Objects that only the former configuration has are kept until the next reload, because their last events come later.
        """
        former, self._configuration = self._configuration, configuration
        both = (former, configuration)  # the later one counts
        self._instances = {i.name: i for each in both for i in each.vrrp_instances}
        self._groups = {g.name: g for each in both for g in each.sync_groups}
        self._services = {s.name: s for each in both for s in each.virtual_servers}
        self._servers = {
            (s.name, r.endpoint.formatted(s.protocol)): r for each in both for s in each.virtual_servers for r in s.real_servers
        }
        self._outbox.configure(configuration.global_defs.mail, configuration.global_defs.router_id)
        self._notifier.configure(configuration.global_defs)

    def repeat_states(self) -> None:
        """Write the states of all instances and groups to the pipes again, where a reload shall do so."""
        if self._fifos.repeats_states:
            for (kind, name), state in self._states.items():
                if name in (self._instances if kind == "INSTANCE" else self._groups):
                    self._fifos.vrrp(kind, name, state, self._priorities.get(name, 0) if kind == "INSTANCE" else 0)

    def instance(self, name: str, state: str, priority: int, reason: str) -> bool:
        """Alert a transition of a virtual router; return False if the state is the last one."""
        if not self._changed("INSTANCE", name, state):
            return False
        self._priorities[name] = priority
        instance = self._instances.get(name)
        if instance is not None:
            state = "FAULT" if state == "DELETED" and not instance.notify_deleted else state  # as in keepalived
            self._run(instance.notify, "INSTANCE", name, state, priority)
            if instance.smtp_alert and self._mails(state):
                self._outbox.send(vrrp_alert("Instance", name, state, reason))
        return True

    def notice(self, name: str, what: str, priority: int) -> None:
        """Pass on something that is no transition."""
        instance = self._instances.get(name)
        self._priorities[name] = priority
        self._fifos.vrrp("INSTANCE", name, what, priority)
        if instance is not None and what == "MASTER_RX_LOWER_PRI":
            self._notifier.run(instance.notify.lower_priority)

    def group(self, name: str, state: str) -> None:
        """Alert a transition of a sync group."""
        group = self._groups.get(name)
        if group is not None and self._changed("GROUP", name, state):
            self._run(group.notify, "GROUP", name, state, 0)
            if group.smtp_alert and self._mails(state):
                self._outbox.send(vrrp_alert("Group", name, state))

    def server(self, service: str, server: str, up: bool, transition: bool, check: str, reason: str) -> None:
        """Alert a change of a check; ``transition`` says whether the server entered or left service."""
        found = self._servers.get((service, server))
        if found is None:
            return
        if transition:
            self._fifos.services(f"RS {server} {service} {'UP' if up else 'DOWN'}")
            self._notifier.run(found.notify_up if up else found.notify_down)
        if self._mails_server(found) and (transition or not self._configuration.global_defs.no_checker_emails):
            self._outbox.send(server_alert(service, server, up, check, reason))

    def server_found(self, service: str, server: str) -> None:
        """Run the script of a server that is in service from the start, and tell the pipes; there is no mail."""
        found = self._servers.get((service, server))
        if found is not None:
            self._fifos.services(f"RS {server} {service} UP")
            self._notifier.run(found.notify_up)

    def quorum(self, service: str, up: bool, weight: int) -> None:
        """Alert a gained or lost quorum."""
        found: VirtualServer | None = self._services.get(service)
        if found is None:
            return
        self._fifos.services(f"VS {service} {'UP' if up else 'DOWN'}")
        self._notifier.run(found.quorum_up if up else found.quorum_down)
        if found.smtp_alert:
            self._outbox.send(quorum_alert(service, up, found.quorum, found.hysteresis, weight))

    def shutdown(self, servers: tuple[tuple[str, str], ...]) -> None:
        """Run the down-notifiers and mails of ``omega`` services when the daemon stops."""
        for service, server in servers:
            found = self._servers.get((service, server))
            if found is not None:
                self._fifos.services(f"RS {server} {service} DOWN")
                self._notifier.run(found.notify_down)
                if self._mails_server(found):
                    self._outbox.send(server_alert(service, server, False, "shutdown", "the director is stopping"))

    def _changed(self, kind: str, name: str, state: str) -> bool:
        former = self._states.get((kind, name))
        self._states[(kind, name)] = state
        return former != state

    def _mails(self, state: str) -> bool:
        return not (state == "FAULT" and self._configuration.global_defs.no_email_faults)

    @staticmethod
    def _mails_server(server: RealServer) -> bool:
        return server.smtp_alert

    def _run(self, notify: VrrpNotify, kind: str, name: str, state: str, priority: int) -> None:
        scripts = {"MASTER": notify.master, "BACKUP": notify.backup, "FAULT": notify.fault, "STOP": notify.stop}
        self._fifos.vrrp(kind, name, state, priority)
        self._notifier.run(notify.deleted if state == "DELETED" else scripts[state])
        self._notifier.run(notify.any, kind, name, state, str(priority))
