"""What ``relevo explain`` says about keywords and times."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from relevo.cli.explain import explain
from relevo.config import compile_text
from relevo.config.blocks.keepalived_keywords import KEEPALIVED_KEYWORDS
from relevo.config.reference import explain as entries_of
from relevo.observe.timers import timers

MASTER = Path(__file__).parents[3] / "examples" / "article" / "master.conf"


def run(*options: str):
    return CliRunner().invoke(explain, options)


def test_every_keyword_of_keepalived_is_explained_with_its_meaning_and_release():
    for word in {word for words in KEEPALIVED_KEYWORDS.values() for word in words}:
        found = entries_of(word)
        assert found, word
        assert all(entry.meaning for entry in found)
        assert any(entry.since for entry in found)


def test_blocks_in_which_a_keyword_is_the_same_are_named_together():
    out = run("delay_loop").output
    assert out.count("delay_loop N\n") == 3
    assert "where     in DNS_CHECK, HTTP_GET, SSL_GET, MISC_CHECK, PING_CHECK, SMTP_CHECK, host, TCP_CHECK, UDP_CHECK" in out
    assert "default   that of virtual_server.delay_loop, else 60" in out


def test_a_keyword_that_does_not_work_says_why():
    assert "standing  accepted, no effect here: " in run("enable_dbus").output


def test_an_unknown_keyword_gets_a_guess():
    found = run("priorty")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "did you mean priority" in found.stderr


def test_the_json_has_every_field():
    (entry,) = msgspec.json.decode(run("-j", "virtual_router_id").stdout)
    assert (entry["block"], entry["keyword"], entry["limits"]) == ("vrrp_instance", "virtual_router_id", "1..255")


@pytest.mark.parametrize(
    ("body", "crash", "stop"),
    [
        ("priority 150\nadvert_int 1", 3 + 106 / 256, 106 / 256),
        ("priority 100\nadvert_int 1", 3 + 156 / 256, 156 / 256),
        ("version 3\npriority 100\nadvert_int 0.1", 0.3 + 15.6 / 256, 15.6 / 256),
        ("priority 100\nadvert_int 2\ndown_timer_adverts 2", 4 + 156 / 256, 156 / 256),
    ],
)
def test_a_crash_is_noticed_after_the_master_down_interval(body, crash, stop):
    text = f"vrrp_instance V {{\ninterface eth0\nvirtual_router_id 1\n{body}\nvirtual_ipaddress {{\n10.0.0.1\n}}\n}}\n"
    (found,) = timers(compile_text(text, "f").configuration)
    times = {timer.what: timer.after_s for timer in found.timers}
    assert times["a crash of the master is noticed"] == pytest.approx(crash)
    assert times["a master that stops is replaced"] == pytest.approx(stop)


def test_the_slowest_check_of_a_virtual_server_counts():
    out = run("--timers", str(MASTER)).output
    assert "a crash of the master is noticed                within    3.41 s = 3 * advert_int 1 + skew time" in out
    assert "a server that is silent is removed (TCP_CHECK)  within   37.00 s" in out


def test_a_missing_file_is_an_error():
    found = run("--timers", "/nope/file")
    assert (found.exit_code, found.stdout) == (4, "")
