import pytest

from relevo.config.blocks.keepalived_keywords import REMOVED
from relevo.config.blocks.services import SCHEDULERS
from relevo.model import Endpoint, Forwarding, Protocol, Script, Tunnel
from tests.unit.config.compiling import SECURED, compiled, messages, out_of_range, server, service, with_server, with_service


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ("", "endpoint", Endpoint("192.0.2.1", 80)),
        ("", "scheduler", "wlc"),
        ("lb_algo rr", "scheduler", "rr"),
        ("lvs_sched mh", "scheduler", "mh"),
        ("lb_algo sh\nsh-port\nsh-fallback\nsh-port", "scheduler_flags", ("sh-port", "sh-fallback")),
        (
            "lb_algo mh\nflag-1\nflag-2\nflag-3\nmh-port\nmh-fallback",
            "scheduler_flags",
            ("flag-1", "flag-2", "flag-3", "mh-port", "mh-fallback"),
        ),
        ("", "forwarding", Forwarding.NAT),
        ("lb_kind DR", "forwarding", Forwarding.DR),
        ("lvs_method TUN", "forwarding", Forwarding.TUN),
        ("", "protocol", Protocol.TCP),
        ("protocol udp", "protocol", Protocol.UDP),
        ("", "persistence_timeout_s", 0),
        ("persistence_timeout", "persistence_timeout_s", 360),
        ("persistence_timeout 2678400", "persistence_timeout_s", 31 * 86400),
        ("", "persistence_granularity", 32),
        ("persistence_timeout\npersistence_granularity 255.255.255.0", "persistence_granularity", 24),
        ("persistence_timeout\npersistence_granularity 0.0.0.0", "persistence_granularity", 0),
        ("persistence_timeout\npersistence_granularity 0", "persistence_granularity", 0),
        ("", "delay_loop_s", 60.0),
        ("delay_loop 0.5", "delay_loop_s", 0.5),
        ("alpha", "alpha", True),
        ("omega", "omega", True),
        ("weight 10\nquorum 7\nhysteresis 2", "quorum", 7),
        ("weight 10\nquorum 7\nhysteresis 6", "hysteresis", 6),
        ('quorum_up "/bin/up a" nobody', "quorum_up", Script(("/bin/up", "a"), "nobody")),
        ("quorum_down /bin/down", "quorum_down", Script(("/bin/down",))),
        ("sorry_server 10.0.0.9 8080", "sorry_server", Endpoint("10.0.0.9", 8080)),
        ("sorry_server 10.0.0.9", "sorry_server", Endpoint("10.0.0.9", 80)),
        ("sorry_server 10.0.0.9\nsorry_server_inhibit", "sorry_server_inhibit", True),
        ("smtp_alert", "smtp_alert", True),
        ("", "smtp_alert", False),
    ],
)
def test_a_service_holds(body, field, value):
    assert messages(with_service(body, SECURED)) == []
    assert getattr(service(body), field) == value


IGNORED = "are not supported by this version: ignored"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_can_be_named(name):
    assert service(f"lb_algo {name}").scheduler == name


HOLES = "error: '%s' has holes for a netmask: an address is a client, unlike in keepalived"


