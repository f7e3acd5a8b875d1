"""What must agree in the files of a pair, and does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from relevo.config import Places, compile_text, render
from relevo.config.agreement import Node, look_at_pair

EXAMPLES = Path(__file__).parents[3] / "examples"

ONE = """\
global_defs {
router_id A
}
vrrp_instance VI_1 {
state MASTER
interface eth0
virtual_router_id 51
priority 150
authentication {
auth_type PASS
auth_pass hush
}
virtual_ipaddress {
192.0.2.10
}
}
virtual_server 192.0.2.10 80 {
protocol TCP
lb_algo rr
real_server 10.0.0.1 80 {
}
}
"""
OTHER = ONE.replace("router_id A", "router_id B").replace("state MASTER", "state BACKUP").replace("150", "100")


def node(file: str, text: str) -> Node:
    places = Places()
    return Node(file, compile_text(text, file, places=places), places)


def said(one: str, other: str) -> list[str]:
    findings = look_at_pair(node("one", one), node("other", other))
    return [f"{f.place.file}:{f.place.line}: {f.severity.value}: {f.message}" for f in findings.in_order()]


def changed(old: str, new: str, text: str = OTHER) -> str:
    assert old in text
    return text.replace(old, new, 1)


def test_files_that_agree_give_nothing() -> None:
    assert said(ONE, OTHER) == []


@pytest.mark.parametrize("name", ["article", "tracked"])
def test_the_examples_agree(name: str) -> None:
    one, other = (node(each, (EXAMPLES / name / each).read_text()) for each in ("master.conf", "backup.conf"))
    assert not list(look_at_pair(one, other))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "virtual_router_id 51",
            "virtual_router_id 52",
            "other:7: error: virtual_router_id of 'VI_1' is 52, and 51 at one:7: neither hears the other: both become master",
        ),
        (
            "auth_pass hush",
            "auth_pass rush",
            "other:9: error: auth_pass of 'VI_1' differs at one:9: adverts are dropped: both become master",
        ),
        (
            "priority 100",
            "priority 150",
            "other:8: warning: priority of 'VI_1' is 150 at one:8 too: the higher address becomes master",
        ),
        (
            "192.0.2.10\n}",
            "192.0.2.11\n}",
            "other:13: warning: virtual_ipaddress of 'VI_1' is 192.0.2.11, and 192.0.2.10 at one:13: "
            "after a takeover addresses are missing, or are there twice",
        ),
        (
            "state BACKUP",
            "state MASTER",
            "other:5: note: 'VI_1' is declared MASTER on both nodes: both take over at a start, until priority decides",
        ),
        ("router_id B", "router_id A", "other:2: note: both nodes have router_id 'A': mails do not tell which one sent them"),
        ("lb_algo rr", "lb_algo wlc", "other:19: warning: lb_algo of virtual server [192.0.2.10]:tcp:80 is wlc, and rr in one"),
        (
            "real_server 10.0.0.1",
            "real_server 10.0.0.2",
            "other:17: warning: virtual server [192.0.2.10]:tcp:80 has other real servers than in one",
        ),
    ],
)
def test_a_difference_is_said_at_its_line_in_the_second_file(old: str, new: str, expected: str) -> None:
    assert said(ONE, changed(old, new)) == [expected]


@pytest.mark.parametrize(("version", "severity"), [("", "error"), ("version 3\n", "warning")])
def test_intervals_must_agree_in_version_2_and_should_in_version_3(version: str, severity: str) -> None:
    v = f"interface eth0\n{version}"
    texts = (changed("interface eth0\n", v, ONE), changed("interface eth0\n", v + "advert_int 2\n"))
    found = said(*(text.replace("authentication {\nauth_type PASS\nauth_pass hush\n}\n", "") for text in texts))
    assert len(found) == 1
    assert f": {severity}: advert_int of 'VI_1' is 2 s, and 1 s at one" in found[0]


def test_two_owners_are_an_error_with_a_way_out() -> None:
    one, other = (
        node(file, changed(old, "priority 255", text))
        for file, old, text in (("one", "priority 150", ONE), ("other", "priority 100", OTHER))
    )
    (found,) = [each for each in look_at_pair(one, other) if each.keyword == "priority"]
    assert found.message == "priority of 'VI_1' is 255 at one:8 too: both own the addresses, and both are master"
    assert (found.severity.value, found.hint) == ("error", "give the node that shall be master a higher one")


def test_unicast_peers_must_be_each_other_s_sources() -> None:
    one = changed("priority 150", "priority 150\nunicast_src_ip 10.1.0.1\nunicast_peer {\n10.1.0.2\n}", ONE)
    other = changed("priority 100", "priority 100\nunicast_src_ip 10.1.0.2\nunicast_peer {\n10.1.0.9\n}")
    assert said(one, other) == ["other:10: error: unicast_peer of 'VI_1' does not list 10.1.0.1, the other node's unicast_src_ip"]
    (found,) = said(one, OTHER)
    assert "one sends unicast, one multicast" in found


def test_what_is_on_one_node_alone_is_said_there() -> None:
    service = OTHER[OTHER.index("virtual_server") :]
    assert said(ONE, OTHER.replace(service, "")) == [
        "one:17: warning: virtual server [192.0.2.10]:tcp:80 is not in other: after a takeover nobody serves it"
    ]
    assert said(ONE.replace(ONE[ONE.index("vrrp_instance") : ONE.index("virtual_server")], ""), OTHER) == [
        "other:4: warning: vrrp_instance 'VI_1' is not in one: no node takes it over"
    ]


def test_instances_of_other_names_belong_together_by_their_number() -> None:
    assert said(ONE, OTHER.replace("VI_1", "BACKUP_1")) == []


def test_synchronisation_must_agree() -> None:
    daemon = "global_defs {\nlvs_sync_daemon eth0 VI_1 id 5\n"
    assert "connections do not survive" in said(changed("global_defs {\n", daemon, ONE), OTHER)[0]
    both = changed("global_defs {\n", daemon, ONE), changed("global_defs {\n", daemon.replace("id 5", "id 6"))
    assert said(*both) == ["other:2: error: lvs_sync_daemon: sync_id is 6, and 5 in one: connections are not synchronised"]


def test_sync_groups_must_have_the_same_members() -> None:
    second = "vrrp_instance VI_2 {\ninterface eth0\nvirtual_router_id 52\npriority {}\nvirtual_ipaddress {\n192.0.2.12\n}\n}\n"
    group = "vrrp_sync_group G {\ngroup {\nVI_1\n}\n}\n"
    one = ONE + second.replace("{}", "150") + group
    other = OTHER + second.replace("{}", "100") + group.replace("VI_1\n", "VI_1\nVI_2\n")
    assert ["they do not fail over together" in each for each in said(one, other)] == [True]


def test_a_secret_is_not_shown() -> None:
    findings = look_at_pair(node("one", ONE), node("other", changed("auth_pass hush", "auth_pass rush")))
    text = "\n".join(render(finding, findings.sources) for finding in findings)
    assert "hush" not in text
    assert "rush" not in text
