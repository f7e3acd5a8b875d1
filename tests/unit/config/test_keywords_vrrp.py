import msgspec
import pytest

from relevo.config import Severity
from relevo.model import (
    Authentication,
    AuthenticationType,
    GarpPolicy,
    Script,
    SyncDaemon,
    Tracked,
    TrackerKind,
    VirtualAddress,
    VrrpNotify,
    VrrpTransport,
)
from tests.unit.config.compiling import INSTANCE, SECURED, compiled, instance, messages, out_of_range, with_instance

A = VirtualAddress(address="192.0.2.1")


def link(name, weight=0, reverse=False):
    return Tracked(TrackerKind.INTERFACE, name, weight, reverse)


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ("interface eth7", "interface", "eth7"),
        ("virtual_router_id 255", "virtual_router_id", 255),
        ("priority 1", "priority", 1),
        ("", "priority", 100),
        ("state MASTER", "priority", 255),
        ("state MASTER", "starts_as_master", True),
        ("state MASTER\npriority 150", "priority", 150),
        ("state BACKUP", "starts_as_master", False),
        ("priority 255", "starts_as_master", True),
        ("version 3", "version", 3),
        ("advert_int 5", "advert_interval_s", 5.0),
        ("version 3\nadvert_int 0.25", "advert_interval_s", 0.25),
        ("unicast_src_ip 10.0.0.1", "source_address", "10.0.0.1"),
        ("mcast_src_ip 10.0.0.1", "source_address", "10.0.0.1"),
        ("mcast_dst_ip 224.0.0.99", "multicast_group", "224.0.0.99"),
        ("", "multicast_group", "224.0.0.18"),
        ("unicast_peer {\n10.0.0.2\n10.0.0.3\n10.0.0.2\n}", "unicast_peers", ("10.0.0.2", "10.0.0.3")),
        ("vrrp_transport ip", "transport", VrrpTransport(0)),
        ("nopreempt", "preempt", False),
        ("nopreempt\npreempt", "preempt", True),
        ("preempt_delay 1.5", "preempt_delay_s", 1.5),
        ("down_timer_adverts 100", "down_timer_adverts", 100),
        ("dont_track_primary", "track_primary", False),
        ("", "track_primary", True),
        ("lower_prio_no_advert", "lower_prio_no_advert", True),
        ("higher_prio_send_advert", "higher_prio_send_advert", True),
        ("skip_check_adv_addr", "skip_check_adv_addr", True),
        ("v3_checksum_as_v2", "checksum_with_pseudo_header", False),
        ("v3_checksum_as_v2 off", "checksum_with_pseudo_header", True),
        ("smtp_alert", "smtp_alert", True),
        ("", "smtp_alert", False),
        (
            "track_interface {\neth1\neth2 weight -253 reverse\n}\ntrack_interface {\neth3\n}",
            "tracked",
            (link("eth1"), link("eth2", -253, True), link("eth3")),
        ),
        (
            "authentication {\nauth_type PASS\nauth_pass 12345678\n}",
            "authentication",
            Authentication(AuthenticationType.PASS, "12345678"),
        ),
        (
            "notify_master /m\nnotify_backup /b\nnotify_fault /f\nnotify_stop /s\nnotify /n",
            "notify",
            VrrpNotify(
                master=Script(("/m",)), backup=Script(("/b",)), fault=Script(("/f",)), stop=Script(("/s",)), any=Script(("/n",))
            ),
        ),
    ],
)
def test_an_instance_holds(body, field, value):
    assert messages(with_instance(body, SECURED)) == []
    assert getattr(instance(body), field) == value


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("10.0.0.1", VirtualAddress(address="10.0.0.1")),
        ("10.0.0.1/0", VirtualAddress(address="10.0.0.1", prefix_length=0)),
        ("10.0.0.1/32", VirtualAddress(address="10.0.0.1")),
        ("10.0.0.1 dev eth1 label eth1:0", VirtualAddress(address="10.0.0.1", device="eth1", label="eth1:0")),
        (
            "10.0.0.1/24 scope link brd +",
            VirtualAddress(address="10.0.0.1", prefix_length=24, scope="link", broadcast="10.0.0.255"),
        ),
        ("10.0.0.9/30 brd +", VirtualAddress(address="10.0.0.9", prefix_length=30, broadcast="10.0.0.11")),
        ("10.0.0.9/30 brd -", VirtualAddress(address="10.0.0.9", prefix_length=30, broadcast="10.0.0.8")),
        ("10.0.0.1/0 brd +", VirtualAddress(address="10.0.0.1", prefix_length=0, broadcast="255.255.255.255")),
        ("10.0.0.1 scope 99", VirtualAddress(address="10.0.0.1", scope="99")),
        ("10.0.0.1 scope 253", VirtualAddress(address="10.0.0.1", scope="link")),
        ("10.0.0.1 scope 0", VirtualAddress(address="10.0.0.1", scope="global")),
        ("10.0.0.1 scope 255", VirtualAddress(address="10.0.0.1", scope="nowhere")),
        ("10.0.0.1 label fifteen-letters", VirtualAddress(address="10.0.0.1", label="fifteen-letters")),
        ("10.0.0.1 broadcast 10.0.0.255", VirtualAddress(address="10.0.0.1", broadcast="10.0.0.255")),
        ("2001:DB8::1", VirtualAddress(address="2001:db8::1", prefix_length=128, deprecated=True)),
        ("2001:DB8::1 preferred_lft forever", VirtualAddress(address="2001:db8::1", prefix_length=128)),
        ("2001:DB8::1/64 preferred_lft 0", VirtualAddress(address="2001:db8::1", prefix_length=64, deprecated=True)),
        (
            "2001:DB8::1/64 home mngtmpaddr noprefixroute autojoin home",
            VirtualAddress(address="2001:db8::1", prefix_length=64, options=("home", "mngtmpaddr", "noprefixroute", "autojoin")),
        ),
        ("10.0.0.1 noprefixroute", VirtualAddress(address="10.0.0.1", options=("noprefixroute",))),
        ("2001:DB8::1/64", VirtualAddress(address="2001:db8::1", prefix_length=64)),
    ],
)
def test_a_virtual_address_is_read(line, value):
    result = with_instance(f"virtual_ipaddress_excluded {{\n{line}\n}}")
    assert messages(result) == []
    assert result.configuration.vrrp_instances[0].excluded_addresses == (value,)


