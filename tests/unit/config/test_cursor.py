import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.config import Findings, Severity
from relevo.config.cursor import Cursor, Rejected, canonical_address
from relevo.config.source import Line, words
from relevo.config.tree import Statement
from relevo.model import Endpoint, Script


def cursor(line: str) -> Cursor:
    first, *args = words(line)
    return Cursor(Statement(first, args, Line("f", 1, line), 0), Findings())


def only(at: Cursor) -> tuple[str, str, int]:
    (found,) = at.findings
    return found.severity, found.message, found.place.column


def refused(at: Cursor, read, *arguments) -> tuple[str, str, int]:
    with pytest.raises(Rejected):
        read(*arguments)
    return only(at)


def test_words_are_taken_from_left_to_right():
    at = cursor("k a b c")
    assert (at.more(), at.peek(), at.word(), at.peek()) == (True, "a", "a", "b")
    assert at.rest() == ["b", "c"]
    assert (at.more(), at.peek(), at.rest()) == (False, "", [])


def test_a_missing_word_is_reported_at_the_keyword():
    at = cursor("  priority")
    assert refused(at, at.word, "a priority") == (Severity.MISSING, "'priority' needs a priority", 3)


def test_findings_are_at_the_word_read_last_by_default():
    at = cursor("k a b c")
    at.word()
    at.word()
    at.warn("here")
    at.warn("there", word=3)
    at.report(Severity.NOTE, "keyword", word=0)
    assert [(found.message, found.place.column) for found in at.findings] == [("here", 5), ("there", 7), ("keyword", 1)]


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("7", 7), ("-5", -5), ("+5", 5), ("007", 7), ("100", 100), ("-100", -100)])
def test_an_integer_in_range_is_taken(text, value):
    at = cursor(f"k {text}")
    assert at.integer(-100, 100) == value
    assert len(at.findings) == 0


@pytest.mark.parametrize(
    ("text", "value", "tail"), [("5s", 5, "s"), ("51.", 51, "."), ("1;", 1, ";"), ("-3x", -3, "x"), ("0x10", 0, "x10")]
)
def test_garbage_behind_an_integer_is_warned_about_and_the_number_used(text, value, tail):
    at = cursor(f"k {text}")
    assert at.integer(-100, 100) == value
    assert only(at) == (Severity.WARNING, f"'{tail}' after the number {value} is ignored", 3)


@pytest.mark.parametrize(("text", "value"), [("1_0", 1), ("5-3", 5), ("80-81", 80)])
def test_only_the_leading_digits_are_the_number(text, value):
    at = cursor(f"k {text}")
    assert at.integer(0, 100) == value
    assert len(at.findings) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("101", "101 is out of range"),
        ("-101", "-101 is out of range"),
        ("300x", "300 is out of range"),
        ("x", "'x' is not a count"),
        ("--5", "'--5' is not a count"),
        ('""', "'' is not a count"),
        (".5", "'.5' is not a count"),
    ],
)
def test_an_integer_that_cannot_be_used_is_rejected(text, message):
    at = cursor(f"k {text}")
    with pytest.raises(Rejected):
        at.integer(-100, 100, "a count")
    assert at.findings.items[-1].message == message
    assert at.findings.items[-1].severity is Severity.ERROR


@pytest.mark.parametrize(("low", "value"), [(0, 0), (-5, 0), (1, None)])
def test_a_word_for_a_number_is_0_where_keepalived_takes_it_so(low, value):
    at = cursor("k off")
    if value is None:
        assert refused(at, lambda: at.integer(low, 9, "a count", words=True))[1] == "'off' is not a count"
    else:
        assert at.integer(low, 9, "a count", words=True) == value
        assert only(at) == (Severity.ERROR, "'off' is not a count: 0 is used, as in keepalived", 3)


def test_a_number_of_many_digits_is_rejected_not_raised():
    at = cursor("k " + "9" * 5000)
    with pytest.raises(Rejected):
        at.integer(0, 100)


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), ("0.25", 0.25), (".5", 0.5), ("1.23456789", 1.234568), ("0", 0.0), ("10", 10.0)]
)
def test_seconds_are_kept_to_the_microsecond(text, value):
    assert cursor(f"k {text}").seconds(0, 10) == value


