"""Alerts reach the mail server in order and once, also after temporary failures."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine, Iterator
from pathlib import Path

import pytest
from aiosmtpd.smtp import SMTP

from relevo.alerts import outbox as outboxes
from relevo.alerts.message import Alert
from relevo.alerts.outbox import Outbox
from relevo.alerts.spool import Spool
from relevo.machines import mail_queue
from relevo.model import Endpoint
from tests.unit.alerts.smtp import (
    ADDRESS,
    Inbox,
    Log,
    authenticator,
    mail_server,
    no_password,
    outbox,
    scripted_server,
    server_tls,
    settings,
    until,
)
from tests.unit.probes.certificates import self_signed


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_queue, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(mail_queue, "LONGEST_RETRY_S", 0.2)


@pytest.fixture
def closed_port() -> Iterator[Endpoint]:
    """A port without a listener, until the test opens one."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ADDRESS, 0))
        yield Endpoint(*sock.getsockname())


def run(test: Coroutine[object, object, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20.0):
            await test

    asyncio.run(bounded())


def send(box: Outbox, *subjects: str) -> None:
    for subject in subjects:
        box.send(Alert(subject, f"body of {subject}"))


def labelled(*subjects: str) -> list[str]:
    return [f"[LVS_1] {subject}" for subject in subjects]


def on_disk(folder: Path) -> int:
    return len(list(folder.glob("*.eml")))


def test_mails_arrive_in_order_and_once_and_leave_the_disk(tmp_path: Path) -> None:
    async def test() -> None:
        inbox = Inbox()
        async with mail_server(inbox) as server:
            box, log = outbox(tmp_path, server)
            send(box, *"abcdefgh")
            assert on_disk(tmp_path) == 8
            await until(lambda: box.delivered == 8, "eight mails")
        assert inbox.subjects == labelled(*"abcdefgh")
        assert on_disk(tmp_path) == 0
        assert log.lines == [("SMTP alert successfully sent.", 6)] * 8
        assert (inbox.envelopes[0].mail_from, inbox.envelopes[0].rcpt_tos) == ("relevo@example.com", ["admin@example.com"])
        assert b"body of a\r\n" in inbox.raw[0]

    run(test())


def test_every_recipient_gets_the_mail_by_the_bare_address(tmp_path: Path) -> None:
    async def test() -> None:
        inbox = Inbox()
        async with mail_server(inbox) as server:
            people = ("admin@example.com", "Night Shift <night@example.com>")
            box, _ = outbox(
                tmp_path, server, recipients=people, sender="Relevo <relevo@example.com>", helo_name="director-1.test"
            )
            send(box, "a")
            await until(lambda: box.delivered, "a mail")
        assert inbox.envelopes[0].rcpt_tos == ["admin@example.com", "night@example.com"]
        assert inbox.envelopes[0].mail_from == "relevo@example.com"
        assert inbox.sessions[0].host_name == "director-1.test"

    run(test())


def test_a_body_of_dots_arrives_as_it_was(tmp_path: Path) -> None:
    async def test() -> None:
        inbox = Inbox()
        async with mail_server(inbox) as server:
            box, _ = outbox(tmp_path, server)
            box.send(Alert("dots", ".\n..\n.x\n.\nend"))
            send(box, "next")
            await until(lambda: box.delivered == 2, "two mails")
        assert inbox.raw[0].split(b"\r\n\r\n", 1)[1] == b".\r\n..\r\n.x\r\n.\r\nend\r\n"

    run(test())


def test_without_recipients_or_a_server_nothing_is_queued(tmp_path: Path) -> None:
    async def test() -> None:
        for box in (outbox(tmp_path, None)[0], outbox(tmp_path, Endpoint(ADDRESS, 1), recipients=())[0]):
            send(box, "a")
            assert len(box.machine) == 0
        assert on_disk(tmp_path) == 0

    run(test())


def test_mails_wait_for_a_server_that_is_down_and_keep_their_order(tmp_path: Path) -> None:
    with socket.socket() as placeholder:
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        placeholder.bind((ADDRESS, 0))
        port = placeholder.getsockname()[1]

        async def test() -> None:
            inbox = Inbox()
            box, log = outbox(tmp_path, Endpoint(ADDRESS, port))
            send(box, "a", "b")
            await until(lambda: box.machine.attempts >= 2, "attempts")
            send(box, "c")
            assert on_disk(tmp_path) == 3
            placeholder.close()
            async with mail_server(inbox, port):
                await until(lambda: box.delivered == 3, "three mails")
            assert inbox.subjects == labelled("a", "b", "c")
            postponed = [line for line, level in log.lines if level == 4]
            assert postponed[0].startswith("SMTP alert not sent (127.0.0.1:")
            assert postponed[0].endswith("trying again in 0.05 s, 2 waiting")

        run(test())


def test_a_server_that_is_busy_for_one_answer_gets_the_mail_once_and_first(tmp_path: Path) -> None:
    async def test() -> None:
        for stage in ("answers", "at_rcpt", "at_mail"):
            inbox = Inbox()
            setattr(inbox, stage, ["451 try again later"])
            async with mail_server(inbox) as server:
                box, log = outbox(tmp_path, server)
                send(box, "a", "b", "c")
                await until(lambda: box.delivered == 3, stage)  # noqa: B023
            assert inbox.subjects == labelled("a", "b", "c"), stage
            assert "451 try again later" in log.text

    run(test())


def test_a_mail_that_the_server_will_never_take_is_dropped_alone(tmp_path: Path) -> None:
    async def test() -> None:
        inbox = Inbox()
        inbox.by_subject = {"[LVS_1] b": "550 we do not like it"}
        async with mail_server(inbox) as server:
            box, log = outbox(tmp_path, server)
            send(box, "a", "b", "c")
            await until(lambda: box.delivered == 2, "two mails")
        assert inbox.subjects == labelled("a", "c")
        assert (box.delivered, box.dropped, on_disk(tmp_path)) == (2, 1, 0)
        assert ("SMTP alert dropped: 550 we do not like it", 4) in log.lines

    run(test())


@pytest.mark.parametrize("stage", ["at_mail", "at_rcpt"])
def test_an_address_that_the_server_will_never_take_drops_the_mail(tmp_path: Path, stage: str) -> None:
    async def test() -> None:
        inbox = Inbox()
        setattr(inbox, stage, ["550 no such user"])
        async with mail_server(inbox) as server:
            box, log = outbox(tmp_path, server)
            send(box, "a", "b")
            await until(lambda: box.delivered == 1, "the other mail")
        assert inbox.subjects == labelled("b")
        assert "550 no such user" in log.text

    run(test())


def test_one_recipient_refused_does_not_keep_the_others_from_their_mail(tmp_path: Path) -> None:
    async def test() -> None:
        inbox = Inbox()
        inbox.at_rcpt = ["550 no such user"]
        async with mail_server(inbox) as server:
            box, _ = outbox(tmp_path, server, recipients=("gone@example.com", "here@example.com"))
            send(box, "a")
            await until(lambda: box.delivered == 1, "a mail")
        assert inbox.envelopes[0].rcpt_tos == ["here@example.com"]

    run(test())


def test_a_new_run_sends_what_the_former_one_left_and_then_its_own(tmp_path: Path, closed_port: Endpoint) -> None:
    async def former() -> None:
        box, _ = outbox(tmp_path, closed_port)
        send(box, "a", "b")
        await until(lambda: box.machine.attempts, "an attempt")
        await box.flush(0.1)

    async def next_() -> None:
        inbox = Inbox()
        async with mail_server(inbox) as server:
            log = Log()
            box = Outbox(Spool(tmp_path), log, no_password)
            box.configure(settings(server), "LVS_1")
            box.recover()
            send(box, "c")
            await until(lambda: box.delivered == 3, "three mails")
            assert log.lines[0] == ("2 queued mails of a former run are sent now", 6)
        assert inbox.subjects == labelled("a", "b", "c")

    run(former())
    assert on_disk(tmp_path) == 2
    run(next_())
    assert on_disk(tmp_path) == 0


def test_a_queued_mail_that_vanished_from_the_disk_is_dropped_and_the_next_one_goes(
    tmp_path: Path, closed_port: Endpoint
) -> None:
    async def test() -> None:
        inbox = Inbox()
        box, log = outbox(tmp_path, closed_port)
        send(box, "a", "b")
        await until(lambda: box.machine.attempts, "an attempt")
        (tmp_path / "000000000001.eml").unlink()
        async with mail_server(inbox) as server:
            box.configure(settings(server), "LVS_1")
            await until(lambda: box.delivered == 1, "the other mail")
        assert inbox.subjects == labelled("b")
        assert "SMTP alert dropped" in log.text

    run(test())


def test_a_disk_error_is_logged_once_for_each_mail_and_the_mail_is_sent(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("in the way")

    async def test() -> None:
        inbox = Inbox()
        async with mail_server(inbox) as server:
            box, log = outbox(tmp_path / "mail", server)
            send(box, "a")
            assert [level for _, level in log.lines] == [4]
            assert log.text.endswith("the mail is kept in memory")
            await until(lambda: box.delivered == 1, "a mail")
        assert inbox.subjects == labelled("a")

    run(test())


def test_a_flush_sends_what_waits_for_its_time_now_and_gives_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_queue, "FIRST_RETRY_S", 30.0)
    monkeypatch.setattr(mail_queue, "LONGEST_RETRY_S", 30.0)

    async def test() -> None:
        inbox = Inbox()
        inbox.answers = ["451 not now"]
        async with mail_server(inbox) as server:
            box, _ = outbox(tmp_path, server)
            send(box, "a", "b")
            await until(lambda: box.machine.state.value == "waiting", "a refusal")
            await box.flush(5.0)
        assert inbox.subjects == labelled("a", "b")

        async with scripted_server(lambda reader, writer: asyncio.sleep(5.0)) as silent:
            box.configure(settings(silent), "LVS_1")
            send(box, "c")
            begun = asyncio.get_running_loop().time()
            await box.flush(0.2)
            assert asyncio.get_running_loop().time() - begun < 1.0
        assert on_disk(tmp_path) == 1

    run(test())


# -- servers that misbehave -----------------------------------------------------------------------------------------------


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(10.0)


async def at_once_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    return


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(range(256)) * 10 + b"\r\n")
    await asyncio.sleep(10.0)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"220-" + b"x" * 10_000)
        await writer.drain()


