"""Which mails and scripts follow which event."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from relevo.alerts.dispatch import Dispatcher
from relevo.alerts.message import Alert
from relevo.model import (
    Configuration,
    Endpoint,
    GlobalDefs,
    Mail,
    Protocol,
    RealServer,
    Script,
    SyncGroup,
    VirtualServer,
    VrrpInstance,
    VrrpNotify,
)

SERVICE, A, B = "[192.0.2.10]:tcp:80", "[10.0.0.1]:tcp:80", "[10.0.0.2]:tcp:80"


class Box:
    """Replaces the outbox."""

    def __init__(self) -> None:
        self.sent: list[Alert] = []
        self.configured: list[tuple[Mail, str]] = []

    def configure(self, mail: Mail, router_id: str) -> None:
        self.configured.append((mail, router_id))

    def send(self, alert: Alert) -> None:
        self.sent.append(alert)


class Runner:
    """Replaces the notifier."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.configured: list[GlobalDefs] = []

    def configure(self, global_defs: GlobalDefs) -> None:
        self.configured.append(global_defs)

    def run(self, script: Script | None, *arguments: str) -> None:
        if script is not None:
            self.ran.append(" ".join((*script.argv, *arguments)))


class Pipes:
    """Replaces the pipes for events."""

    repeats_states = True

    def __init__(self) -> None:
        self.lines: list[str] = []

    def vrrp(self, kind: str, name: str, what: str, priority: int) -> None:
        self.lines.append(f"{kind} {name} {what} {priority}")

    def services(self, line: str) -> None:
        self.lines.append(line)


def scripts(prefix: str) -> VrrpNotify:
    names = ("master", "backup", "fault", "stop", "any")
    return VrrpNotify(**{name: Script((f"{prefix}-{name}",)) for name in names})


def configuration(**globals_: Any) -> Configuration:
    server = {"notify_up": Script(("up", "own")), "notify_down": Script(("down",))}
    return Configuration(
        global_defs=GlobalDefs(router_id="R", **globals_),
        vrrp_instances=(
            VrrpInstance(name="VI_1", interface="eth0", virtual_router_id=1, smtp_alert=True, notify=scripts("i")),
            VrrpInstance(name="QUIET", interface="eth0", virtual_router_id=2),
        ),
        sync_groups=(
            SyncGroup(name="VG_1", members=("VI_1", "QUIET"), smtp_alert=True, notify=scripts("g")),
            SyncGroup(name="SILENT", members=("VI_1",)),
        ),
        virtual_servers=(
            VirtualServer(
                endpoint=Endpoint("192.0.2.10", 80),
                protocol=Protocol.TCP,
                smtp_alert=True,
                quorum=2,
                hysteresis=1,
                quorum_up=Script(("quorum-up",)),
                quorum_down=Script(("quorum-down",)),
                real_servers=(
                    RealServer(endpoint=Endpoint("10.0.0.1", 80), **server),
                    RealServer(endpoint=Endpoint("10.0.0.2", 80), smtp_alert=False, **server),
                ),
            ),
            VirtualServer(endpoint=Endpoint("192.0.2.11", 53), protocol=Protocol.UDP),
        ),
    )


class Office:
    """A dispatcher with a fake outbox and notifier."""

    def __init__(self, **globals_: Any) -> None:
        self.box, self.runner = Box(), Runner()
        self.pipes = Pipes()
        self.dispatcher = Dispatcher(self.box, self.runner, self.pipes)  # type: ignore[arg-type]
        self.dispatcher.configure(configuration(**globals_))

    def alerts(self) -> tuple[list[str], list[str]]:
        """Subjects and scripts since the last time."""
        found = [alert.subject for alert in self.box.sent], self.runner.ran
        self.box.sent, self.runner.ran = [], []
        return found


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.mark.parametrize(
    ("state", "subject"),
    [
        ("MASTER", "Entering MASTER state"),
        ("BACKUP", "Entering BACKUP state"),
        ("FAULT", "Entering FAULT state"),
        ("STOP", "Stopping"),
    ],
)
def test_a_transition_mails_and_runs_its_own_script_and_then_the_one_for_any(office: Office, state: str, subject: str) -> None:
    assert office.dispatcher.instance("VI_1", state, 150, "because")
    expected = [f"i-{state.lower()}", f"i-any INSTANCE VI_1 {state} 150"]
    assert office.alerts() == ([f"VRRP Instance VI_1 - {subject}"], expected)
    office.dispatcher.group("VG_1", state)
    assert office.alerts() == ([f"VRRP Group VG_1 - {subject}"], [f"g-{state.lower()}", f"g-any GROUP VG_1 {state} 0"])