@pytest.mark.parametrize("text", ["-1", "10.5", "nan", "inf", "-inf", "1e300", "10s", '""'])
def test_a_time_that_cannot_be_used_is_rejected(text):
    at = cursor(f"k {text}")
    assert refused(at, at.seconds, 0, 10)[0] is Severity.ERROR


def test_a_word_for_a_time_is_0_as_in_keepalived():
    at = cursor("k off")
    assert at.seconds(0, 10) == 0.0
    assert only(at) == (Severity.ERROR, "'off' is not a time: 0 is used, as in keepalived", 3)
    at = cursor("k off")
    assert refused(at, at.seconds, 1, 10)[1] == "'off' is not a time"


def test_a_time_holds_no_underscores():
    at = cursor("k 1_0")
    with pytest.raises(Rejected):
        at.seconds(0, 10)


@pytest.mark.parametrize(
    ("line", "value"),
    [("k", True), ("k on", True), ("k true", True), ("k yes", True), ("k off", False), ("k false", False), ("k no", False)],
)
def test_booleans(line, value):
    assert cursor(line).boolean() is value


@pytest.mark.parametrize("text", ["ON", "True", "1", "0", "maybe"])
def test_other_words_are_no_booleans(text):
    at = cursor(f"k {text}")
    assert refused(at, at.boolean) == (Severity.ERROR, f"'{text}' is neither on nor off", 3)


@pytest.mark.parametrize("text", ["starttls", "STARTTLS", "StartTLS"])
def test_a_choice_in_any_case_is_returned_as_listed(text):
    assert cursor(f"k {text}").choice(["none", "StartTls"], "a kind", any_case=True) == "StartTls"


@pytest.mark.parametrize(("text", "written"), [("pass", "PASS"), ("Pass", "PASS"), ("AH", None)])
def test_case_counts_in_a_choice(text, written):
    at = cursor(f"k {text}")
    if written is None:
        assert at.choice(["PASS", "AH"], "a type") == text
        return
    assert refused(at, at.choice, ["PASS", "AH"], "a type")[1] == f"'{text}' is not a type: case counts, in keepalived too"
    assert at.findings.items[0].hint == f"write {written}"


@pytest.mark.parametrize(("text", "hint"), [("starttl", "did you mean 'starttls'?"), ("zebra", "one of: none starttls")])
def test_a_word_that_is_no_choice_gets_a_hint(text, hint):
    at = cursor(f"k {text}")
    assert refused(at, at.choice, ["none", "starttls"], "a kind") == (Severity.ERROR, f"'{text}' is not a kind", 3)
    assert at.findings.items[0].hint == hint


def test_a_hint_names_the_choice_as_listed():
    at = cursor("k MASTR")
    with pytest.raises(Rejected):
        at.choice(["MASTER", "BACKUP"], "a state")
    assert at.findings.items[0].hint == "did you mean 'MASTER'?"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::", "::"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
    ],
)
def test_addresses_are_returned_in_canonical_form(text, canonical):
    assert ipaddress.ip_address(cursor(f"k {text}").address()) == ipaddress.ip_address(canonical)
    if not text.startswith("::f"):  # how an embedded IPv4 address is formatted depends on Python's version
        assert canonical_address(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2",
        "192.0.2.256",
        "192.0.2.01",
        "192.0.2.1.1",
        "192.0.2.x",
        "1234.0.2.1",
        "192..2.1",
        "192.0.2/24",
        "\u0661.0.2.1",
        "www.example.net",
        "2001::1::2",
        '""',
    ],
)
def test_what_is_no_address_is_rejected(text):
    at = cursor(f"k {text}")
    severity, message, _ = refused(at, at.address, "a peer")
    assert severity is Severity.ERROR
    assert message.endswith("is not a peer")


