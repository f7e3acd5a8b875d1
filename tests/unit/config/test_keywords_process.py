"""Processes, pipes and the firewall in ``global_defs``, and what is outside any block."""

import pytest

from relevo.model import GlobalDefs, Script
from relevo.model.configuration import Firewall
from relevo.model.process import NotifyFifo, NotifyFifos, Processes, ProcessSettings
from tests.unit.config.compiling import INSTANCE, compiled, messages, out_of_range, with_globals


def declared(body: str, outside: str = "") -> GlobalDefs:
    result = compiled(f"{outside}\nglobal_defs {{\nenable_script_security\n{body}\n}}\n{INSTANCE}")
    assert messages(result) == []
    return result.configuration.global_defs


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("vrrp_priority -20", {"nice": -20}),
        ("vrrp_rt_priority 99", {"realtime_priority": 99}),
        ("vrrp_rlimit_rttime 10000", {"realtime_limit_us": 10_000}),
        ("vrrp_no_swap", {"no_swap": True}),
        ("vrrp_cpu_affinity 3 0 3", {"cpus": (3, 0)}),
        ("vrrp_process_name vrrp", {"name": "vrrp"}),
    ],
)
def test_the_settings_of_a_worker(line, changes):
    assert declared(line).processes == Processes(director=ProcessSettings(**changes))
    assert declared(line.replace("vrrp_", "checker_")).processes == Processes(balancer=ProcessSettings(**changes))


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ("process_name main", "name", "main"),
        ("umask 022", "umask", 0o22),
        ("umask 18", "umask", 18),
        ("umask 0x12", "umask", 0o22),
        ("umask IWGRP | IWOTH", "umask", 0o22),
        ("umask IWGRP|IRWXO", "umask", 0o27),
        ('startup_script "/a b"', "startup_script", Script(("/a", "b"))),
        ("startup_script /a root", "startup_script", Script(("/a",), "root")),
        ("startup_script_timeout 30", "startup_script_timeout_s", 30.0),
        ("shutdown_script /z", "shutdown_script", Script(("/z",))),
        ("shutdown_script_timeout 1", "shutdown_script_timeout_s", 1.0),
        ("set_supplementary_groups", "supplementary_groups", True),
    ],
)
def test_the_daemon_itself(body, field, value):
    assert getattr(declared(body).processes, field) == value


@pytest.mark.parametrize(
    ("outside", "field", "value"),
    [("net_namespace blue", "net_namespace", "blue"), ("child_wait_time 0.5", "child_wait_time_s", 0.5)],
)
def test_outside_any_block(outside, field, value):
    assert getattr(declared("", outside).processes, field) == value


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("notify_fifo /a", NotifyFifos(everything=NotifyFifo(path="/a"))),
        ("vrrp_notify_fifo /a u g", NotifyFifos(vrrp=NotifyFifo(path="/a", user="u", group="g"))),
        (
            'lvs_notify_fifo /a\nlvs_notify_fifo_script "/r x" u',
            NotifyFifos(services=NotifyFifo(path="/a", script=Script(("/r", "x"), "u"))),
        ),
        ("fifo_write_vrrp_states_on_reload", NotifyFifos(states_on_reload=True)),
    ],
)
def test_pipes(body, expected):
    assert declared(body).fifos == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", Firewall()),
        ("nftables", Firewall("keepalived")),
        ("nftables x\nnftables_priority 5\nnftables_counters", Firewall("x", 5, True)),
    ],
)
def test_the_firewall(body, expected):
    assert declared(body).firewall == expected


@pytest.mark.parametrize(
    "line", ["vrrp_priority 20", "vrrp_rlimit_rttime 0", "vrrp_cpu_affinity 9000", "umask 01000", "startup_script_timeout 0"]
)
def test_what_is_out_of_range(line):
    assert out_of_range(with_globals(line))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("umask IWALL", "error: 'IWALL' is no part of a mask"),
        ("notify_fifo here", "error: 'here' is not a full path"),
        ("notify_fifo_script /r", "error: notify_fifo_script without notify_fifo: ignored"),
        ("notify_fifo /a\nvrrp_notify_fifo /a", "error: pipe /a is named twice: vrrp_notify_fifo is ignored"),
        ("process_name much-too-long-a-name", "warning: 'much-too-long-a-name' is cut to 15 characters"),
        (
            "enable_dbus",
            "note: 'enable_dbus' has no effect here: there is no D-Bus interface; use relevo status -j and notify scripts",
        ),
        ("reload_file reading", "warning: 'reading' is not a full path: /reading is used, as in keepalived"),
        ("disable_local_igmp", "warning: 'disable_local_igmp' comes with a later version: it is ignored"),
    ],
)
def test_findings(body, message):
    assert message in messages(with_globals(body))