@pytest.mark.parametrize(
    ("body", "reported", "field", "value"),
    [
        ("lb_algo loadbalance", "error: 'loadbalance' is not a scheduler", "scheduler", "wlc"),
        ("lb_kind LOCAL", "error: 'LOCAL' is not a forwarding method", "forwarding", Forwarding.NAT),
        ("lb_kind TUN type gue", "error: a GUE tunnel needs a port", "forwarding", Forwarding.NAT),
        ("lb_kind TUN type l2tp", "error: 'l2tp' is not a kind of tunnel", "forwarding", Forwarding.NAT),
        ("lb_kind TUN fast", "error: 'fast' is not an option of a tunnel", "forwarding", Forwarding.NAT),
        (
            "lb_kind TUN csum",
            "warning: a tunnel of type ipip has no checksum: ignored; keepalived ignores the whole line",
            "tunnel",
            Tunnel(),
        ),
        (
            "lb_kind TUN port 6080",
            "warning: a tunnel of type ipip has no port: ignored; keepalived ignores the whole line",
            "tunnel",
            Tunnel(),
        ),
        ("ops", "warning: ops is for UDP alone: ignored", "one_packet", False),
        (
            "laddr_group_name L",
            "error: local_address_group 'L' does not exist: the node's own address is used",
            "local_addresses",
            (),
        ),
        ("persistence_timeout 0", "warning: persistence_timeout 0 means off", "persistence_timeout_s", 0),
        ("persistence_timeout 2678401", "error: 2678401 is out of range", "persistence_timeout_s", 0),
        ("persistence_timeout 9\npersistence_granularity 255.0.255.0", HOLES % "255.0.255.0", "persistence_granularity", 32),
        ("persistence_timeout 9\npersistence_granularity 129", HOLES % "129", "persistence_granularity", 32),
        ("persistence_granularity none", "error: 'none' is not a netmask", "persistence_timeout_s", 0),
        ("warmup off", "error: 'off' is not a time: 0 is used, as in keepalived", "quorum", 1),
        ("quorum 0", "warning: quorum 0 would never be lost: 1 is used", "quorum", 1),
        ("quorum 2", "warning: quorum 2 is above the total weight 1: 1 is used", "quorum", 1),
        ("quorum 5", "warning: quorum 5 is above the total weight 1: 1 is used", "quorum", 1),
        ("quorum many", "error: 'many' is not a quorum", "quorum", 1),
        ("lb_algo RR", "error: 'RR' is not a scheduler: case counts, in keepalived too", "scheduler", "wlc"),
        ("lb_kind dr", "error: 'dr' is not a forwarding method: case counts, in keepalived too", "forwarding", Forwarding.NAT),
        (
            "lb_kind FNAT",
            "note: 'FNAT', the word of DPVS, is FULLNAT here; keepalived ignores the line",
            "forwarding",
            Forwarding.FULLNAT,
        ),
        ("alpha 1", "note: 'alpha' takes no argument: '1' is ignored, in keepalived too", "alpha", True),
        ("alpha off", "warning: 'alpha' takes no argument: 'off' is ignored, in keepalived too", "alpha", True),
        ("omega no", "warning: 'omega' takes no argument: 'no' is ignored, in keepalived too", "omega", True),
        (
            "sh-port",
            "warning: 'sh-port' counts only below 'lb_algo sh': ignored, in keepalived too",
            "scheduler_flags",
            (),
        ),
        (
            "mh-fallback\nlb_algo mh",
            "warning: 'mh-fallback' counts only below 'lb_algo mh': ignored, in keepalived too",
            "scheduler_flags",
            (),
        ),
        (
            "sorry_server_inhibit\nsorry_server 10.0.0.9",
            "warning: 'sorry_server_inhibit' counts only below 'sorry_server': ignored, in keepalived too",
            "sorry_server_inhibit",
            False,
        ),
        (
            "persistence_granularity 255.255.255.0",
            "note: persistence_granularity turns persistence on, as in keepalived: 360 s is used",
            "persistence_timeout_s",
            360,
        ),
        (
            "persistence_timeout 9\npersistence_granularity 24",
            "warning: 24 is taken for a prefix length; keepalived takes it for the netmask 0.0.0.24",
            "persistence_granularity",
            24,
        ),
        (
            "persistence_timeout 9\npersistence_granularity 64",
            "warning: 64 is taken for a prefix length; keepalived takes it for the netmask 0.0.0.64",
            "persistence_granularity",
            32,
        ),
        ("persistence_timeout 9s", "error: '9s' is not a persistence timeout", "persistence_timeout_s", 0),
        ("hysteresis 1", "warning: hysteresis must be below the quorum: 0 is used", "hysteresis", 0),
        ("weight 9\nquorum 5\nhysteresis 5", "warning: hysteresis must be below the quorum: 4 is used", "hysteresis", 4),
        ("protocol ICMP", "error: 'ICMP' is not a protocol", "protocol", Protocol.TCP),
        ("sorry_server www", "error: 'www' is not a sorry server's address", "sorry_server", None),
        ("sorry_server 10.0.0.9 70000", "error: 70000 is out of range", "sorry_server", None),
        ("nat_mask 24", f"warning: keyword 'nat_mask' is ignored: {REMOVED['nat_mask']}", "quorum", 1),
    ],
)
def test_what_is_odd_in_a_service_is_reported_and_the_rest_stands(body, reported, field, value):
    assert messages(with_service(body)) == [reported]
    assert getattr(service(body), field) == value