BARE = VirtualAddress(address="10.0.0.1")


@pytest.mark.parametrize(
    ("line", "reported", "value"),
    [
        ("10.0.0.1/", "warning: '/' without a length: /32 is used; keepalived takes it for /0", BARE),
        ("10.0.0.1/33", "error: '/33' is not a prefix length: /32 is used, as in keepalived", BARE),
        ("10.0.0.1/x", "error: '/x' is not a prefix length: /32 is used, as in keepalived", BARE),
        ("10.0.0.1/-1", "error: '/-1' is not a prefix length: /32 is used, as in keepalived", BARE),
        (
            "10.0.0.1/255.255.255.0",
            "error: '/255.255.255.0' is not a prefix length: /32 is used, as in keepalived",
            BARE,
        ),
        (
            "10.0.0.1 home",
            "warning: 'home' is for IPv6: ignored",
            VirtualAddress(address="10.0.0.1"),
        ),
        (
            "10.0.0.1 preferred_lft 0",
            "warning: preferred_lft is for IPv6: ignored",
            VirtualAddress(address="10.0.0.1"),
        ),
        (
            "2001:db8::1/64 preferred_lft 600",
            "warning: preferred_lft 600: an address that follows the master has no age: 'forever' is used",
            VirtualAddress(address="2001:db8::1", prefix_length=64),
        ),
        (
            "2001:db8::1/64 preferred_lft soon",
            "error: 'soon' is not a lifetime: ignored",
            VirtualAddress(address="2001:db8::1", prefix_length=64),
        ),
        (
            "2001:db8::1/129",
            "error: '/129' is not a prefix length: /128 is used, as in keepalived",
            VirtualAddress(address="2001:db8::1", prefix_length=128, deprecated=True),
        ),
        (
            "10.0.0.1 label sixteen-letters0",
            "warning: label 'sixteen-letters0' is too long: the address has none; keepalived leaves the address out",
            BARE,
        ),
        ("10.0.0.1 scope near", "error: 'near' is not a scope: ignored", BARE),
        ("10.0.0.1 scope 256", "error: '256' is not a scope: ignored", BARE),
        ("10.0.0.1 brd +", "warning: a /32 is too long for a broadcast address: there is none", BARE),
        (
            "10.0.0.1/31 brd -",
            "warning: a /31 is too long for a broadcast address: there is none",
            VirtualAddress(address="10.0.0.1", prefix_length=31),
        ),
        (
            "10.0.0.1 brd all",
            "error: 'all' is not a broadcast address: the address has none; keepalived leaves the address out",
            BARE,
        ),
        (
            "10.0.0.1 brd ::1",
            "error: '::1' is not a broadcast address: the address has none; keepalived leaves the address out",
            BARE,
        ),
        (
            "2001:db8::1/64 dev eth1 label x",
            "warning: label, scope and broadcast are for IPv4: ignored",
            VirtualAddress(address="2001:db8::1", prefix_length=64, device="eth1"),
        ),
        (
            "10.0.0.1 dev eth1 dev eth2",
            "warning: 'dev' is given already: the first one counts",
            VirtualAddress(address="10.0.0.1", device="eth1"),
        ),
    ],
)
def test_what_is_odd_about_an_address_is_reported_and_the_address_stays(line, reported, value):
    result = with_instance(f"virtual_ipaddress_excluded {{\n{line}\n}}")
    assert messages(result) == [reported]
    assert result.configuration.vrrp_instances[0].excluded_addresses == (value,)


