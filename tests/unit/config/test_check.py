"""What ``relevo check`` adds to the compiler's findings: how a file fits this machine and its data plane."""

import json
from ipaddress import ip_network
from pathlib import Path

import pytest
from click.testing import CliRunner

from relevo.cli.check import check

HEAD = "global_defs {\ndata_plane proxy\nenable_script_security\n%s\n}\n"
INSTANCE = "vrrp_instance %s {\ninterface %s\nvirtual_router_id %d\nvirtual_ipaddress {\n%s\n}\n%s\n}\n"
SERVICE = "virtual_server 192.0.2.1 %d {\nprotocol TCP\nlb_kind %s\nreal_server 10.0.0.1 %d {\n%s\n}\n}\n"


def found(tmp_path: Path, text: str, *options: str) -> list[dict]:
    file = tmp_path / "test.conf"
    file.write_text(text)
    return json.loads(CliRunner().invoke(check, ["-j", *options, str(file)]).stdout)


def places(findings: list[dict], text: str) -> list[tuple[str, str]]:
    """(the word that a finding points at, its message) of each finding."""
    lines = text.split("\n")
    return [(lines[f["line"] - 1][f["column"] - 1 :][: f["length"]], f["message"]) for f in findings]


@pytest.mark.parametrize(
    ("text", "word", "message"),
    [
        (INSTANCE % ("A", "nope0", 1, "10.0.0.1", ""), "nope0", "interface nope0 of vrrp_instance 'A' is not on this machine"),
        (
            INSTANCE % ("A", "lo", 1, "10.0.0.1\n10.0.0.2/24 brd + dev nope1", ""),
            "nope1",
            "interface nope1 of address 10.0.0.2/24 of vrrp_instance 'A' is not on this machine",
        ),
        (
            INSTANCE % ("A", "lo", 1, "10.0.0.1", "virtual_ipaddress_excluded {\n10.0.0.3 dev nope2\n}"),
            "nope2",
            "interface nope2 of address 10.0.0.3/32 of vrrp_instance 'A' is not on this machine",
        ),
        (
            INSTANCE % ("A", "lo", 1, "10.0.0.1", "track_interface {\nnope3 weight 5\n}"),
            "nope3",
            "interface nope3 of track_interface of vrrp_instance 'A' is not on this machine",
        ),
        (
            INSTANCE % ("A", "$IF", 1, "10.0.0.1", ""),
            "$IF",
            "vrrp_instance 'A': '$IF' contains a name that is not defined",
        ),
        (
            INSTANCE % ("A", "lo", 1, "10.0.0.1", "notify_fault /bin/true no-such-user"),
            "/bin/true",
            "notify_fault of vrrp_instance 'A' cannot run: user 'no-such-user' is not on this machine",
        ),
        (
            INSTANCE % ("A", "lo", 1, "10.0.0.1", "notify /bin/true root no-such-group"),
            "/bin/true",
            "notify of vrrp_instance 'A' cannot run: group 'no-such-group' is not on this machine",
        ),
        (
            INSTANCE % ("A", "lo", 1, "10.0.0.1", "notify_stop /nope/script"),
            "/nope/script",
            "notify_stop of vrrp_instance 'A' cannot run: /nope/script: No such file or directory",
        ),
        (
            "vrrp_script chk {\nscript /nope/check\n}\n" + INSTANCE % ("A", "lo", 1, "10.0.0.1", "track_script {\nchk\n}"),
            "/nope/check",
            "script of vrrp_script 'chk' cannot run: /nope/check: No such file or directory",
        ),
        (
            INSTANCE % ("A", "lo", 1, "10.0.0.1", "")
            + INSTANCE % ("B", "lo", 2, "10.0.0.2", "")
            + "vrrp_sync_group G {\ngroup {\nA\nB\n}\nnotify_fault /nope/fault\n}\n",
            "/nope/fault",
            "notify_fault of vrrp_sync_group 'G' cannot run: /nope/fault: No such file or directory",
        ),
    ],
)
def test_what_is_not_on_this_machine_is_named_where_it_stands(tmp_path, text, word, message):
    text = HEAD % "" + text
    offline = places(found(tmp_path, text, "--offline"), text)
    assert [each for each in places(found(tmp_path, text), text) if each not in offline] == [(word, message)]
    assert all("is not defined" in each[1] for each in offline)


