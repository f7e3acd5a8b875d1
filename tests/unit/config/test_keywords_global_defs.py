import msgspec
import pytest

from relevo.config.blocks.global_defs import looks_like_address
from relevo.model import Endpoint, GlobalDefs, PlaneTimeouts, SyncDaemon, VrrpTransport
from tests.unit.config.compiling import compiled, messages, out_of_range, with_globals


def declared(body: str) -> GlobalDefs:
    result = with_globals(body)
    assert messages(result) == []
    return result.configuration.global_defs


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ("router_id lb1", "router_id", "lb1"),
        ('router_id "the first"', "router_id", "the first"),
        ("no_email_faults", "no_email_faults", True),
        ("no_checker_emails", "no_checker_emails", True),
        ("script_timeout 0.5", "script_timeout_s", 0.5),
        ("enable_script_security", "enable_script_security", True),
        ("data_plane eBPF", "plane", "ebpf"),
        ("connection_table_size 1024", "connection_table_size", 1024),
        ("ebpf_hooks TC", "ebpf_hooks", "tc"),
        ("mh_table_size 131071", "mh_table_size", 131_071),
        ("script_user nobody", "script_user", "nobody"),
        ("script_user nobody nogroup", "script_group", "nogroup"),
        ("lvs_sync_daemon eth1", "lvs_sync_daemon", SyncDaemon(interface="eth1")),
        ("lvs_sync_daemon eth1 VI", "lvs_sync_daemon", SyncDaemon(interface="eth1", instance="VI")),
        ("lvs_sync_daemon eth1 VI 51", "lvs_sync_daemon", SyncDaemon(interface="eth1", instance="VI", sync_id=51)),
        ("lvs_sync_daemon eth1 inst VI id 0", "lvs_sync_daemon", SyncDaemon(interface="eth1", instance="VI", sync_id=0)),
        ("lvs_timeouts udp 30 tcp 7200", "lvs_timeouts", PlaneTimeouts(tcp_s=7200, udp_s=30)),
        ("lvs_flush", "lvs_flush", True),
        ("lvs_flush_on_stop", "lvs_flush_on_stop", True),
        ("lvs_flush_on_stop VS", "lvs_flush_on_stop", False),
        (
            "lvs_sync_daemon eth1 VI id 7 maxlen 1400 port 8848 ttl 1 group 224.0.0.81",
            "lvs_sync_daemon",
            SyncDaemon(interface="eth1", instance="VI", sync_id=7, max_length=1400),
        ),
    ],
)
def test_global_defs_hold(body, field, value):
    assert getattr(declared(body), field) == value


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ("notification_email {\na@b.c\nd@e f@g\n}", "recipients", ("a@b.c", "d@e", "f@g")),
        ('notification_email {\n"The Duty <duty@b.c>"\n}', "recipients", ("The Duty <duty@b.c>",)),
        ("notification_email_from lb@b.c", "sender", "lb@b.c"),
        ("smtp_server mail.example.net", "server", Endpoint("mail.example.net", 25)),
        ("smtp_server 2001:db8::25 587", "server", Endpoint("2001:db8::25", 587)),
        ("smtp_connect_timeout 7", "connect_timeout_s", 7.0),
        ("smtp_helo_name lb", "helo_name", "lb"),
        ("smtp_security TLS", "security", "tls"),
        ("smtp_user lb", "user", "lb"),
        ("smtp_password file:/etc/secret", "password_file", "/etc/secret"),
    ],
)
def test_mail_settings_hold(body, field, value):
    assert getattr(declared(body).mail, field) == value


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        ("notification_email {\n}", ["note: notification_email has no recipient: it sends no mail"]),
        ("notification_email {\nro,ot\n}", ["warning: 'ro,ot' is not a mail address: left out"]),
        ("notification_email a@b", ["error: 'notification_email' needs a block"]),
        ('notification_email_from "ro ot"', ["warning: 'ro ot' is not a mail address: the default sender is used"]),
        ("vrrp_mcast_group4 10.0.0.1", ["error: '10.0.0.1' is not a multicast address"]),
        ("vrrp_mcast_group4 ff02::12", ["error: 'ff02::12' is not a multicast address"]),
        ("smtp_server mail 0", ["error: 0 is out of range"]),
        ("smtp_password hush", ["error: the password is read from a file, not from the configuration"]),
        ("smtp_password file:relative", ["error: the password is read from a file, not from the configuration"]),
        ("vrrp_version 4", ["error: 4 is out of range"]),
        ("connection_table_size 1023", ["error: 1023 is out of range"]),
        ("mh_table_size 4095", ["error: 4095 is not a prime number"]),
        ("ebpf_hooks nft", ["error: 'nft' is not a choice of hooks"]),
        ("data_plane ipv", ["error: 'ipv' is not a data plane"]),
        ("vrrp_transport udp", ["missing: 'vrrp_transport' needs a UDP port"]),
        ("vrrp_transport udp 65536", ["error: 65536 is out of range"]),
        ("lvs_sync_daemon", ["missing: 'lvs_sync_daemon' needs an interface"]),
        ("lvs_timeouts", ["missing: 'lvs_timeouts' needs tcp, tcpfin or udp and a time-out"]),
        ("lvs_timeouts tcp 5s", ["error: '5s' is not seconds, up to 31 days"]),
        ("lvs_flush_on_stop RS", ["error: 'RS' is not VS"]),
        ("lvs_flush_on_stop vs", ["error: 'vs' is not VS: case counts, in keepalived too"]),
        ("script_user", ["missing: 'script_user' needs a user"]),
    ],
)
def test_what_cannot_be_used_leaves_the_default(body, reported):
    result = with_globals(body)
    assert messages(result) == reported
    assert result.configuration.global_defs == GlobalDefs()


