import pytest

from relevo.model import Endpoint, HttpCheck, TcpCheck, Url
from relevo.model.checks import CheckTiming
from tests.unit.config.compiling import compiled, messages, out_of_range, server, with_server

KINDS = ["TCP_CHECK", "HTTP_GET", "SSL_GET"]


def checker(kind: str, body: str = "") -> str:
    """A checker with ``body``, and with a page where it needs one."""
    return f"{kind} {{\n{body}\n{'' if kind == 'TCP_CHECK' else 'url { path / }'}\n}}"


def check(kind: str, body: str = "", of_server: str = "", of_service: str = "") -> TcpCheck | HttpCheck:
    (found,) = server(f"{of_server}\n{checker(kind, body)}", of_service).checks
    return found


def url(body: str) -> tuple[Url, ...]:
    return server(f"HTTP_GET {{\nurl {{\n{body}\n}}\nurl {{\npath /sound\n}}\n}}").checks[0].urls


def test_a_server_without_checkers_has_no_checks():
    assert server("").checks == ()


@pytest.mark.parametrize(("kind", "before_retry"), [("TCP_CHECK", 1.0), ("HTTP_GET", 3.0), ("SSL_GET", 3.0)])
def test_an_empty_checker_has_keepalived_s_defaults(kind, before_retry):
    found = check(kind)
    assert found.name == kind
    assert found.timing == CheckTiming(delay_loop_s=60.0, retry=1, delay_before_retry_s=before_retry, warmup_s=60.0, alpha=False)
    assert (found.connect, found.connect_timeout_s, found.bind) == (Endpoint("10.0.0.1", 80), 5.0, None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("keyword", "field", "value"),
    [
        ("retry", "retry", 7),
        ("delay_before_retry", "delay_before_retry_s", 7.0),
        ("warmup", "warmup_s", 7.0),
        ("delay_loop", "delay_loop_s", 7.0),
    ],
)
def test_timing_cascades_from_service_to_server_to_checker(kind, keyword, field, value):
    other = f"{keyword} 9"
    assert getattr(check(kind, f"{keyword} 7", other, other).timing, field) == value
    assert getattr(check(kind, "", f"{keyword} 7", other).timing, field) == value
    assert getattr(check(kind, "", "", f"{keyword} 7").timing, field) == value


@pytest.mark.parametrize("kind", KINDS)
def test_other_settings_cascade_too(kind):
    assert check(kind, "", "alpha").timing.alpha is True
    assert check(kind, "alpha off", "alpha", "alpha").timing.alpha is False
    assert check(kind, "", "", "connect_timeout 2").connect_timeout_s == 2.0
    assert check(kind, "connect_timeout 3", "connect_timeout 2").connect_timeout_s == 3.0


def test_warmup_is_the_delay_loop_unless_given():
    assert check("TCP_CHECK", "", "", "delay_loop 7").timing.warmup_s == 7.0
    assert check("TCP_CHECK", "warmup 0", "", "delay_loop 7").timing.warmup_s == 0.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("body", "connect", "bind"),
    [
        ("connect_ip 10.0.0.9", Endpoint("10.0.0.9", 80), None),
        ("connect_port 8080", Endpoint("10.0.0.1", 8080), None),
        ("connect_ip 2001:db8::9\nconnect_port 8080", Endpoint("2001:db8::9", 8080), None),
        ("bindto 10.0.0.2", Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 0)),
        ("bind_port 4000", Endpoint("10.0.0.1", 80), Endpoint("0.0.0.0", 4000)),
        ("bindto 10.0.0.2\nbind_port 4000", Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 4000)),
        ("connect_ip 2001:db8::9\nbind_port 4000", Endpoint("2001:db8::9", 80), Endpoint("::", 4000)),
    ],
)
def test_a_checker_connects_to_its_declared_endpoint(kind, body, connect, bind):
    found = check(kind, body)
    assert (found.connect, found.bind) == (connect, bind)