async def endless_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"220-more\r\n" * 1000)
        await writer.drain()


async def no_service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"554 no SMTP service here\r\n")
    await reader.read()


async def gone_at_data(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 hello\r\n")
    for answer in (b"250 mail.test", b"250 OK", b"250 OK", b"354 go on"):
        await reader.readline()
        writer.write(answer + b"\r\n")
    await reader.readline()


@pytest.mark.parametrize("serve", [silent, at_once_gone, garbage, endless, endless_lines, no_service, gone_at_data])
def test_a_server_that_misbehaves_postpones_the_mail(tmp_path: Path, serve: object) -> None:
    async def test() -> None:
        inbox = Inbox()
        async with scripted_server(serve) as bad:  # type: ignore[arg-type]
            box, log = outbox(tmp_path, bad, connect_timeout_s=0.3)
            send(box, "a", "b")
            await until(lambda: box.machine.attempts >= 2, "two attempts")
            assert (box.dropped, on_disk(tmp_path)) == (0, 2)
            assert "SMTP alert not sent (" in log.text
            async with mail_server(inbox) as good:
                box.configure(settings(good), "LVS_1")
                await until(lambda: box.delivered == 2, "two mails")
        assert inbox.subjects == labelled("a", "b")

    run(test())


def test_a_server_that_hangs_up_after_it_took_the_mail_gets_it_once(tmp_path: Path) -> None:
    taken: list[bytes] = []

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        for answer in (b"250 mail.test", b"250 OK", b"250 OK", b"354 go on"):
            await reader.readline()
            writer.write(answer + b"\r\n")
        taken.append(await reader.readuntil(b"\r\n.\r\n"))
        writer.write(b"250 OK\r\n")
        await writer.drain()

    async def test() -> None:
        async with scripted_server(rude) as server:
            box, _ = outbox(tmp_path, server)
            send(box, "a", "b")
            await until(lambda: box.delivered == 2, "two mails")
        assert len(taken) == 2

    run(test())


def test_a_host_that_has_no_address_postpones_the_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_such_host(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", no_such_host)

    async def test() -> None:
        box, log = outbox(tmp_path, Endpoint("mail.invalid", 25))
        send(box, "a")
        await until(lambda: box.machine.attempts >= 2, "two attempts")
        assert "Name or service not known" in log.text
        assert on_disk(tmp_path) == 1
        await box.flush(0.0)

    run(test())


def test_a_time_limit_is_named_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import aiosmtplib

    async def hang(self: object) -> None:
        await asyncio.sleep(10.0)

    monkeypatch.setattr(aiosmtplib.SMTP, "connect", hang)

    async def test() -> None:
        box, log = outbox(tmp_path, Endpoint(ADDRESS, 25), connect_timeout_s=0.02)
        send(box, "a")
        await until(lambda: box.machine.attempts, "an attempt")
        assert "SMTP alert not sent (127.0.0.1:25: no answer in time)" in log.text

    run(test())


# -- TLS and passwords ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return self_signed(Path(tmp_path_factory.mktemp("tls")))


@pytest.fixture
def trusted(certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The certificate, known to this machine as an authority's."""
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    return certificate


def test_a_mail_goes_through_starttls_and_a_password(tmp_path: Path, trusted: tuple[str, str]) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")

    async def test() -> None:
        inbox = Inbox()
        options = {"tls_context": server_tls(*trusted), "require_starttls": True}
        options |= {"authenticator": authenticator, "auth_required": True}
        async with mail_server(inbox, **options) as server:
            account = {"user": "relevo", "password_file": str(password)}
            box, log = outbox(tmp_path / "mail", server, security="starttls", **account)
            send(box, "a", "b")
            await until(lambda: box.delivered == 2, log.text)
        assert inbox.subjects == labelled("a", "b")
        assert inbox.sessions[0].ssl is not None
        assert inbox.sessions[0].authenticated

    run(test())


def test_a_mail_uses_tls_from_the_first_byte(tmp_path: Path, trusted: tuple[str, str]) -> None:
    async def test() -> None:
        inbox = Inbox()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: SMTP(inbox, hostname="mail.test", loop=loop), ADDRESS, 0, ssl=server_tls(*trusted)
        )
        async with server:
            box, _ = outbox(tmp_path, Endpoint(*server.sockets[0].getsockname()), security="tls")
            send(box, "a")
            await until(lambda: box.delivered == 1, "a mail")
        assert inbox.subjects == labelled("a")

    run(test())


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_server_with_an_untrusted_certificate_gets_no_mail(tmp_path: Path, certificate: tuple[str, str], security: str) -> None:
    async def test() -> None:
        inbox = Inbox()
        loop = asyncio.get_running_loop()
        tls = server_tls(*certificate)
        if security == "tls":
            server = await loop.create_server(lambda: SMTP(inbox, loop=loop), ADDRESS, 0, ssl=tls)
        else:
            server = await loop.create_server(lambda: SMTP(inbox, loop=loop, tls_context=tls), ADDRESS, 0)
        async with server:
            box, log = outbox(tmp_path, Endpoint(*server.sockets[0].getsockname()), security=security)
            send(box, "a")
            await until(lambda: box.machine.attempts, "an attempt")
            await box.flush(0.0)
        assert inbox.subjects == []
        assert on_disk(tmp_path) == 1
        assert "self-signed certificate" in log.text

    run(test())


def test_a_server_without_starttls_gets_no_mail_that_asked_for_it(tmp_path: Path) -> None:
    async def test() -> None:
        inbox = Inbox()
        async with mail_server(inbox) as server:
            box, _ = outbox(tmp_path, server, security="starttls")
            send(box, "a")
            await until(lambda: box.machine.attempts, "an attempt")
            await box.flush(0.0)
        assert inbox.subjects == []
        assert on_disk(tmp_path) == 1

    run(test())


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("password", ["wrong\n", None], ids=["wrong", "missing file"])
def test_a_password_that_is_not_right_postpones_and_never_shows(tmp_path: Path, password: str | None) -> None:
    file = tmp_path / "password"
    if password is not None:
        file.write_text(password)

    async def test() -> None:
        inbox = Inbox()
        options = {"authenticator": authenticator, "auth_required": True, "auth_require_tls": False}
        async with mail_server(inbox, **options) as server:
            box, log = outbox(tmp_path / "mail", server, user="relevo", password_file=str(file))
            send(box, "a")
            await until(lambda: box.machine.attempts, "an attempt")
            assert "wrong" not in log.text
            assert box.dropped == 0
            file.write_text("secret")  # the administrator puts it right
            await until(lambda: box.delivered == 1, "a mail")
        assert inbox.subjects == labelled("a")

    run(test())


def test_a_plain_session_with_a_server_that_offers_tls_stays_plain(tmp_path: Path, certificate: tuple[str, str]) -> None:
    async def test() -> None:
        inbox = Inbox()
        async with mail_server(inbox, tls_context=server_tls(*certificate)) as server:
            box, _ = outbox(tmp_path, server)
            send(box, "a")
            await until(lambda: box.delivered == 1, "a mail")
        assert inbox.sessions[0].ssl is None

    run(test())


def test_a_mail_queued_for_a_server_that_the_file_no_longer_names_is_dropped(tmp_path: Path, closed_port: Endpoint) -> None:
    async def test() -> None:
        box, log = outbox(tmp_path, closed_port)
        send(box, "a")
        await until(lambda: box.machine.attempts, "an attempt")
        box.configure(settings(None), "LVS_1")
        await until(lambda: box.dropped == 1, "the mail is dropped")
        assert "no smtp_server is configured any more" in log.text
        assert on_disk(tmp_path) == 0

    run(test())


def test_more_mails_than_the_queue_holds_are_refused_and_leave_the_disk(
    tmp_path: Path, closed_port: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_queue, "MAX_QUEUED", 3)

    async def test() -> None:
        box, log = outbox(tmp_path, closed_port)
        send(box, *"abcde")
        assert (len(box.machine), box.machine.refused, box.dropped, on_disk(tmp_path)) == (3, 2, 2, 3)
        assert "SMTP alert dropped: more than 3 mails are waiting" in log.text
        with contextlib.suppress(Exception):
            await box.flush(0.0)

    run(test())


def test_the_sender_and_the_label_default_to_this_host(tmp_path: Path) -> None:
    async def test() -> None:
        inbox = Inbox()
        async with mail_server(inbox) as server:
            box, _ = outbox(tmp_path, server, sender="")
            box.configure(settings(server, sender=""), "")
            send(box, "a")
            await until(lambda: box.delivered == 1, "a mail")
        assert inbox.subjects == [f"[{socket.gethostname()}] a"]
        assert inbox.envelopes[0].mail_from == f"relevo@{socket.gethostname()}"

    run(test())


def test_the_delivery_of_one_mail_returns_its_result(closed_port: Endpoint) -> None:
    async def test() -> None:
        outcome = await outboxes.deliver(b"", 7, settings(closed_port), "relevo@example.com", no_password)
        assert isinstance(outcome, mail_queue.Failed)
        assert (outcome.number, outcome.permanent) == (7, False)
        outcome = await outboxes.deliver(b"", 7, settings(None), "relevo@example.com", no_password)
        assert isinstance(outcome, mail_queue.Failed)
        assert outcome.permanent

    run(test())
