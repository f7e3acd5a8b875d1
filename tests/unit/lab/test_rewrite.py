"""``rewrite`` changes what a stage needs, and nothing else; ``plan`` derives the machines."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from relevo.config import compile_text
from relevo.errors import LabError
from relevo.lab.rewrite import Changes, rewrite
from relevo.lab.stages import Loopback
from relevo.lab.topology import plan
from relevo.model import Configuration

EXAMPLES = Path(__file__).parents[3] / "examples"
MASTER = EXAMPLES / "article" / "master.conf"


def model(text: str) -> Configuration:
    return compile_text(text, "x.conf").configuration


def test_no_changes_leave_the_text_alone() -> None:
    assert rewrite(MASTER.read_text(), Changes()) == MASTER.read_text()


def test_the_loopback_stage_moves_addresses_and_ports_and_nothing_else() -> None:
    text = MASTER.read_text()
    stage = Loopback("a test")
    topology = stage.build(plan([(str(MASTER), model(text))]))
    changed = rewrite(text, stage.changes(topology, topology.directors[0]))
    before, after = model(text), model(changed)
    assert [s.endpoint.address for s in after.virtual_servers] == ["127.0.6.240"] * 2
    assert [s.endpoint.port for s in after.virtual_servers] == [8080, 8025]
    assert after.vrrp_instances[0].transport.udp_port == 3112
    for old, new in zip(before.virtual_servers, after.virtual_servers, strict=True):
        assert (old.scheduler, old.persistence_timeout_s, old.delay_loop_s) == (
            new.scheduler,
            new.persistence_timeout_s,
            new.delay_loop_s,
        )
        assert [r.weight for r in old.real_servers] == [r.weight for r in new.real_servers]
        assert all(check.connect.port == server.endpoint.port for server in new.real_servers for check in server.checks)


def test_the_loopback_stage_needs_no_interface_of_the_file() -> None:
    text = "vrrp_instance V {\ninterface nowhere0\nvirtual_router_id 1\n"
    text += "track_interface { nowhere1 }\nvirtual_ipaddress { 10.0.0.1 }\n}\n"
    changed = rewrite(text, Changes(interface="lo"))
    assert "nowhere" not in changed
    assert model(changed).vrrp_instances[0].interface == "lo"


def test_a_speed_up_divides_check_intervals_and_persistence() -> None:
    after = model(rewrite(MASTER.read_text(), Changes(speed_up=10)))
    assert [s.delay_loop_s for s in after.virtual_servers] == [3.0, 1.5]
    assert [s.persistence_timeout_s for s in after.virtual_servers] == [5, 5]


def test_words_on_one_line_are_changed_and_comments_are_not() -> None:
    text = "vrrp_instance V { interface eth0\nvirtual_router_id 1\nvirtual_ipaddress { 10.0.0.1/24 dev eth0 } # 10.0.0.1\n}\n"
    changed = rewrite(text, Changes(address=lambda a: "10.9.9.9", instance=("priority 77",)))
    assert "# 10.0.0.1" in changed
    found = model(changed).vrrp_instances[0]
    assert (found.addresses[0].address, found.addresses[0].prefix_length, found.priority) == ("10.9.9.9", 24, 77)


def test_the_article_needs_five_servers_and_a_client() -> None:
    files = [(str(MASTER), model(MASTER.read_text())), ("backup", model((EXAMPLES / "article" / "backup.conf").read_text()))]
    topology = plan(files)
    assert sorted(h.name for h in topology.servers) == ["mail-6", "mail-7", "sorry-2", "web-4", "web-5"]
    assert str(topology.lan) == "192.168.6.0/24"
    assert len({h.address for h in topology.hosts()}) == 8
    sorry = topology.server_at("192.168.6.2")
    assert [(s.kind, s.port) for s in sorry.services] == [("http", 80), ("smtp", 25)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("virtual_server 10.0.0.1 80 {\nprotocol TCP\nreal_server 172.16.0.1 80 {\n}\n}\n", "one LAN"),
        ("virtual_server 2001:db8::1 80 {\nprotocol TCP\nreal_server 2001:db8::2 80 {\n}\n}\n", "IPv4"),
    ],
)
def test_a_cluster_that_the_lab_cannot_build_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(LabError, match=why):
        plan([("x.conf", model(text))])


def test_a_model_survives_json() -> None:
    found = model(MASTER.read_text())
    assert msgspec.json.decode(msgspec.json.encode(found), type=Configuration) == found