@pytest.mark.parametrize(
    ("lines", "devices"),
    [
        ("10.0.0.1 dev eth1\n10.0.0.1 dev eth2", ["eth1", "eth2"]),
        ("10.0.0.1\n10.0.0.1 dev eth1", ["", "eth1"]),
        ("10.0.0.1 dev eth1\n10.0.0.1/24 dev eth1", ["eth1"]),
        ("10.0.0.1 dev eth0\n10.0.0.1", ["eth0"]),
    ],
)
def test_an_address_may_be_on_two_devices_but_not_twice_on_one(lines, devices):
    result = with_instance(f"virtual_ipaddress_excluded {{\n{lines}\n}}")
    assert [found.device for found in result.configuration.vrrp_instances[0].excluded_addresses] == devices
    count = len(lines.split("\n")) - len(devices)
    assert messages(result) == ["warning: address 10.0.0.1 is listed twice: the second is left out"] * count
    assert all(found.place.line == 9 for found in result.findings)


def test_an_address_is_not_both_advertised_and_excluded():
    result = with_instance("virtual_ipaddress_excluded {\n192.0.2.1\n}")
    assert messages(result) == ["warning: address 192.0.2.1 is listed twice: the second is left out"]
    assert result.configuration.vrrp_instances[0].excluded_addresses == ()


def test_lists_that_stand_twice_are_one_list():
    body = "virtual_ipaddress {\n192.0.2.2\n}\nunicast_peer {\n10.0.0.2\n}\nunicast_peer {\n10.0.0.3\n}"
    found = instance(body)
    assert [address.address for address in found.addresses] == ["192.0.2.1", "192.0.2.2"]
    assert found.unicast_peers == ("10.0.0.2", "10.0.0.3")


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("10.0.0.1 peer 10.0.0.2", "warning: option 'peer' is not supported by this version: ignored"),
        ("10.0.0.1 no_track", "warning: option 'no_track' is not supported by this version: ignored"),
        ("10.0.0.1 metric", "warning: unknown address option 'metric': ignored"),
    ],
)
def test_options_that_are_not_known_leave_the_address(line, reported):
    result = with_instance(f"virtual_ipaddress_excluded {{\n{line}\n}}")
    assert messages(result) == [reported]
    assert result.configuration.vrrp_instances[0].excluded_addresses == (VirtualAddress(address="10.0.0.1"),)


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("10.0.0/24", "error: '10.0.0' is not an IP address"),
        ("10.0.0.1 dev", "error: 'dev' needs an interface: left out"),
        ("10.0.0.1 peer", "error: 'peer' needs a value: left out"),
    ],
)
def test_an_address_that_cannot_be_used_is_left_out_and_its_neighbours_stand(line, reported):
    result = with_instance(f"virtual_ipaddress_excluded {{\n{line}\n10.9.9.9\n}}")
    assert messages(result) == [reported]
    assert result.configuration.vrrp_instances[0].excluded_addresses == (VirtualAddress(address="10.9.9.9"),)


def test_a_prefix_length_of_many_digits_is_reported_not_raised():
    assert instance(f"virtual_ipaddress_excluded {{\n10.0.0.1/{'9' * 5000}\n}}").excluded_addresses == (BARE,)