SERVER = "real_server 10.0.0.1 80 {\n}"


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        (f"virtual_server {{\n{SERVER}\n}}", "missing: 'virtual_server' needs a virtual server's address"),
        ("virtual_server 192.0.2.2 80", "error: 'virtual_server' needs a block"),
        (f"virtual_server host 80 {{\n{SERVER}\n}}", "error: 'host' is not a virtual server's address"),
        (f"virtual_server 192.0.2.2 http {{\n{SERVER}\n}}", "error: 'http' is not a port number"),
        (f"virtual_server fwmark 0 {{\n{SERVER}\n}}", "error: 0 is out of range"),
        (
            f"virtual_server group G {{\nprotocol TCP\n{SERVER}\n}}",
            "error: virtual_server_group 'G' does not exist or lists nothing: the virtual server is left out",
        ),
        (
            f"virtual_server 192.0.2.2 80 {{\nprotocol SCTP\n{SERVER}\n}}",
            "error: SCTP is not supported by this version: the virtual server is left out",
        ),
        ("virtual_server 192.0.2.2 80 {\nprotocol TCP\n}", "error: virtual server 192.0.2.2:80 has no real server: left out"),
        (
            f"virtual_server 192.0.2.1 80 {{\nprotocol tcp\n{SERVER}\n}}",
            "error: virtual server [192.0.2.1]:tcp:80 is declared twice: the second is left out",
        ),
    ],
)
def test_a_service_that_cannot_run_is_left_out_and_its_neighbours_stand(text, reported):
    result = with_service("", text)
    assert messages(result) == [reported]
    assert [found.name for found in result.configuration.virtual_servers] == ["[192.0.2.1]:tcp:80"]


def test_a_service_without_protocol_is_udp_with_a_warning():
    result = compiled(f"virtual_server 192.0.2.1 53 {{\n{SERVER}\n}}")
    assert result.configuration.virtual_servers[0].protocol is Protocol.UDP
    assert messages(result) == ["warning: 'protocol' is not given: UDP is used, as keepalived does"]


def test_one_address_and_port_may_serve_two_protocols():
    result = with_service("", f"virtual_server 192.0.2.1 80 {{\nprotocol UDP\n{SERVER}\n}}")
    assert len(result.configuration.virtual_servers) == 2


def test_a_sorry_server_alone_makes_a_service():
    result = compiled("virtual_server 192.0.2.1 80 {\nprotocol TCP\nsorry_server 10.0.0.9\n}")
    assert messages(result) == []
    assert result.configuration.virtual_servers[0].real_servers == ()


@pytest.mark.parametrize(
    ("port", "timeout", "expected", "warned"),
    [
        ("", "", 360, True),
        ("0", "", 360, True),
        ("", "persistence_timeout 9", 9, False),
        ("", "persistence_timeout 0", 360, True),
    ],
)
def test_a_service_of_every_port_is_persistent(port, timeout, expected, warned):
    result = compiled(f"virtual_server 192.0.2.1 {port} {{\nprotocol TCP\n{timeout}\n{SERVER}\n}}")
    assert result.configuration.virtual_servers[0].persistence_timeout_s == expected
    assert ("warning: a service of every port must be persistent: 360 s is used" in messages(result)) is warned


@pytest.mark.parametrize("words", ["dev eth0", "tcp"])
def test_words_behind_a_service_s_port_are_ignored_with_a_warning_at_the_first(words):
    result = compiled(f"virtual_server 192.0.2.1 80 {words} {{\nprotocol TCP\n{SERVER}\n}}")
    assert messages(result) == [f"warning: '{words}' behind a virtual server is ignored"]
    assert result.findings.items[0].place.column == 29
    assert len(result.configuration.virtual_servers) == 1


def test_granularity_of_an_ipv6_service_goes_to_128():
    text = "virtual_server 2001:db8::1 80 {\nprotocol TCP\n%s\nreal_server 2001:db8::2 80 {\n}\n}"
    found = [
        compiled(text % line).configuration.virtual_servers[0].persistence_granularity
        for line in ("", "persistence_granularity 64")
    ]
    assert found == [128, 64]


