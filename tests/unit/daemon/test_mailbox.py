"""The mail process: started for an alert, without privileges, ended when nothing waits; an alert is lost by no death of it."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from relevo.alerts.message import Alert
from relevo.daemon import confinement, mailer
from relevo.daemon import mailbox as mailboxes
from relevo.daemon.mailbox import Mailbox
from relevo.machines import mail_queue
from relevo.model import Endpoint
from tests.unit.alerts.smtp import Inbox, Log, authenticator, mail_server, server_tls, settings, until
from tests.unit.probes.certificates import self_signed


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_queue, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(mail_queue, "LONGEST_RETRY_S", 0.2)
    monkeypatch.setattr(mailboxes, "RESTART_S", 0.05)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30.0):
            await test()

    asyncio.run(bounded())


def mailbox(folder: Path, server: Endpoint, **mail: object) -> tuple[Mailbox, Log]:
    log = Log()
    box = Mailbox(folder / "mail", log)
    box.configure(settings(server, **mail), "LVS_1")
    return box, log


def process_of(box: Mailbox) -> int:
    assert box._process is not None
    return box._process.pid


def test_alerts_arrive_in_order_and_the_process_ends_when_nothing_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailer, "IDLE_S", 0.1)

    async def test() -> None:
        inbox = Inbox()
        async with mail_server(inbox) as server:
            box, _ = mailbox(tmp_path, server)
            for subject in "abc":
                box.send(Alert(subject, "body"))
            await until(lambda: len(inbox.subjects) == 3 and box._process is None, "three mails, and the end of the process")
            assert inbox.subjects == ["[LVS_1] a", "[LVS_1] b", "[LVS_1] c"]
            assert os.listdir(tmp_path / "mail") == []
            box.send(Alert("d", "body"))
            await until(lambda: box.snapshot().delivered == 4, "a fourth, by another process")
            await box.flush(1.0)

    run(test)


def test_an_alert_whose_process_dies_is_sent_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve = mailer.serve

    def die(folder: Path, sock: Any) -> None:
        monkeypatch.setattr(mailer, "serve", serve)  # in the child alone
        os.kill(os.getpid(), 9)

    async def test() -> None:
        inbox = Inbox()
        async with mail_server(inbox) as server:
            box, log = mailbox(tmp_path, server)
            monkeypatch.setattr(mailer, "serve", die)
            box.send(Alert("a", "body"))
            monkeypatch.setattr(mailer, "serve", serve)
            await until(lambda: inbox.subjects == ["[LVS_1] a"], "the mail")
            assert "was ended by signal 9" in log.text
            await box.flush(1.0)

    run(test)


@pytest.mark.parametrize("data", [b"\xff" * 64, b"\0\0\0\1\xc1", b"\0\0\0\2\x93\1"])
def test_a_process_that_sends_what_is_no_message_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    serve = mailer.serve

    def lie(folder: Path, sock: Any) -> None:
        sock.sendall(data)
        time.sleep(60)

    async def test() -> None:
        inbox = Inbox()
        async with mail_server(inbox) as server:
            box, log = mailbox(tmp_path, server)
            monkeypatch.setattr(mailer, "serve", lie)
            box.send(Alert("a", "body"))
            monkeypatch.setattr(mailer, "serve", serve)
            await until(lambda: inbox.subjects == ["[LVS_1] a"], "the mail")
            assert "a message that is none" in log.text
            await box.flush(1.0)

    run(test)


def test_an_alert_of_a_process_that_died_is_sent_when_the_daemon_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve = mailer.serve
    monkeypatch.setattr(mailboxes, "RESTART_S", 3600.0)

    async def test() -> None:
        inbox = Inbox()
        async with mail_server(inbox) as server:
            box, _ = mailbox(tmp_path, server)
            monkeypatch.setattr(mailer, "serve", lambda folder, sock: os.kill(os.getpid(), 9))
            box.send(Alert("a", "body"))
            monkeypatch.setattr(mailer, "serve", serve)
            await until(lambda: box._process is None, "the death of the process")
            await box.flush(10.0)
            assert inbox.subjects == ["[LVS_1] a"]

    run(test)


def test_alerts_without_end_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailboxes, "MAX_UNSTORED", 3)

    async def test() -> None:
        box, log = mailbox(tmp_path, Endpoint("127.0.0.1", 9))
        monkeypatch.setattr(mailer, "serve", lambda folder, sock: time.sleep(60))
        for _ in range(10):
            box.send(Alert("a", "body"))
        assert (box.snapshot().waiting, box.snapshot().dropped) == (3, 7)
        assert log.text.count("SMTP alert dropped") == 1
        await box.flush(0.1)

    run(test)


def test_mails_on_disk_are_sent_after_a_crash_and_after_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        inbox = Inbox()
        inbox.answers = ["451 later"] * 3
        async with mail_server(inbox) as server:
            box, _ = mailbox(tmp_path, server)
            box.send(Alert("a", "body"))
            await until(lambda: box.snapshot().last_error != "", "a refusal")
            os.kill(process_of(box), 9)
            await until(lambda: box._process is None, "its end")
            inbox.answers.clear()
            await until(lambda: inbox.subjects == ["[LVS_1] a"], "the mail, by the next process")
            inbox.answers = ["451 later"] * 3
            box.send(Alert("b", "body"))
            await box.flush(0.2)
            inbox.answers.clear()
            later, _ = mailbox(tmp_path, server)
            later.recover()
            await until(lambda: inbox.subjects[1:] == ["[LVS_1] b"], "the mail of the former daemon")
            await later.flush(1.0)

    run(test)


def test_without_mails_on_disk_there_is_no_process(tmp_path: Path) -> None:
    async def test() -> None:
        box, _ = mailbox(tmp_path, Endpoint("127.0.0.1", 9))
        box.recover()
        assert box._process is None
        await box.flush(0.1)

    run(test)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")
def test_the_process_has_a_user_of_its_own_and_so_has_the_queue(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    async def test() -> None:
        box, _ = mailbox(tmp_path, Endpoint("127.0.0.1", 9))
        box.send(Alert("a", "body"))
        await until(lambda: box.snapshot().last_error != "", "a connection that is refused")
        number, _ = confinement.identity(confinement.MAIL)
        known = dict(line.split(":\t", 1) for line in Path(f"/proc/{process_of(box)}/status").read_text().splitlines())
        assert set(known["Uid"].split()) == set(known["Gid"].split()) == {str(number)}
        assert {known[name] for name in ("Groups", "CapPrm", "CapEff", "CapBnd")} <= {" ", "", "0" * 16}
        (mail,) = (tmp_path / "mail").iterdir()
        assert mail.stat().st_uid == number
        await box.flush(1.0)

    run(test)


def test_nothing_is_imported_without_privileges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python itself may be where only root can read. A name, TLS, a password: everything that a delivery can need."""
    confine = confinement.confine

    class Refuse:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
            raise ImportError(f"imported too late: {name}")

    def confine_and_import_nothing(*arguments: Any) -> list[str]:
        refused = confine(*arguments)
        sys.meta_path.insert(0, Refuse)  # type: ignore[arg-type]
        return refused

    monkeypatch.setattr(confinement, "confine", confine_and_import_nothing)
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is for its user alone
        Path(folder).chmod(0o755)
        certificate, key = self_signed(Path(folder))
        context = server_tls(certificate, key)
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        _deliver_with_everything(tmp_path, context)


def _deliver_with_everything(tmp_path: Path, context: ssl.SSLContext) -> None:
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)

    async def test() -> None:
        inbox = Inbox()
        tls = {"tls_context": context, "authenticator": authenticator, "auth_required": True}
        async with mail_server(inbox, **tls) as server:  # type: ignore[arg-type]
            account = {"user": "relevo", "password_file": str(tmp_path / "password"), "security": "starttls"}
            box, log = mailbox(tmp_path, Endpoint("localhost", server.port), **account)
            box.send(Alert("a", "body with ü"))
            await until(lambda: inbox.subjects or log.text, "the mail")
            assert inbox.subjects == ["[LVS_1] a"], log.text
            await box.flush(1.0)

    run(test)