@pytest.mark.parametrize(
    ("body", "reported", "field", "value"),
    [
        ("state SLAVE", "error: unknown state 'SLAVE': BACKUP is used", "starts_as_master", False),
        ("state master", "error: unknown state 'master': BACKUP is used", "starts_as_master", False),
        ("priority 0", "error: 0 is out of range: 100 is used", "priority", 100),
        ("priority 256", "error: 256 is out of range: 100 is used", "priority", 100),
        ("state MASTER\npriority 300", "error: 300 is out of range: 100 is used", "priority", 100),
        ("priority 150x", "error: '150x' is not a priority: 100 is used", "priority", 100),
        (
            "state MASTER\nstate BACKUP",
            "warning: state is MASTER already: BACKUP is ignored, in keepalived too",
            "starts_as_master",
            True,
        ),
        (
            "version 3\nversion 2",
            "warning: 'version' is given already: the first one counts, in keepalived too",
            "version",
            3,
        ),
        (
            "unicast_src_ip 10.0.0.9/24",
            "warning: '/24' after the address 10.0.0.9 is ignored",
            "source_address",
            "10.0.0.9",
        ),
        (
            "unicast_peer {\n10.0.0.8/24\n}",
            "warning: '/24' after the address 10.0.0.8 is ignored",
            "unicast_peers",
            ("10.0.0.8",),
        ),
        (
            "unicast_peer 10.0.0.2",
            "error: 'unicast_peer' needs a block: without peers adverts go to the multicast group",
            "unicast_peers",
            (),
        ),
        (
            "unicast_peer {\nfd00::2\n10.0.0.2\n}",
            "error: peer fd00::2 is of another IP version than the addresses: left out",
            "unicast_peers",
            ("10.0.0.2",),
        ),
        (
            "unicast_src_ip fd00::1",
            "error: source fd00::1 is of another IP version than 192.0.2.1: ignored",
            "source_address",
            "",
        ),
        ("mcast_dst_ip 10.0.0.1", "error: '10.0.0.1' is not a multicast address", "multicast_group", "224.0.0.18"),
        (
            "skip_check_adv_addr off",
            "warning: 'skip_check_adv_addr off' is off here, but on in keepalived",
            "skip_check_adv_addr",
            False,
        ),
        (
            "nopreempt off",
            "warning: 'nopreempt' takes no argument: 'off' is ignored, in keepalived too",
            "preempt",
            False,
        ),
        (
            "dont_track_primary yes",
            "note: 'dont_track_primary' takes no argument: 'yes' is ignored, in keepalived too",
            "track_primary",
            False,
        ),
        (
            "authentication {\nauth_type PASS\nauth_pass x\n}\ngarp_master_repeat 0",
            "warning: a count of messages is at least 1: 1 is used",
            "garp",
            GarpPolicy(repeat=1),
        ),
        (
            "garp_master_refresh 1.5",
            "warning: '.5' after the number 1 is ignored",
            "garp",
            GarpPolicy(refresh_s=1),
        ),
        ("garp_master_refresh x", "error: 'x' is not an interval: 0 is used, as in keepalived", "garp", GarpPolicy()),
        (
            "interface sixteen-letters0",
            "error: 'sixteen-letters0' is no interface's name",
            "interface",
            "eth0",
        ),
        ("version 4", "error: 4 is out of range", "version", 2),
        ("advert_int 0", "error: 0 is out of range", "advert_interval_s", 1.0),
        ("advert_int 256", "error: 256 is out of range", "advert_interval_s", 1.0),
        ("advert_int 0.4", "warning: VRRPv2 cannot carry 0.4 s: 1 s is used", "advert_interval_s", 1.0),
        ("advert_int 1.5", "warning: VRRPv2 cannot carry 1.5 s: 2 s is used", "advert_interval_s", 2.0),
        ("advert_int 2.4", "warning: VRRPv2 cannot carry 2.4 s: 2 s is used", "advert_interval_s", 2.0),
        ("advert_int 0.256\nversion 3", "warning: VRRPv3 cannot carry 0.256 s: 0.26 s is used", "advert_interval_s", 0.26),
        ("advert_int 41\nversion 3", "warning: VRRPv3 cannot carry 41 s: 40.95 s is used", "advert_interval_s", 40.95),
        (
            "authentication {\nauth_type PASS\n}",
            "error: 'authentication' without auth_pass: adverts have none",
            "authentication",
            None,
        ),
        (
            "authentication {\nauth_pass x\n}",
            "error: 'authentication' without a valid auth_type: adverts have none",
            "authentication",
            None,
        ),
        (
            "authentication {\nauth_type PASS\nauth_pass éééééé\n}",
            "warning: only the first 8 bytes of auth_pass are used, as in keepalived",
            "authentication",
            Authentication(AuthenticationType.PASS, "éééééé"),
        ),
        (
            "version 3\nauthentication {\nauth_type AH\nauth_pass x\n}",
            "warning: VRRPv3 has no authentication: left out",
            "authentication",
            None,
        ),
        ("state MASTER\nnopreempt", "warning: nopreempt has no effect with state MASTER: ignored", "preempt", True),
        ("priority 255\nnopreempt", "warning: nopreempt has no effect with state MASTER: ignored", "preempt", True),
        (
            "state MASTER\npreempt_delay 5",
            "warning: preempt_delay has no effect with state MASTER or nopreempt: ignored",
            "preempt_delay_s",
            0.0,
        ),
        (
            "nopreempt\npreempt_delay 5",
            "warning: preempt_delay has no effect with state MASTER or nopreempt: ignored",
            "preempt_delay_s",
            0.0,
        ),
        ("unicast_peer {\nhost\n10.0.0.2\n}", "error: 'host' is not a peer's address", "unicast_peers", ("10.0.0.2",)),
        (
            "unicast_peer {\n10.0.0.1 ttl 3\n10.0.0.2\n}",
            "error: 'ttl' is not an option of a peer",
            "unicast_peers",
            ("10.0.0.1", "10.0.0.2"),
        ),
        (
            "track_interface {\neth1 wait 3\neth2\n}",
            "error: 'wait' is not an option of an interface: left out",
            "tracked",
            (link("eth2"),),
        ),
        (
            "track_interface {\neth1 weight 254\neth2\n}",
            "warning: a weight is at most 253 either way: 253 is used",
            "tracked",
            (link("eth1", 253), link("eth2")),
        ),
        (
            "track_interface {\neth1\neth1 weight 5\n}",
            "warning: eth1 is tracked already: the first line counts, in keepalived too",
            "tracked",
            (link("eth1"),),
        ),
        (
            "track_interface {\neth1 reverse\n}",
            "warning: 'reverse' without a weight before it: keepalived leaves the line out",
            "tracked",
            (link("eth1", 0, True),),
        ),
        ("track_interface eth1", "error: 'track_interface' needs a block", "tracked", ()),
        (
            "virtual_ipaddress {\n2001:db8::1\n}",
            "error: 1 addresses of the other IP version are left out",
            "addresses",
            (A,),
        ),
        (
            "virtual_ipaddress {\n192.0.2.1/24\n}",
            "warning: address 192.0.2.1 is listed twice: the second is left out",
            "addresses",
            (A,),
        ),
        (
            "lvs_sync_daemon_inteface eth0",
            "warning: 'lvs_sync_daemon_inteface' is a misprint that keepalived ignores; it is taken as it was meant",
            "name",
            "VI",
        ),
    ],
)
def test_what_is_odd_in_an_instance_is_reported_and_the_rest_stands(body, reported, field, value):
    result = with_instance(body)
    assert messages(result) == [reported]
    assert getattr(result.configuration.vrrp_instances[0], field) == value


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("vrrp_instance {\n}", "missing: 'vrrp_instance' needs a name"),
        ("vrrp_instance A", "error: 'vrrp_instance' needs a block"),
        ("vrrp_instance A {\ninterface eth0\n}", "error: vrrp_instance 'A' has no virtual_router_id: left out"),
        ("vrrp_instance A {\nvirtual_router_id 9\n}", "error: vrrp_instance 'A' has no interface: left out"),
        (
            "vrrp_instance A {\ninterface eth0\nvirtual_router_id 9\nvrrp_transport udp 1\nunicast_src_ip 10.0.0.1\n}",
            "error: vrrp_instance 'A' uses UDP without unicast_src_ip and unicast_peer: left out",
        ),
        (
            "vrrp_instance A {\ninterface eth0\nvirtual_router_id 9\nvrrp_transport udp 1\nunicast_peer {\n10.0.0.2\n}\n}",
            "error: vrrp_instance 'A' uses UDP without unicast_src_ip and unicast_peer: left out",
        ),
        (INSTANCE, "error: vrrp_instance 'VI' is there already: left out"),
        (
            INSTANCE.replace("VI", "A"),
            "error: virtual_router_id 1 is used by 'VI' on the same interface: left out",
        ),
    ],
)
def test_an_instance_that_cannot_run_is_left_out_and_its_neighbours_stand(text, reported):
    result = compiled(f"{INSTANCE}{text}")
    assert messages(result) == [reported]
    assert [found.name for found in result.configuration.vrrp_instances] == ["VI"]