@pytest.mark.parametrize("kind", ["NAT", "DR", "TUN"])
@pytest.mark.parametrize(
    ("service_port", "server_port", "forwarded", "checked", "reported"),
    [
        ("443", "8443", {"NAT": 8443}, 8443, "{kind} cannot change the port: 443 is used; checks go to 8443"),
        ("443", "443", {}, 443, ""),
        ("443", "", {}, 443, "TCP_CHECK goes to port 443, that of the service; keepalived's goes to port 0 and always fails"),
        ("0", "80", {"NAT": 80}, 80, "{kind} cannot change the port: that of the packet is used; checks go to 80"),
    ],
)
def test_a_checker_goes_to_the_port_that_the_server_declares(kind, service_port, server_port, forwarded, checked, reported):
    result = compiled(
        f"virtual_server 192.0.2.1 {service_port} {{\nprotocol TCP\npersistence_timeout 9\nlb_kind {kind}\n"
        f"real_server 10.0.0.1 {server_port} {{\nTCP_CHECK {{\n}}\n}}\n}}"
    )
    (server,) = result.configuration.virtual_servers[0].real_servers
    assert server.endpoint == Endpoint("10.0.0.1", forwarded.get(kind, int(service_port)))
    assert server.checks[0].connect == Endpoint("10.0.0.1", checked)
    expected = [reported.format(kind=kind)] if reported and (kind != "NAT" or "{kind}" not in reported) else []
    assert [found.message for found in result.findings] == expected


@pytest.mark.parametrize("kind", ["HTTP_GET", "SSL_GET"])
@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ("", "virtualhost", ""),
        ("virtualhost www", "virtualhost", "www"),
        ("", "http_protocol", "1.0"),
        ("http_protocol 1.0c", "http_protocol", "1.0C"),
        ("http_protocol 1.1", "http_protocol", "1.1"),
        ("", "enable_sni", False),
    ],
)
def test_an_http_check_holds(kind, body, field, value):
    assert getattr(check(kind, body), field) == value


def test_only_ssl_get_is_over_tls_and_may_name_the_host():
    assert (check("HTTP_GET").tls, check("SSL_GET").tls) == (False, True)
    assert check("SSL_GET", "enable_sni").enable_sni is True
    assert check("SSL_GET", "enable_sni off").enable_sni is False


def test_the_host_cascades():
    assert check("HTTP_GET", "", "virtualhost b", "virtualhost c").virtualhost == "b"
    assert check("HTTP_GET", "", "", "virtualhost c").virtualhost == "c"


def test_the_old_spelling_of_retry_works_with_a_warning():
    assert check("HTTP_GET", "nb_get_retry 4").timing.retry == 4
    assert messages(with_server(checker("HTTP_GET", "nb_get_retry 4"))) == ["warning: 'nb_get_retry' is deprecated"]


def test_checkers_of_a_server_keep_their_order():
    body = "".join(checker(kind) + "\n" for kind in ("SSL_GET", "TCP_CHECK", "TCP_CHECK", "HTTP_GET"))
    assert [found.name for found in server(body).checks] == ["SSL_GET", "TCP_CHECK", "TCP_CHECK", "HTTP_GET"]


# -- url --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("path /", Url(path="/")),
        ("path index.html", Url(path="/index.html")),
        ('path ""', Url(path="/")),
        ("path /?a=b%20c", Url(path="/?a=b%20c")),
        ("path /\nstatus_code 200", Url(path="/", status_codes=((200, 200),))),
        ("path /\nstatus_code 100-599\nstatus_code 404", Url(path="/", status_codes=((100, 599), (404, 404)))),
        ("path /\nvirtualhost www", Url(path="/", virtualhost="www")),
        (
            "path /\ndigest 9B3A0C85A887A256D6939DA88AABD8CD",
            Url(path="/", digest="9b3a0c85a887a256d6939da88aabd8cd"),
        ),
    ],
)
def test_a_page_is_read(body, expected):
    assert url(body)[0] == expected


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        ("status_code 200", "error: 'url' without a path: left out"),
        ("path", "missing: 'path' needs a path"),
        ('path "/a b"', "error: a path has no blanks or control characters"),
        ('path "/a\tb"', "error: a path has no blanks or control characters"),
    ],
)
def test_a_page_without_a_path_is_left_out(body, reported):
    result = with_server(f"HTTP_GET {{\nurl {{\n{body}\n}}\nurl {{\npath /sound\n}}\n}}")
    assert reported in messages(result)
    assert result.configuration.virtual_servers[0].real_servers[0].checks[0].urls == (Url(path="/sound"),)