@pytest.mark.parametrize(("text", "tail"), [("192.0.2.1/24", "/24"), ("192.0.2.1-9", "-9"), ("2001:db8::1/64", "/64")])
def test_what_follows_an_address_is_ignored_with_a_warning(text, tail):
    at = cursor(f"k {text}")
    address = text.removesuffix(tail)
    assert at.address("a peer") == address
    assert only(at) == (Severity.WARNING, f"'{tail}' after the address {address} is ignored", 3)


@pytest.mark.parametrize("text", ["5s", "5.5"])
def test_a_number_that_is_not_lenient_has_nothing_behind_it(text):
    at = cursor(f"k {text}")
    with pytest.raises(Rejected):
        at.integer(0, 9, "a count", lenient=False)
    assert only(at) == (Severity.ERROR, f"'{text}' is not a count", 3)


def test_an_option_without_its_value_is_named():
    at = cursor("k label")
    at.word()
    assert refused(at, at.value_of, "label", "a label") == (Severity.ERROR, "'label' needs a label: left out", 3)
    assert at.findings.items[0].hint == "write label <label>"


@given(st.text(alphabet="0123456789.", max_size=16))
def test_short_cut_for_ipv4_agrees_with_the_library(text):
    try:
        expected = str(ipaddress.IPv4Address(text))
    except ValueError:
        with pytest.raises(ValueError, match=r".*"):
            canonical_address(text)
    else:
        assert canonical_address(text) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("k 192.0.2.1 80", Endpoint("192.0.2.1", 80)),
        ("k 192.0.2.1", Endpoint("192.0.2.1", 0)),
        ("k 2001:DB8::1 65535", Endpoint("2001:db8::1", 65535)),
    ],
)
def test_an_endpoint_is_an_address_and_perhaps_a_port(line, expected):
    assert cursor(line).endpoint("a server") == expected


@pytest.mark.parametrize("line", ["k 192.0.2.1 65536", "k 192.0.2.1 http", "k host 80", "k"])
def test_what_is_no_endpoint_is_rejected(line):
    at = cursor(line)
    with pytest.raises(Rejected):
        at.endpoint("a server")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("k /bin/x", Script(("/bin/x",))),
        ('k "/bin/x a b"', Script(("/bin/x", "a", "b"))),
        ("k \"/bin/x 'a b' c\"", Script(("/bin/x", "a b", "c"))),
        (r'k "/bin/x a\ b"', Script(("/bin/x", "a b"))),
        ('k "/bin/x a" nobody', Script(("/bin/x", "a"), "nobody")),
        ('k "/bin/x a" nobody nogroup', Script(("/bin/x", "a"), "nobody", "nogroup")),
        ('k "/bin/x a" nobody:nogroup', Script(("/bin/x", "a"), "nobody", "nogroup")),
        ('k "/bin/x a" nobody :nogroup', Script(("/bin/x", "a"), "nobody", "nogroup")),
    ],
)
def test_a_script_is_a_command_and_perhaps_an_identity(line, expected):
    at = cursor(line)
    assert at.script() == expected
    assert not at.more()
    assert len(at.findings) == 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("k /bin/x nobody", Script(("/bin/x",), "nobody")),
        ("k /bin/x nobody nogroup", Script(("/bin/x",), "nobody", "nogroup")),
        ("k '/bin/x a' nobody", Script(("/bin/x", "a"), "nobody")),
    ],
)
def test_a_user_may_stand_behind_any_command(line, expected):
    assert cursor(line).script() == expected


@pytest.mark.parametrize("line", ['k ""', 'k "  "', "k \"''\""])
def test_an_empty_command_is_rejected(line):
    at = cursor(line)
    assert refused(at, at.script) == (Severity.ERROR, "empty command", 3)


def test_a_missing_command_is_reported_as_missing():
    at = cursor("notify")
    assert refused(at, at.script)[:2] == (Severity.MISSING, "'notify' needs a command")


def test_a_command_without_its_full_path_is_noted():
    at = cursor("k killall -0 haproxy")
    assert at.script().argv[0] == "killall"
    assert only(at) == (Severity.NOTE, "'killall' is not a full path: it is looked for in PATH", 3)
