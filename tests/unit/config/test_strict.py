"""``vrrp_strict`` and ``accept``: each setting that the RFC does not have is reported and left out, as keepalived does."""

import pytest

from tests.unit.config.compiling import compiled, messages

STRICT = "global_defs {\nvrrp_strict\n}\n"


def result(body, head=STRICT, addresses="virtual_ipaddress {\n192.0.2.1\n}\n"):
    return compiled(f"{head}vrrp_instance V {{\ninterface eth0\nvirtual_router_id 1\n{addresses}{body}\n}}\n")


def instance(body, head=STRICT):
    (found,) = result(body, head).configuration.vrrp_instances
    return found


@pytest.mark.parametrize(
    ("body", "message", "field", "value"),
    [
        (
            "state MASTER\npriority 150",
            "in strict mode only a node with priority 255 is declared MASTER",
            "starts_as_master",
            False,
        ),
        (
            "authentication {\nauth_type PASS\nauth_pass x\n}",
            "strict mode has no authentication: adverts have none",
            "authentication",
            None,
        ),
        ("preempt_delay 5", "strict mode has no preempt_delay: ignored", "preempt_delay_s", 0.0),
        ("down_timer_adverts 5", "in strict mode three adverts may be missed: ignored", "down_timer_adverts", 3),
        ("lower_prio_no_advert off", "in strict mode adverts of lower priority are not answered", "lower_prio_no_advert", True),
        ("higher_prio_send_advert", "strict mode sends no more advert before giving way", "higher_prio_send_advert", False),
        ("accept", "VRRPv2 has no accept mode: in strict mode packets for the addresses are dropped", "accept", False),
    ],
)
def test_what_the_rfc_does_not_have_is_left_out(body, message, field, value):
    found = result(body)
    assert messages(found) == [f"warning: {message}"]
    assert getattr(found.configuration.vrrp_instances[0], field) == value


def test_bursts_after_a_lower_advert_are_left_out():
    garp = instance("").garp
    assert (garp.lower_prio_repeat, garp.lower_prio_delay_s, garp.repeat) == (0, 0.0, 5)
    found = result("garp_lower_prio_repeat 3\ngarp_lower_prio_delay 2")
    assert len(found.findings) == 2
    assert found.configuration.vrrp_instances[0].garp == garp


@pytest.mark.parametrize(
    ("body", "accepts"),
    [
        ("", False),
        ("priority 255", True),
        ("version 3", False),
        ("version 3\naccept", True),
        ("no_accept", False),
        ("priority 255\nno_accept", True),
    ],
)
def test_packets_for_the_addresses_in_strict_mode(body, accepts):
    assert instance(body).accept is accepts


@pytest.mark.parametrize(
    ("body", "accepts"), [("", True), ("no_accept", False), ("accept", True), ("no_accept\npriority 255", True)]
)
def test_packets_for_the_addresses_else(body, accepts):
    assert instance(body, "").accept is accepts


def test_an_instance_may_have_its_own_mode():
    assert instance("strict_mode off\npreempt_delay 3").preempt_delay_s == 3.0
    assert instance("strict_mode\nstate MASTER\npriority 5", "").starts_as_master is False


def test_unicast_peers_and_no_address_are_refused():
    found = result("unicast_peer {\n192.0.2.7\n}")
    assert found.configuration.vrrp_instances == ()
    assert messages(found)[-1].startswith("error: vrrp_instance 'V' has unicast peers in strict mode: left out")
    assert result("no_virtual_ipaddress", addresses="").configuration.vrrp_instances == ()