@pytest.mark.parametrize("code", ["99", "600", "1000", "500-600", "2xx", "300-200", "200-", "-299", "200-2x", "20²"])
def test_what_is_no_status_code_is_left_out_and_the_others_stand(code):
    body = f"path /\nstatus_code {code} 204"
    result = with_server(f"HTTP_GET {{\nurl {{\n{body}\n}}\n}}")
    assert messages(result) == [f"error: '{code}' is not a status code or range: left out"]
    assert result.findings.items[0].place.column == len("status_code ") + 1
    assert url(body)[0] == Url(path="/", status_codes=((204, 204),))


def test_a_missing_status_code_is_reported_as_missing():
    assert messages(with_server("HTTP_GET {\nurl {\npath /\nstatus_code\n}\n}")) == ["missing: 'status_code' needs a status code"]


@pytest.mark.parametrize("digest", ["9b3a", "9b3a0c85a887a256d6939da88aabd8cg", "9b3a0c85a887a256d6939da88aabd8cd0"])
def test_what_is_no_digest_is_rejected(digest):
    body = f"path /\ndigest {digest}"
    assert messages(with_server(f"HTTP_GET {{\nurl {{\n{body}\n}}\n}}")) == [f"error: '{digest}' is not an MD5 digest"]


@pytest.mark.parametrize("kind", ["HTTP_GET", "SSL_GET"])
def test_an_http_check_without_a_page_is_left_out_and_its_neighbours_stand(kind):
    result = with_server(f"{kind} {{\n}}\nTCP_CHECK {{\n}}")
    assert messages(result) == [f"error: {kind} without a url: left out"]
    assert [found.name for found in result.configuration.virtual_servers[0].real_servers[0].checks] == ["TCP_CHECK"]


def test_a_status_code_of_many_digits_is_rejected_not_raised():
    assert url(f"path /\nstatus_code {'9' * 5000}")[0].status_codes == ()


def test_a_check_without_a_port_is_reported():
    result = compiled(
        "virtual_server 192.0.2.1 0 {\nprotocol TCP\npersistence_timeout 9\nreal_server 10.0.0.1 {\nTCP_CHECK {\n}\n}\n}",
    )
    assert len(result.findings) == 1


@pytest.mark.parametrize(
    ("keyword", "low", "high", "step"),
    [
        ("retry", 0, 2**32 - 1, 1),
        ("delay_before_retry", 0, 31 * 86400, 0.5),
        ("warmup", 0, 31 * 86400, 0.5),
        ("connect_timeout", 0.001, 4294.967, 0.0005),
        ("delay_loop", 0.001, 31 * 86400, 0.0005),
        ("connect_port", 1, 65535, 1),
        ("bind_port", 1, 65535, 1),
    ],
)
def test_numbers_of_every_checker_have_a_range(keyword, low, high, step):
    values = (low - step, low, high, high + step)
    assert [out_of_range(with_server("\n".join(checker(kind, f"{keyword} {value}") for kind in KINDS))) for value in values] == [
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(("value", "wrong"), [(-1, True), (0, False), (2**32 - 1, False), (2**32, True)])
def test_the_old_spelling_of_retry_has_the_same_range(value, wrong):
    assert out_of_range(with_server(checker("HTTP_GET", f"nb_get_retry {value}"))) is wrong