@pytest.mark.parametrize("change", [("eth0", "eth1"), ("id 1", "id 2"), ("eth0", "eth0\nmcast_dst_ip 224.0.0.99")])
def test_a_router_id_may_be_used_again_elsewhere(change):
    result = compiled(INSTANCE + INSTANCE.replace("VI", "A").replace(*change))
    assert messages(result) == []
    assert len(result.configuration.vrrp_instances) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", "version 3"),
        ("unicast_peer {\n10.0.0.2\n10.0.0.3\n}", "unicast_peer {\n10.0.0.3\n}"),
    ],
)
def test_a_router_id_is_not_used_twice_where_the_adverts_meet(first, second):
    text = with_instance(first, INSTANCE.replace("VI", "A").replace("interface", f"{second}\ninterface"))
    assert [found.name for found in text.configuration.vrrp_instances] == ["VI"]


def test_an_instance_may_move_excluded_addresses_only():
    result = compiled(
        "vrrp_instance A {\ninterface eth0\nvirtual_router_id 1\nvirtual_ipaddress_excluded {\n2001:db8::1\n}\n}",
    )
    assert messages(result) == []


UNICAST = "vrrp_instance A {\nvirtual_router_id 1\nunicast_peer {\n10.0.0.2\n}\nvirtual_ipaddress {\n%s\n}\n}"


@pytest.mark.parametrize(
    ("addresses", "interface"),
    [("192.0.2.1 dev eth1", "eth1"), ("192.0.2.1\n192.0.2.2 dev eth2\n192.0.2.3 dev eth3", "eth2")],
)
def test_an_instance_with_peers_takes_the_interface_of_its_first_address_that_has_one(addresses, interface):
    result = compiled(UNICAST % addresses)
    assert messages(result) == []
    assert result.configuration.vrrp_instances[0].interface == interface


@pytest.mark.parametrize("text", [UNICAST % "192.0.2.1", UNICAST.replace("10.0.0.2", "") % "192.0.2.1 dev eth1"])
def test_an_instance_without_an_interface_is_left_out(text):
    assert "error: vrrp_instance 'A' has no interface: left out" in messages(compiled(text))


@pytest.mark.parametrize(("count", "advertised", "excluded"), [(255, 255, 1), (256, 255, 2), (300, 255, 46)])
def test_addresses_that_an_advert_cannot_hold_are_excluded(count, advertised, excluded):
    block = "\n".join(f"10.0.{number // 200}.{number % 200}" for number in range(count - 1))
    result = with_instance(f"virtual_ipaddress {{\n{block}\n}}\nvirtual_ipaddress_excluded {{\n10.9.9.9\n}}")
    (found,) = result.configuration.vrrp_instances
    assert (len(found.addresses), len(found.excluded_addresses)) == (advertised, excluded)
    assert found.excluded_addresses[-1].address == "10.9.9.9"
    assert [found.severity for found in result.findings] == [Severity.WARNING] * (count > 255)