def test_the_reason_is_in_the_mail(office: Office) -> None:
    office.dispatcher.instance("VI_1", "FAULT", 150, "eth0 is down")
    assert office.box.sent[0].body.endswith("Reason: eth0 is down")


def test_a_repeated_state_is_not_alerted_again(office: Office) -> None:
    assert office.dispatcher.instance("VI_1", "MASTER", 150, "")
    office.alerts()
    assert not office.dispatcher.instance("VI_1", "MASTER", 150, "worker restarted")
    office.dispatcher.group("VG_1", "MASTER")
    office.alerts()
    office.dispatcher.group("VG_1", "MASTER")
    assert office.alerts() == ([], [])


def test_every_transition_is_alerted_also_through_fault(office: Office) -> None:
    states = ["BACKUP", "FAULT", "BACKUP", "MASTER", "FAULT", "MASTER", "BACKUP", "STOP"]
    for state in states:
        assert office.dispatcher.instance("VI_1", state, 100, "")
    subjects, _ = office.alerts()
    assert [subject.removeprefix("VRRP Instance VI_1 - ") for subject in subjects] == [
        "Stopping" if state == "STOP" else f"Entering {state} state" for state in states
    ]


def test_no_email_faults_omits_only_the_mail_of_the_fault() -> None:
    office = Office(no_email_faults=True)
    for state in ("BACKUP", "FAULT", "BACKUP"):
        office.dispatcher.instance("VI_1", state, 100, "")
        office.dispatcher.group("VG_1", state)
    subjects, ran = office.alerts()
    assert subjects == [f"VRRP {kind} - Entering BACKUP state" for kind in ("Instance VI_1", "Group VG_1")] * 2
    assert "i-fault" in ran
    assert "g-fault" in ran


def test_objects_without_smtp_alert_send_no_mail_and_unknown_ones_are_ignored(office: Office) -> None:
    assert office.dispatcher.instance("QUIET", "MASTER", 100, "")
    assert office.dispatcher.instance("UNKNOWN", "MASTER", 100, "")
    office.dispatcher.group("SILENT", "MASTER")
    office.dispatcher.group("UNKNOWN", "MASTER")
    office.dispatcher.server(SERVICE, "[10.9.9.9]:tcp:80", True, True, "TCP_CHECK", "")
    office.dispatcher.server("[192.0.2.99]:tcp:80", A, True, True, "TCP_CHECK", "")
    office.dispatcher.quorum("[192.0.2.99]:tcp:80", True, 1)
    office.dispatcher.quorum("[192.0.2.11]:udp:53", False, 0)
    office.dispatcher.shutdown((("[192.0.2.99]:tcp:80", A),))
    assert office.alerts() == ([], [])


def test_a_server_that_leaves_or_returns_is_mailed_and_runs_its_script(office: Office) -> None:
    office.dispatcher.server(SERVICE, A, False, True, "HTTP_GET", "connection refused")
    assert office.box.sent[0].body == "=> HTTP GET failed on service <=\n\nReason: connection refused"
    assert office.alerts() == ([f"Realserver {A} of virtual server {SERVICE} - DOWN"], ["down"])
    office.dispatcher.server(SERVICE, A, True, True, "HTTP_GET", "")
    assert office.alerts() == ([f"Realserver {A} of virtual server {SERVICE} - UP"], ["up own"])


def test_a_server_that_wants_no_mail_still_runs_its_script(office: Office) -> None:
    office.dispatcher.server(SERVICE, B, False, True, "TCP_CHECK", "")
    assert office.alerts() == ([], ["down"])


def test_a_check_without_a_transition_is_mailed_unless_no_checker_emails_is_set(office: Office) -> None:
    office.dispatcher.server(SERVICE, A, False, False, "TCP_CHECK", "")
    assert office.alerts() == ([f"Realserver {A} of virtual server {SERVICE} - DOWN"], [])
    strict = Office(no_checker_emails=True)
    strict.dispatcher.server(SERVICE, A, False, False, "TCP_CHECK", "")
    assert strict.alerts() == ([], [])
    strict.dispatcher.server(SERVICE, A, False, True, "TCP_CHECK", "")
    assert strict.alerts() == ([f"Realserver {A} of virtual server {SERVICE} - DOWN"], ["down"])


def test_a_quorum_gained_or_lost_is_mailed_and_runs_its_script(office: Office) -> None:
    office.dispatcher.quorum(SERVICE, True, 3)
    office.dispatcher.quorum(SERVICE, False, 0)
    bodies = [alert.body for alert in office.box.sent]
    assert bodies == ["=> Gained quorum 2+1=3 <= 3 <=", "=> Lost quorum 2-1=1 > 0 <="]
    assert office.alerts() == ([f"Virtualserver {SERVICE} - UP", f"Virtualserver {SERVICE} - DOWN"], ["quorum-up", "quorum-down"])