@pytest.mark.parametrize(
    ("line", "word", "message"),
    [
        (
            "script_user no-such-user",
            "no-such-user",
            "user 'no-such-user' of script_user is not on this machine: scripts cannot run",
        ),
        ("lvs_sync_daemon nope9 A", "nope9", "interface nope9 of lvs_sync_daemon is not on this machine"),
    ],
)
def test_what_global_defs_name_is_looked_for(tmp_path, line, word, message):
    text = HEAD % line + INSTANCE % ("A", "lo", 1, "10.0.0.1", "")
    assert (word, message) in places(found(tmp_path, text), text)


def test_each_of_two_instances_on_a_missing_interface_has_its_own_place(tmp_path):
    text = HEAD % "" + INSTANCE % ("A", "nope0", 1, "10.0.0.1", "") + INSTANCE % ("B", "nope0", 2, "10.0.0.2", "")
    findings = found(tmp_path, text)
    assert [f["message"] for f in findings] == [
        f"interface nope0 of vrrp_instance '{name}' is not on this machine" for name in ("A", "B")
    ]
    assert [f["line"] for f in findings] == [7, 15]


def test_what_a_plane_cannot_do_is_named_at_the_service_that_asks_for_it(tmp_path):
    text = HEAD % "" + SERVICE % (80, "NAT", 80, "") + SERVICE % (81, "DR", 81, "") + SERVICE % (82, "TUN", 82, "")
    findings = found(tmp_path, text)
    assert [word for word, _ in places(findings, text)] == ["DR", "TUN"]
    assert all("cannot forward by" in f["message"] for f in findings)


def test_the_user_of_a_server_s_script_is_named_at_the_server(tmp_path):
    text = HEAD % "" + SERVICE % (80, "NAT", 80, "notify_up /bin/true no-such-user")
    (finding,) = found(tmp_path, text)
    assert finding["message"].startswith("notify_up of virtual_server '[192.0.2.1]:tcp:80' cannot run: user 'no-such-user'")
    assert finding["line"] == 9


def test_findings_in_an_included_file_name_the_including_file(tmp_path):
    (tmp_path / "more.conf").write_text(INSTANCE % ("A", "nope0", 1, "10.0.0.1", ""))
    (finding,) = found(tmp_path, HEAD % "" + "include more.conf\n")
    assert finding["file"] == str(tmp_path / "more.conf")
    assert finding["chain"] == [{"how": "included from", "file": str(tmp_path / "test.conf"), "line": 6}]


def test_the_place_in_an_included_file_is_rendered_with_its_includer(tmp_path):
    (tmp_path / "more.conf").write_text("vrrp_instanse X {\n}\n" + INSTANCE % ("A", "lo", 1, "10.0.0.1", ""))
    file = tmp_path / "test.conf"
    file.write_text("include more.conf\n")
    output = CliRunner().invoke(check, ["--offline", str(file)]).stderr
    assert f"      = included from {file}:1\n" in output


def test_a_server_beside_its_clients_is_named_where_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr("relevo.daemon.preflight.local_networks", lambda: [ip_network("192.0.2.0/24")])
    text = (HEAD % "").replace("proxy", "memory") + SERVICE % (80, "NAT", 80, "")
    text += (SERVICE % (81, "NAT", 81, "")).replace("10.0.0.1", "192.0.2.9")
    findings = [f for f in found(tmp_path, text) if "own network" in f["message"]]
    assert [word for word, _ in places(findings, text)] == ["192.0.2.9"]
    assert "192.0.2.9:81 is on the virtual server's own network 192.0.2.0/24" in findings[0]["message"]