GARP = """
vrrp_garp_master_delay 1
vrrp_garp_master_repeat 2
vrrp_garp_master_refresh 3
vrrp_garp_master_refresh_repeat 4
vrrp_garp_interval 0.5
"""


@pytest.mark.parametrize(
    ("defaults", "body", "expected"),
    [
        ("", "", GarpPolicy()),
        (
            GARP,
            "",
            GarpPolicy(
                delay_s=1,
                repeat=2,
                refresh_s=3,
                refresh_repeat=4,
                lower_prio_delay_s=1,
                lower_prio_repeat=2,
                interval_s=0.5,
            ),
        ),
        ("vrrp_garp_master_delay 0", "garp_master_delay 7", GarpPolicy(delay_s=7, lower_prio_delay_s=0)),
        ("vrrp_garp_master_delay 7", "garp_master_delay 0", GarpPolicy(delay_s=0, lower_prio_delay_s=7)),
        ("", "garp_master_repeat 9\ngarp_lower_prio_repeat 0", GarpPolicy(repeat=9, lower_prio_repeat=0)),
        ("", "garp_master_repeat 9", GarpPolicy(repeat=9, lower_prio_repeat=5)),
        ("vrrp_garp_lower_prio_repeat 3", "", GarpPolicy(lower_prio_repeat=3)),
        ("vrrp_garp_lower_prio_delay 4", "", GarpPolicy(lower_prio_delay_s=4)),
        ("", "garp_lower_prio_delay 4\ngarp_master_refresh 60", GarpPolicy(lower_prio_delay_s=4, refresh_s=60)),
        ("", "garp_master_refresh_repeat 2", GarpPolicy(refresh_repeat=2)),
    ],
)
def test_gratuitous_arp_is_the_instance_s_or_the_global(defaults, body, expected):
    assert instance(body, f"global_defs {{\n{defaults}\n}}").garp == expected


@pytest.mark.parametrize(
    ("defaults", "body", "field", "value"),
    [
        ("vrrp_version 3", "", "version", 3),
        ("vrrp_version 3", "version 2", "version", 2),
        ("vrrp_mcast_group4 224.0.0.99", "", "multicast_group", "224.0.0.99"),
        ("vrrp_mcast_group4 224.0.0.99", "mcast_dst_ip 224.0.0.98", "multicast_group", "224.0.0.98"),
        ("vrrp_down_timer_adverts 5", "", "down_timer_adverts", 5),
        ("vrrp_down_timer_adverts 5", "down_timer_adverts 4", "down_timer_adverts", 4),
        ("vrrp_skip_check_adv_addr", "", "skip_check_adv_addr", True),
        ("vrrp_skip_check_adv_addr 0", "", "skip_check_adv_addr", True),
        ("vrrp_skip_check_adv_addr word", "", "skip_check_adv_addr", True),
        ("vrrp_skip_check_adv_addr off", "", "skip_check_adv_addr", False),
        ("vrrp_skip_check_adv_addr", "skip_check_adv_addr off", "skip_check_adv_addr", False),
        ("vrrp_lower_prio_no_advert", "", "lower_prio_no_advert", True),
        ("vrrp_higher_prio_send_advert", "", "higher_prio_send_advert", True),
        ("v3_checksum_as_v2", "", "checksum_with_pseudo_header", False),
        ("v3_checksum_as_v2", "v3_checksum_as_v2 off", "checksum_with_pseudo_header", True),
        ("smtp_alert", "", "smtp_alert", True),
        ("smtp_alert\nsmtp_alert_vrrp off", "", "smtp_alert", False),
        ("smtp_alert off\nsmtp_alert_vrrp", "", "smtp_alert", True),
        ("smtp_alert", "smtp_alert off", "smtp_alert", False),
    ],
)
def test_an_instance_inherits_global_settings_wherever_they_are_declared(defaults, body, field, value):
    assert getattr(instance(body, f"global_defs {{\n{defaults}\n}}"), field) == value


@pytest.mark.parametrize("keyword", ["lvs_sync_daemon_interface", "lvs_sync_daemon_inteface"])
def test_an_instance_may_name_the_sync_daemon(keyword):
    assert with_instance(f"{keyword} eth1").configuration.global_defs.lvs_sync_daemon == SyncDaemon(
        interface="eth1", instance="VI"
    )


def test_an_instance_without_addresses_is_reported():
    result = compiled("vrrp_instance A {\ninterface eth0\nvirtual_router_id 1\nvirtual_ipaddress {\n}\n}")
    assert messages(result) == ["error: no virtual_ipaddress: the instance has no addresses"]


def test_a_weight_out_of_range_is_0_and_the_interface_is_tracked():
    result = with_instance("track_interface {\neth1 weight 300\n}")
    assert messages(result) == [
        "error: 300 is out of range",
        "warning: the weight is left out, as in keepalived",
    ]
    assert result.configuration.vrrp_instances[0].tracked == (link("eth1"),)