def test_a_shutdown_alerts_every_server_of_an_omega_service(office: Office) -> None:
    office.dispatcher.shutdown(((SERVICE, A), (SERVICE, B)))
    assert office.box.sent[0].body == "=> shutdown failed on service <=\n\nReason: the director is stopping"
    assert office.alerts() == ([f"Realserver {A} of virtual server {SERVICE} - DOWN"], ["down", "down"])


def test_a_reload_keeps_the_last_states_and_uses_the_new_scripts(office: Office) -> None:
    office.dispatcher.instance("VI_1", "MASTER", 150, "")
    office.alerts()
    new = configuration()
    first = msgspec.structs.replace(new.vrrp_instances[0], notify=scripts("new"), smtp_alert=False)
    office.dispatcher.configure(msgspec.structs.replace(new, vrrp_instances=(first,)))
    assert not office.dispatcher.instance("VI_1", "MASTER", 150, "")
    assert office.dispatcher.instance("VI_1", "BACKUP", 90, "")
    assert office.alerts() == ([], ["new-backup", "new-any INSTANCE VI_1 BACKUP 90"])
    assert office.box.configured[-1] == (Mail(), "R")
    assert office.runner.configured[-1].router_id == "R"


# -- pipes, and what is no transition -----------------------------------------------------------------------------------


def test_every_event_is_a_line_of_the_pipe(office: Office) -> None:
    office.dispatcher.instance("VI_1", "MASTER", 150, "")
    office.dispatcher.group("VG_1", "MASTER")
    office.dispatcher.server(SERVICE, A, False, True, "TCP_CHECK", "refused")
    office.dispatcher.server(SERVICE, A, False, False, "HTTP_GET", "no transition")
    office.dispatcher.quorum(SERVICE, False, 0)
    office.dispatcher.notice("VI_1", "MASTER_PRIORITY", 120)
    office.dispatcher.shutdown(((SERVICE, B),))
    assert office.pipes.lines == [
        "INSTANCE VI_1 MASTER 150",
        "GROUP VG_1 MASTER 0",
        f"RS {A} {SERVICE} DOWN",
        f"VS {SERVICE} DOWN",
        "INSTANCE VI_1 MASTER_PRIORITY 120",
        f"RS {B} {SERVICE} DOWN",
    ]


def test_a_reload_may_repeat_the_states(office: Office) -> None:
    office.dispatcher.instance("VI_1", "MASTER", 150, "")
    office.dispatcher.group("VG_1", "MASTER")
    office.dispatcher.notice("VI_1", "MASTER_PRIORITY", 120)
    office.pipes.lines.clear()
    office.dispatcher.repeat_states()
    assert office.pipes.lines == ["INSTANCE VI_1 MASTER 120", "GROUP VG_1 MASTER 0"]


def test_an_advert_of_lower_priority_runs_its_script() -> None:
    office = Office()
    changed = configuration()
    notify = msgspec.structs.replace(changed.vrrp_instances[0].notify, lower_priority=Script(("lower",)))
    instance = msgspec.structs.replace(changed.vrrp_instances[0], notify=notify)
    office.dispatcher.configure(msgspec.structs.replace(changed, vrrp_instances=(instance,)))
    office.dispatcher.notice(instance.name, "MASTER_RX_LOWER_PRI", 150)
    assert office.alerts() == ([], ["lower"])
    assert office.pipes.lines == [f"INSTANCE {instance.name} MASTER_RX_LOWER_PRI 150"]


@pytest.mark.parametrize(("told", "state", "script"), [(False, "FAULT", "i-fault"), (True, "DELETED", "gone")])
def test_an_instance_that_a_reload_removes_is_in_fault_or_deleted(told: bool, state: str, script: str) -> None:
    office = Office()
    changed = configuration()
    notify = msgspec.structs.replace(changed.vrrp_instances[0].notify, deleted=Script(("gone",)))
    instance = msgspec.structs.replace(changed.vrrp_instances[0], notify=notify, notify_deleted=told)
    office.dispatcher.configure(msgspec.structs.replace(changed, vrrp_instances=(instance,)))
    office.dispatcher.configure(msgspec.structs.replace(changed, vrrp_instances=()))
    office.dispatcher.instance(instance.name, "DELETED", 150, "stopped")
    subjects, ran = office.alerts()
    assert ran == [script, f"i-any INSTANCE {instance.name} {state} 150"]
    assert subjects == [f"VRRP Instance {instance.name} - {'Deleted' if told else 'Entering FAULT state'}"]