D = SyncDaemon(interface="eth1")


@pytest.mark.parametrize(
    ("body", "reported", "field", "value"),
    [
        ("lvs_sync_daemon eth1 group 10.0.0.1", ["error: '10.0.0.1' is not a multicast address"], "lvs_sync_daemon", D),
        ("lvs_sync_daemon eth1 id 256", ["error: 256 is out of range"], "lvs_sync_daemon", D),
        (
            "lvs_sync_daemon eth1 VI id",
            ["missing: 'lvs_sync_daemon' needs a sync id"],
            "lvs_sync_daemon",
            SyncDaemon(interface="eth1", instance="VI"),
        ),
        (
            "lvs_sync_daemon eth1 VI\nlvs_sync_daemon eth2",
            ["warning: 'lvs_sync_daemon' is given already: the first one counts, in keepalived too"],
            "lvs_sync_daemon",
            SyncDaemon(interface="eth1", instance="VI"),
        ),
        (
            "lvs_sync_daemon eth1\n}\nglobal_defs {\nlvs_sync_daemon eth2",
            ["warning: 'lvs_sync_daemon' is given already: the first one counts, in keepalived too"],
            "lvs_sync_daemon",
            D,
        ),
        ("lvs_timeouts tcp 0 udp 9", [], "lvs_timeouts", PlaneTimeouts(udp_s=9)),
        (
            "lvs_timeouts icmp 1 tcp x udp 9",
            ["error: 'icmp' is not a time-out", "error: '1' is not a time-out", "error: 'x' is not seconds, up to 31 days"],
            "lvs_timeouts",
            PlaneTimeouts(udp_s=9),
        ),
        ("lvs_timeouts tcp 5 udp 6\nlvs_timeouts udp 7", [], "lvs_timeouts", PlaneTimeouts(tcp_s=5, udp_s=7)),
        (
            "enable_script_security off",
            ["warning: 'enable_script_security' takes no argument: 'off' is ignored, in keepalived too"],
            "enable_script_security",
            True,
        ),
        (
            "no_email_faults on",
            ["note: 'no_email_faults' takes no argument: 'on' is ignored, in keepalived too"],
            "no_email_faults",
            True,
        ),
    ],
)
def test_what_can_be_used_of_an_odd_line_is(body, reported, field, value):
    result = with_globals(body)
    assert messages(result) == reported
    assert getattr(result.configuration.global_defs, field) == value


@pytest.mark.parametrize(
    ("body", "reported", "field", "value"),
    [
        (
            "notification_email {\nroot\n}\nnotification_email {\na@b\n}",
            ["note: 'root' has no domain: the mail server has to know the name"],
            "recipients",
            ("root", "a@b"),
        ),
        (
            "notification_email_from root",
            ["note: 'root' has no domain: the mail server has to know the name"],
            "sender",
            "root",
        ),
        ("smtp_connect_timeout 0", ["warning: a time limit is at least 1: 1 is used"], "connect_timeout_s", 1.0),
        ("smtp_connect_timeout 2.5", ["warning: '.5' after the number 2 is ignored"], "connect_timeout_s", 2.0),
    ],
)
def test_odd_mail_settings_are_reported_and_used(body, reported, field, value):
    result = with_globals(body)
    assert messages(result) == reported
    assert getattr(result.configuration.global_defs.mail, field) == value


