"""Mails, word for word: people filter on these subjects."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime
from email.message import EmailMessage

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from relevo import __version__
from relevo.alerts.compose import compose
from relevo.alerts.message import Alert, quorum_alert, server_alert, vrrp_alert
from relevo.config.blocks.global_defs import looks_like_address
from relevo.model import Mail

WHEN = datetime(2026, 11, 22, 12, 0, 1, tzinfo=UTC)
MAIL = Mail(recipients=("admin@example.com", "Night Shift <night@example.com>"))
SERVICE, SERVER = "[192.168.6.240]:tcp:80", "[192.168.6.4]:tcp:80"


def read(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def write(alert: Alert, router_id: str = "LVS_1", mail: Mail = MAIL, sender: str = "relevo@example.com") -> bytes:
    return compose(alert, mail, router_id, sender, WHEN, "<1@example.com>")


def test_a_mail_has_the_known_form() -> None:
    assert write(vrrp_alert("Instance", "VI_1", "MASTER", "no advert for 3.6 s")).decode() == (
        "Date: Sun, 22 Nov 2026 12:00:01 +0000\r\n"
        "From: relevo@example.com\r\n"
        "To: admin@example.com, Night Shift <night@example.com>\r\n"
        "Subject: [LVS_1] VRRP Instance VI_1 - Entering MASTER state\r\n"
        "Message-ID: <1@example.com>\r\n"
        f"X-Mailer: Relevo {__version__}\r\n"
        "Auto-Submitted: auto-generated\r\n"
        'Content-Type: text/plain; charset="utf-8"\r\n'
        "Content-Transfer-Encoding: 7bit\r\n"
        "MIME-Version: 1.0\r\n"
        "\r\n"
        "=> VRRP Instance is now owning VRRP VIPs <=\r\n"
        "\r\n"
        "Reason: no advert for 3.6 s\r\n"
    )


@pytest.mark.parametrize(
    ("alert", "subject", "body"),
    [
        (
            vrrp_alert("Instance", "VI_1", "MASTER"),
            "VRRP Instance VI_1 - Entering MASTER state",
            "=> VRRP Instance is now owning VRRP VIPs <=",
        ),
        (
            vrrp_alert("Instance", "VI_1", "BACKUP"),
            "VRRP Instance VI_1 - Entering BACKUP state",
            "=> VRRP Instance is no longer owning VRRP VIPs <=",
        ),
        (
            vrrp_alert("Instance", "VI_1", "FAULT", "eth0 is down"),
            "VRRP Instance VI_1 - Entering FAULT state",
            "=> VRRP Instance is in fault: no longer owning VRRP VIPs <=\n\nReason: eth0 is down",
        ),
        (vrrp_alert("Instance", "VI_1", "STOP"), "VRRP Instance VI_1 - Stopping", "=> VRRP Instance is stopping <="),
        (
            vrrp_alert("Group", "VG_1", "MASTER"),
            "VRRP Group VG_1 - Entering MASTER state",
            "=> VRRP Group is now owning VRRP VIPs <=",
        ),
        (vrrp_alert("Group", "VG_1", "STOP"), "VRRP Group VG_1 - Stopping", "=> VRRP Group is stopping <="),
        (
            server_alert(SERVICE, SERVER, True, "TCP_CHECK", ""),
            f"Realserver {SERVER} of virtual server {SERVICE} - UP",
            "=> TCP CHECK succeeded on service <=",
        ),
        (
            server_alert(SERVICE, SERVER, False, "HTTP_GET", "connection refused"),
            f"Realserver {SERVER} of virtual server {SERVICE} - DOWN",
            "=> HTTP GET failed on service <=\n\nReason: connection refused",
        ),
        (quorum_alert(SERVICE, True, 3, 1, 4), f"Virtualserver {SERVICE} - UP", "=> Gained quorum 3+1=4 <= 4 <="),
        (quorum_alert(SERVICE, False, 3, 1, 1), f"Virtualserver {SERVICE} - DOWN", "=> Lost quorum 3-1=2 > 1 <="),
    ],
    ids=lambda value: value if isinstance(value, str) and "\n" not in value else "",
)
def test_subjects_and_bodies_are_those_of_keepalived(alert: Alert, subject: str, body: str) -> None:
    assert alert == Alert(subject, body)
    message = read(write(alert))
    assert message["Subject"] == f"[LVS_1] {subject}"
    assert message.get_content().replace("\r\n", "\n") == body + "\n"


def test_a_long_subject_stays_on_one_line_for_filters_to_find() -> None:
    raw = write(vrrp_alert("Instance", "VI_" + "x" * 700, "MASTER"))
    assert b"Subject: [LVS_1] VRRP Instance VI_" + b"x" * 700 + b" - Entering MASTER state\r\n" in raw


def test_a_name_cannot_forge_a_header() -> None:
    raw = write(vrrp_alert("Instance", "VI\r\nBcc: victim@example.com\r\n\r\nbody", "MASTER"), router_id="a\nX-Evil: yes")
    message = read(raw)
    assert message["Bcc"] is None
    assert message["X-Evil"] is None
    assert message["Subject"] == "[a X-Evil: yes] VRRP Instance VI  Bcc: victim@example.com    body - Entering MASTER state"


HEADERS = ["Date", "From", "To", "Subject", "Message-ID", "X-Mailer", "Auto-Submitted"]
HEADERS += ["Content-Type", "Content-Transfer-Encoding", "MIME-Version"]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(NAMES, NAMES, NAMES)
@example("VI", "r", "ends with\r")
@example("VI\u2028x\x85y\x0bz", "\x1c\x1d\x1e", "\x00\x7f")
@example("\ud7ff" * 300, "é" * 200, ".\r\n.\r\n")
@example("a" * 2000, "b" * 2000, "c" * 5000)
def test_no_text_adds_a_header_or_a_line_that_is_too_long(name: str, router_id: str, reason: str) -> None:
    raw = write(vrrp_alert("Instance", name, "BACKUP", reason), router_id)
    message = read(raw)
    assert list(message.keys()) == HEADERS
    head, _, body = raw.partition(b"\r\n\r\n")
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r" not in head.replace(b"\r\n", b"")
    assert body


PART = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
NAME = st.text(st.characters(exclude_categories=["C"]), max_size=20)
ADDRESSES = st.one_of(st.builds("{}@{}".format, PART, PART), st.builds("{} <{}@{}>".format, NAME, PART, PART)).filter(
    looks_like_address
)


def check_addresses(recipients: list[str], sender: str) -> None:
    message = read(write(vrrp_alert("Instance", "VI", "MASTER"), mail=Mail(recipients=tuple(recipients)), sender=sender))
    assert message["Subject"] == "[LVS_1] VRRP Instance VI - Entering MASTER state"
    assert set(message.keys()) <= set(HEADERS)


@pytest.mark.parametrize(
    "address",
    ["root@localhost", "a.b+c@example.com", "Night <n@example.com>", "<n@example.com>", "é@ü.example", "a@b@c", "a" * 300 + "@b"],
)
def test_an_address_that_the_file_may_have_is_written(address: str) -> None:
    assert looks_like_address(address)
    check_addresses([address, "admin@example.com"], address)


@given(st.lists(ADDRESSES, min_size=1, max_size=3), ADDRESSES)
@example([".:@x"], "relevo@example.com")
@example(["\x1e<0@0"], "relevo@example.com")
@example(["admin@example.com"], ".:@x")
@example(["0@0", ": <0@0>"], "relevo@example.com")
@example(["0@0", '"a: b" <0@0>'], "relevo@example.com")
def test_no_address_that_the_file_may_have_breaks_the_mail(recipients: list[str], sender: str) -> None:
    assume(all(map(looks_like_address, (*recipients, sender))))
    check_addresses(recipients, sender)
