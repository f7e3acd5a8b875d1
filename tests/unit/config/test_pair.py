"""``peer_of``: the other node's file, in meaning and to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.config import Included, Severity, Surroundings, compile_text
from relevo.config.pair import other_name, peer_of
from relevo.observe.difference import differences

EXAMPLES = Path(__file__).parents[3] / "examples"
INSTANCE = "vrrp_instance V {{\n  interface eth0\n  virtual_router_id 1\n{}\n  virtual_ipaddress {{\n    10.0.0.1\n  }}\n}}\n"


def instance(text: str):
    (found,) = compile_text(text, "f").configuration.vrrp_instances
    return found


def messages(text: str) -> list[str]:
    return [finding.message for finding in peer_of(text, "f").findings.in_order()]


@pytest.mark.parametrize(
    ("one", "other"),
    [("article/master", "article/backup"), ("article/backup", "article/master"), ("tracked/master", "tracked/backup")],
)
def test_the_examples_are_pairs_to_the_letter(one, other):
    texts = [(EXAMPLES / f"{name}.conf").read_text() for name in (one, other)]
    assert differences(*(compile_text(text, "f").configuration for text in (peer_of(texts[0], "f").text, texts[1]))) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("state MASTER\npriority 150", (False, 100)),
        ("state BACKUP\npriority 100", (True, 150)),
        ("state MASTER", (False, 50)),
        ("", (False, 150)),
        ("priority 200", (False, 150)),
        ("state MASTER\npriority 255", (False, 205)),
        ("state MASTER\npriority 20", (False, 1)),
        ("state BACKUP\nnopreempt\npriority 150", (False, 100)),
        ("state BACKUP\npriority 90 # low", (True, 140)),
    ],
)
def test_roles_and_priorities_change_places(body, expected):
    found = instance(peer_of(INSTANCE.format(body), "f").text)
    assert (found.starts_as_master, found.priority) == expected


def test_unicast_addresses_change_places():
    text = INSTANCE.format("unicast_src_ip 10.0.0.2 # mine\nunicast_peer {\n10.0.0.3 # yours\n10.0.0.4\n}")
    made = peer_of(text, "f").text
    found = instance(made)
    assert (found.source_address, found.unicast_peers) == ("10.0.0.3", ("10.0.0.2", "10.0.0.4"))
    assert "10.0.0.3 # mine" in made, "comments stay"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("unicast_peer {\n10.0.0.3\n}", "without unicast_src_ip this node's address is not known"),
        ("unicast_src_ip 10.0.0.3\nunicast_peer {\n10.0.0.3\n}", "the first peer is this node itself"),
        ("mcast_src_ip 10.0.0.2", "mcast_src_ip is an address of this node: the peer has another one"),
    ],
)
def test_what_only_the_administrator_knows_is_said(body, message):
    assert messages(INSTANCE.format(body)) == [message]


def test_included_and_defined_lines_are_named_and_left_as_they_are():
    shared = INSTANCE.format("  include role")

    def reader(pattern, including):
        return [Included("role", "state MASTER\npriority 150\n")]

    made = peer_of(shared, "f", reader)
    assert made.text == shared
    assert len(made.findings) == 2
    assert messages("$P=150\n" + INSTANCE.format("priority $P")) == [
        "the peer needs '100' here, but the line is included or defined elsewhere"
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LVS_EXAMPLE_01", "LVS_EXAMPLE_02"), ("lb2", "lb1"), ("lb0", "lb1"), ("node10", "node9"), ("DIRECTOR_A", "DIRECTOR_B"),
        ("lb-master", "lb-backup"), ("LB_PRIMARY", "LB_SECONDARY"), ("gate", "gate-2"), ("", "-2"),
    ],
)  # fmt: skip
def test_the_other_node_has_another_name(name, expected):
    assert other_name(name) == expected


@given(st.text(max_size=30))
def test_a_name_is_never_kept(name):
    assert other_name(name) != name


def test_lines_of_one_node_alone_are_left_as_they_are():
    text = INSTANCE.format("@a priority 150\n@b priority 100\n@a unicast_src_ip 10.0.0.2\nunicast_peer {\n10.0.0.3\n}")
    made = peer_of(text, "f", surroundings=Surroundings(config_id="a"))
    assert "@a priority 150\n@b priority 100\n@a unicast_src_ip 10.0.0.2" in made.text
    assert [found.severity for found in made.findings.items] == [Severity.WARNING] * 2


WORDS = st.sampled_from(
    [
        "state",
        "MASTER",
        "priority",
        "150",
        "unicast_src_ip",
        "unicast_peer",
        "{",
        "}",
        "10.0.0.1",
        "peer",
        "\n",
        '"',
        "#",
        "$A",
        "$A=1",
    ]
)


@given(st.lists(WORDS, max_size=30).map(" ".join))
def test_no_text_raises(text):
    peer_of(f"vrrp_instance V {{\n{text}\n}}\n", "f")