@pytest.mark.parametrize(
    ("body", "reported", "field", "value"),
    [
        ("vrrp_garp_master_repeat 0", "warning: a count of messages is at least 1: 1 is used", "repeat", 1),
        ("vrrp_garp_master_repeat 1000", "warning: a count of messages is at most 100: 100 is used", "repeat", 100),
        ("vrrp_garp_interval 0", "note: keepalived refuses an interval of 0, and then has none either", "interval_s", 0.0),
        ("vrrp_garp_master_refresh 1.0", "warning: '.0' after the number 1 is ignored", "refresh_s", 1.0),
    ],
)
def test_gratuitous_arp_settings_out_of_range_are_keepalived_s(body, reported, field, value):
    result = with_globals(body)
    assert messages(result) == [reported]
    assert getattr(result.configuration.vrrp_instances[0].garp, field) == value


def test_the_old_spelling_of_the_identity_works_with_a_warning():
    result = with_globals("lvs_id LVS_1")
    assert result.configuration.global_defs.router_id == "LVS_1"
    assert messages(result) == ["warning: 'lvs_id' was replaced in keepalived 1.1.7; it is taken as 'router_id'"]


def test_every_element_of_a_mangled_address_is_named_and_its_neighbours_stand():
    result = with_globals("notification_email {\n[email protected] ops@example.net\n}")
    assert result.configuration.global_defs.mail.recipients == ("ops@example.net",)
    assert [found.place.column for found in result.findings] == [1, 8]


def test_blocks_of_global_defs_add_up():
    result = compiled("global_defs {\nrouter_id a\nsmtp_user u\n}\nglobal_defs {\nrouter_id b\n}")
    assert (result.configuration.global_defs.router_id, result.configuration.global_defs.mail.user) == ("b", "u")


def test_a_transport_for_every_instance():
    text = "global_defs {\nvrrp_transport udp 5112\n}\nvrrp_instance A {\ninterface eth0\nvirtual_router_id 1\n"
    text += "unicast_src_ip 10.0.0.1\nunicast_peer {\n10.0.0.2\n}\nvirtual_ipaddress {\n192.0.2.1\n}\n%s\n}"
    (udp,) = compiled(text % "").configuration.vrrp_instances
    (plain,) = compiled(text % "vrrp_transport ip").configuration.vrrp_instances
    assert (udp.transport, plain.transport) == (VrrpTransport(5112), VrrpTransport())


@pytest.mark.parametrize("word", ["a@b", "a@b.c", "Duty <a@b>", "<a@b>", "a@b@c", "a+b=c@d", "é@ü"])
def test_looks_like_a_mail_address(word):
    assert looks_like_address(word)


@pytest.mark.parametrize(
    "word", ["", "a", "@", "a@", "@b", "[email", "protected]", "a b@c", "a@b,c@d", "a@b;", "a@b\n", "a@\x7f", "Duty <a>", "<>"]
)
def test_does_not_look_like_a_mail_address(word):
    assert not looks_like_address(word)


@pytest.mark.parametrize("body", ['script_user "nobody" "nogroup"', 'lvs_sync_daemon "eth1"', 'lvs_sync_daemon eth1 "VI"'])
def test_quoted_words_become_plain_text(body):
    assert msgspec.json.encode(declared(body))


@pytest.mark.parametrize("number", ["9" * 5000, "999", "seven"])
def test_the_positional_sync_id_has_a_range(number):
    assert len(with_globals(f"lvs_sync_daemon eth1 VI {number}").findings) == 1


@pytest.mark.parametrize(
    ("keyword", "low", "high", "step"),
    [
        ("smtp_connect_timeout", 0, 4294, 1),
        ("script_timeout", 0.1, 3600, 0.01),
        ("vrrp_version", 2, 3, 1),
        ("vrrp_garp_master_delay", 0, 4294, 1),
        ("vrrp_garp_master_repeat", 0, 2**32 - 1, 1),
        ("vrrp_garp_master_refresh", 0, 2**32 - 1, 1),
        ("vrrp_garp_master_refresh_repeat", 0, 2**32 - 1, 1),
        ("vrrp_garp_lower_prio_delay", 0, 4294, 1),
        ("vrrp_garp_lower_prio_repeat", 0, 2**31 - 1, 1),
        ("vrrp_garp_interval", 0, 4294, 1),
        ("vrrp_down_timer_adverts", 1, 100, 1),
        ("vrrp_rt_priority", -(2**31), 2**31 - 1, 1),
    ],
)
def test_numbers_have_a_range(keyword, low, high, step):
    values = (low - step, low, high, high + step)
    assert [out_of_range(with_globals(f"{keyword} {value}")) for value in values] == [True, False, False, True]