# -- real_server ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "around", "field", "value"),
    [
        ("", "", "endpoint", Endpoint("10.0.0.1", 80)),
        ("", "", "weight", 1),
        ("weight 0", "", "weight", 0),
        ("weight 65536", "", "weight", 65536),
        ("weight 2147483647", "", "weight", 2**31 - 1),
        ("", "weight 7", "weight", 7),
        ("weight 3", "weight 7", "weight", 3),
        ("", "lb_kind DR", "forwarding", Forwarding.DR),
        ("lvs_method TUN", "lb_kind DR", "forwarding", Forwarding.TUN),
        ("", "inhibit_on_failure", "inhibit_on_failure", True),
        ("inhibit_on_failure off", "inhibit_on_failure", "inhibit_on_failure", False),
        ("", "proxy_protocol v2", "proxy_protocol", 2),
        ("proxy_protocol V1", "proxy_protocol v2", "proxy_protocol", 1),
        ("proxy_protocol off", "proxy_protocol v2", "proxy_protocol", 0),
        ("uthreshold 10\nlthreshold 10", "", "upper_threshold", 10),
        ("uthreshold 10\nlthreshold 10", "", "lower_threshold", 10),
        ("lthreshold 10", "", "lower_threshold", 10),
        ("notify_up /bin/up", "", "notify_up", Script(("/bin/up",))),
        ('notify_down "/bin/down x"', "", "notify_down", Script(("/bin/down", "x"))),
        ("", "", "smtp_alert", True),
        ("smtp_alert off", "", "smtp_alert", False),
        ("", "smtp_alert off", "smtp_alert", True),
    ],
)
def test_a_real_server_holds_its_own_or_its_service_s(body, around, field, value):
    assert messages(with_server(body, around, SECURED)) == []
    assert getattr(server(body, around), field) == value


@pytest.mark.parametrize(
    ("defaults", "of_service", "of_server"),
    [
        ("", False, True),
        ("smtp_alert", True, True),
        ("smtp_alert off", False, False),
        ("smtp_alert_checker", True, True),
        ("smtp_alert\nsmtp_alert_checker off", False, False),
        ("smtp_alert_vrrp", False, True),
    ],
)
def test_services_and_servers_inherit_global_mail_settings(defaults, of_service, of_server):
    outside = f"global_defs {{\n{defaults}\n}}"
    assert service("", outside).smtp_alert is of_service
    assert server("", "", outside).smtp_alert is of_server
    assert server("smtp_alert", "", outside).smtp_alert is True
    assert service("smtp_alert off", outside).smtp_alert is False


def test_thresholds_the_wrong_way_round_are_both_ignored():
    result = with_server("uthreshold 5\nlthreshold 6")
    (found,) = result.configuration.virtual_servers[0].real_servers
    assert (found.upper_threshold, found.lower_threshold) == (0, 0)
    assert messages(result) == ["error: lthreshold is above uthreshold: both are ignored"]


@pytest.mark.parametrize(
    ("kind", "port", "expected", "warned"),
    [
        ("NAT", "8080", 8080, False),
        ("NAT", "", 80, False),
        ("DR", "", 80, False),
        ("DR", "80", 80, False),
        ("DR", "8080", 80, True),
        ("TUN", "8080", 80, True),
    ],
)
def test_only_nat_changes_the_port(kind, port, expected, warned):
    result = compiled(f"virtual_server 192.0.2.1 80 {{\nprotocol TCP\nlb_kind {kind}\nreal_server 10.0.0.1 {port} {{\n}}\n}}")
    assert result.configuration.virtual_servers[0].real_servers[0].endpoint == Endpoint("10.0.0.1", expected)
    assert messages(result) == ([f"warning: {kind} cannot change the port: 80 is used"] if warned else [])


def test_a_service_of_weightless_servers_has_a_quorum_of_1():
    result = compiled("virtual_server 192.0.2.1 80 {\nprotocol TCP\nquorum 5\nreal_server 10.0.0.1 80 {\nweight 0\n}\n}")
    assert messages(result) == ["warning: quorum 5 is above the total weight 0: 1 is used"]
    assert result.configuration.virtual_servers[0].quorum == 1