@pytest.mark.parametrize("kind", ["pass", "Pass", "ah"])
def test_a_kind_of_authentication_in_the_wrong_case_is_none_as_in_keepalived(kind):
    result = with_instance(f"authentication {{\nauth_type {kind}\nauth_pass 12345678\n}}")
    assert messages(result) == [
        "error: 'authentication' without a valid auth_type: adverts have none",
        f"error: '{kind}' is not an authentication type: case counts, in keepalived too",
    ]
    assert result.configuration.vrrp_instances[0].authentication is None


@pytest.mark.parametrize("keyword", ["notify_master", "notify_backup", "notify_fault", "notify_stop", "notify"])
def test_the_first_of_two_scripts_counts(keyword):
    result = with_instance(f"{keyword} /first\n{keyword} /second", SECURED)
    assert messages(result) == [f"warning: '{keyword}' is given already: the first one counts, in keepalived too"]
    (found,) = [script for script in msgspec.structs.astuple(result.configuration.vrrp_instances[0].notify) if script]
    assert found.argv == ("/first",)


def test_the_global_sync_daemon_wins_over_an_instance_s():
    result = with_instance("lvs_sync_daemon_interface eth1", "global_defs {\nlvs_sync_daemon eth2\n}")
    assert messages(result) == ["warning: the synchronisation daemon is declared already: ignored, in keepalived too"]
    assert result.configuration.global_defs.lvs_sync_daemon == SyncDaemon(interface="eth2")


# -- vrrp_sync_group --------------------------------------------------------------------------------------------------


def test_a_sync_group_holds_its_members_scripts_and_alerts():
    result = with_instance("", SECURED + "vrrp_sync_group G {\ngroup {\nVI VI\n}\nsmtp_alert\nnotify_master /m\nnotify /n\n}")
    (group,) = result.configuration.sync_groups
    assert messages(result) == ["note: vrrp_sync_group 'G' has one member: there is nothing to synchronise"]
    assert (group.name, group.members, group.smtp_alert) == ("G", ("VI",), True)
    assert group.notify == VrrpNotify(master=Script(("/m",)), any=Script(("/n",)))


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("vrrp_sync_group G {\nVI\n}", ["error: vrrp_sync_group 'G' has no members: left out", "warning: unknown keyword 'VI'"]),
        (
            "vrrp_sync_group G {\ngroup {\nA\n}\n}",
            ["error: vrrp_sync_group 'G' has no members", "error: vrrp_instance 'A' does not"],
        ),
        ("vrrp_sync_group F {\ngroup {\nVI\n}\n}", ["error: vrrp_sync_group 'F' is there already: left out"]),
        (
            "vrrp_sync_group G {\ngroup {\nVI\n}\n}",
            ["error: vrrp_sync_group 'G' has no members", "error: 'VI' is in group 'F' already"],
        ),
        ("vrrp_sync_group G {\ngroup VI\n}", ["error: vrrp_sync_group 'G' has no members", "error: 'group' needs a block"]),
        ("vrrp_sync_group {\n}", ["missing: 'vrrp_sync_group' needs a name"]),
    ],
)
def test_a_sync_group_without_members_is_left_out(text, reported):
    result = with_instance("", f"vrrp_sync_group F {{\ngroup {{\nVI\n}}\n}}\n{text}")
    assert [group.name for group in result.configuration.sync_groups] == ["F"]
    found = [message for message in messages(result) if not message.startswith("note: vrrp_sync_group 'F' has one member")]
    assert [message[: len(start)] for message, start in zip(found, reported, strict=True)] == reported


def test_a_group_loses_an_instance_that_was_left_out():
    result = with_instance("", "vrrp_instance A {\n}\nvrrp_sync_group G {\ngroup {\nA\nVI\n}\n}")
    assert result.configuration.sync_groups[0].members == ("VI",)


@pytest.mark.parametrize(
    ("body", "outside"),
    [
        ("", 'vrrp_sync_group G {\ngroup {\n"VI"\n}\n}'),
        ('unicast_src_ip "10.0.0.1"', ""),
        ('unicast_peer {\n"10.0.0.1"\n}', ""),
    ],
)
def test_quoted_words_become_plain_text(body, outside):
    assert msgspec.json.encode(with_instance(body, outside).configuration)


@pytest.mark.parametrize("option", ["dev", "label"])
def test_an_empty_name_is_reported(option):
    assert len(with_instance(f'virtual_ipaddress_excluded {{\n192.0.2.9 {option} ""\n}}').findings) == 1