@pytest.mark.parametrize(
    ("body", "around", "reported", "field", "value"),
    [
        ("", "weight 0", "error: 0 is out of range", "weight", 1),
        (
            "",
            "inhibit_on_failure off",
            "warning: 'inhibit_on_failure' takes no argument: 'off' is ignored, in keepalived too",
            "inhibit_on_failure",
            True,
        ),
        ("inhibit_on_failure maybe", "", "error: 'maybe' is neither on nor off", "inhibit_on_failure", False),
        ("weight -1", "", "error: -1 is out of range", "weight", 1),
        (
            "lvs_method dr",
            "lb_kind TUN",
            "error: 'dr' is not a forwarding method: case counts, in keepalived too",
            "forwarding",
            Forwarding.TUN,
        ),
    ],
)
def test_what_is_odd_in_a_real_server_is_reported_and_the_rest_stands(body, around, reported, field, value):
    result = with_server(body, around)
    assert messages(result) == [reported]
    assert getattr(result.configuration.virtual_servers[0].real_servers[0], field) == value


@pytest.mark.parametrize("keyword", ["notify_up", "notify_down"])
def test_the_first_of_two_scripts_of_a_server_counts(keyword):
    result = with_server(f"{keyword} /first\n{keyword} /second", "", SECURED)
    assert messages(result) == [f"warning: '{keyword}' is given already: the first one counts, in keepalived too"]
    assert getattr(result.configuration.virtual_servers[0].real_servers[0], keyword) == Script(("/first",))


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("real_server {\n}", "missing: 'real_server' needs a real server's address"),
        ("real_server 10.0.0.2 80", "error: 'real_server' needs a block"),
        ("real_server www 80 {\n}", "error: 'www' is not a real server's address"),
        (SERVER, "error: real server 10.0.0.1:80 is there already: left out"),
        ("real_server 10.0.0.1 {\n}", "error: real server 10.0.0.1:80 is there already: left out"),
        (
            "real_server 2001:db8::1 80 {\n}",
            "error: [2001:db8::1]:80 and the virtual server are of different IP versions: left out",
        ),
    ],
)
def test_a_real_server_that_cannot_serve_is_left_out_and_its_neighbours_stand(text, reported):
    result = compiled(f"virtual_server 192.0.2.1 80 {{\nprotocol TCP\n{SERVER}\n{text}\n}}")
    assert messages(result) == [reported]
    assert [found.endpoint for found in result.configuration.virtual_servers[0].real_servers] == [Endpoint("10.0.0.1", 80)]


def test_a_tunnel_may_mix_ip_versions():
    result = compiled("virtual_server 192.0.2.1 80 {\nprotocol TCP\nlb_kind TUN\nreal_server 2001:db8::1 80 {\n}\n}")
    assert messages(result) == []


def test_a_granularity_of_many_digits_is_rejected_not_raised():
    assert service(f"persistence_granularity {'9' * 5000}").persistence_granularity == 32


@pytest.mark.parametrize(
    ("keyword", "low", "high", "step"),
    [
        ("weight", 1, 2**31 - 1, 1),
        ("retry", 1, 2**32 - 1, 1),
        ("delay_before_retry", 0, 31 * 86400, 0.5),
        ("warmup", 0, 31 * 86400, 0.5),
        ("connect_timeout", 0.001, 4294.967, 0.0005),
        ("delay_loop", 0.001, 31 * 86400, 0.0005),
        ("persistence_timeout", 0, 2678400, 1),
        ("quorum", 0, 2**32 - 1, 1),
        ("hysteresis", 0, 2**32 - 1, 1),
        ("sorry_server 10.0.0.9", 0, 65535, 1),
    ],
)
def test_numbers_of_a_service_have_a_range(keyword, low, high, step):
    values = (low - step, low, high, high + step)
    assert [out_of_range(with_service(f"{keyword} {value}")) for value in values] == [True, False, False, True]


@pytest.mark.parametrize(
    ("keyword", "low", "high", "step"),
    [
        ("weight", 0, 2**31 - 1, 1),
        ("retry", 1, 2**32 - 1, 1),
        ("delay_before_retry", 0, 31 * 86400, 0.5),
        ("warmup", 0, 31 * 86400, 0.5),
        ("connect_timeout", 0.001, 4294.967, 0.0005),
        ("delay_loop", 0.001, 31 * 86400, 0.0005),
        ("uthreshold", 0, 2**32 - 1, 1),
        ("lthreshold", 0, 2**32 - 1, 1),
    ],
)
def test_numbers_of_a_real_server_have_a_range(keyword, low, high, step):
    values = (low - step, low, high, high + step)
    assert [out_of_range(with_server(f"{keyword} {value}")) for value in values] == [True, False, False, True]