@pytest.mark.parametrize(
    ("keyword", "low", "high", "step"),
    [
        ("virtual_router_id", 1, 255, 1),
        ("priority", 1, 255, 1),
        ("advert_int", 0.01, 255, 0.001),
        ("version", 2, 3, 1),
        ("preempt_delay", 0, 1000, 0.5),
        ("down_timer_adverts", 1, 100, 1),
        ("garp_master_delay", 0, 4294, 1),
        ("garp_master_repeat", 0, 2**32 - 1, 1),
        ("garp_master_refresh", 0, 2**32 - 1, 1),
        ("garp_master_refresh_repeat", 0, 2**32 - 1, 1),
        ("garp_lower_prio_delay", 0, 4294, 1),
        ("garp_lower_prio_repeat", 0, 2**31 - 1, 1),
        ("vrrp_transport udp", 1, 65535, 1),
    ],
)
def test_numbers_have_a_range(keyword, low, high, step):
    values = (low - step, low, high, high + step)
    assert [out_of_range(with_instance(f"{keyword} {value}")) for value in values] == [True, False, False, True]


# -- IPv6 and AH ------------------------------------------------------------------------------------------------------

SIX = "virtual_ipaddress {\nfe80::1\n}\n"


def bare(body, before=""):
    return compiled(f"{before}vrrp_instance A {{\ninterface eth0\nvirtual_router_id 9\n{body}\n}}")


@pytest.mark.parametrize(
    ("body", "before", "group", "version", "reported"),
    [
        (SIX, "", "ff02::12", 3, []),
        (SIX, "global_defs {\nvrrp_mcast_group6 ff02::99\n}\n", "ff02::99", 3, []),
        (SIX + "mcast_dst_ip ff02::7", "", "ff02::7", 3, []),
        (
            SIX + "mcast_dst_ip 224.0.0.7",
            "",
            "ff02::12",
            3,
            ["error: group 224.0.0.7 is of another IP version than the addresses: ff02::12 is used"],
        ),
        (SIX + "version 2", "", "ff02::12", 3, ["warning: VRRPv2 is for IPv4 alone: version 3 is used, as in keepalived"]),
        (SIX, "global_defs {\nvrrp_version 2\n}\n", "ff02::12", 3, []),
        (
            "virtual_ipaddress {\n2001:db8::1\nfe80::1\n}",
            "",
            "ff02::12",
            3,
            ["note: the first IPv6 address should be link-local, and 2001:db8::1 is not (RFC 9568 §5.2.9)"],
        ),
        ("virtual_ipaddress {\n2001:db8::1\n}\nunicast_peer {\n2001:db8::2\n}", "", "ff02::12", 3, []),
        ("no_virtual_ipaddress\nnative_ipv6", "", "ff02::12", 3, []),
        ("no_virtual_ipaddress\nunicast_src_ip fe80::7\nunicast_peer {\nfe80::8\n}", "", "ff02::12", 3, []),
        ("no_virtual_ipaddress", "", "224.0.0.18", 2, []),
        (
            "native_ipv6\nvirtual_ipaddress {\n10.0.0.1\n}",
            "",
            "224.0.0.18",
            2,
            ["warning: the first address, 10.0.0.1, decides: adverts are IPv4"],
        ),
    ],
)
def test_the_first_address_decides_about_ipv6(body, before, group, version, reported):
    result = bare(body, before)
    assert messages(result) == reported
    (found,) = result.configuration.vrrp_instances
    assert (found.multicast_group, found.version, found.is_ipv6) == (group, version, version == 3)


def test_an_advert_over_ipv6_holds_as_many_addresses_as_a_packet():
    listed = "\n".join(f"fe80::{number:x}" for number in range(1, 92))
    result = bare(f"virtual_ipaddress {{\n{listed}\n}}")
    assert messages(result) == ["warning: an advert holds 89 addresses: the rest is treated as excluded"]
    (found,) = result.configuration.vrrp_instances
    assert (len(found.addresses), len(found.excluded_addresses)) == (89, 2)


def test_instances_of_both_ip_versions_may_have_one_number():
    other = "vrrp_instance B {\ninterface eth0\nvirtual_router_id 9\nvirtual_ipaddress {\n10.0.0.1\n}\n}\n"
    assert [each.name for each in bare(SIX, other).configuration.vrrp_instances] == ["B", "A"]


AH = "authentication {\nauth_type AH\nauth_pass x\n}\nvirtual_ipaddress {\n10.0.0.1\n}\n"


@pytest.mark.parametrize(
    ("body", "kind", "master", "reported"),
    [
        (AH, AuthenticationType.AH, False, []),
        (AH + "priority 255", AuthenticationType.AH, True, []),
        (
            AH + "state MASTER\npriority 200",
            AuthenticationType.AH,
            False,
            ["warning: with auth_type AH a node must hear its peer before it becomes master: BACKUP is used, as in keepalived"],
        ),
        (AH + "version 3", None, False, ["warning: VRRPv3 has no authentication: left out"]),
        (
            AH + "vrrp_transport udp 5\nunicast_src_ip 10.0.0.7\nunicast_peer {\n10.0.0.8\n}",
            None,
            False,
            ["error: AH is a header of IP, and adverts in UDP have none: left out"],
        ),
    ],
)
def test_ah(body, kind, master, reported):
    result = bare(body)
    assert messages(result) == reported
    (found,) = result.configuration.vrrp_instances
    assert (found.authentication.type if found.authentication else None, found.starts_as_master) == (kind, master)
