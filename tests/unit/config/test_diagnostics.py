import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.config import Compiled, Finding, Findings, Place, Severity, exit_status, render
from relevo.config.diagnostics import MAX_FINDINGS
from relevo.config.secrets import masked_line, masked_message
from tests.unit.config.compiling import INSTANCE, compiled, rendered, with_globals, with_instance

HERE = Place("f.conf", 1)


def finding(severity: Severity, place: Place = HERE, message: str = "m", hint: str = "") -> Finding:
    return Finding(severity, place, message, hint)


@pytest.mark.parametrize(
    ("severities", "status"),
    [
        ([], 0),
        (["note"], 0),
        (["warning"], 5),
        (["error"], 5),
        (["security"], 6),
        (["missing"], 2),
        (["fatal"], 4),
        (["note", "warning"], 5),
        (["error", "security", "note"], 6),
        (["missing", "security", "error"], 2),
        (["missing", "fatal", "error"], 2),
    ],
)
def test_exit_status_is_that_of_the_gravest(severities, status):
    for order in itertools.permutations(severities):
        assert exit_status(finding(Severity(severity)) for severity in order) == status


def test_a_place_is_formatted_as_compilers_do():
    assert str(Place("a/b.conf", 3, 7, 2)) == "a/b.conf:3:7"


def test_findings_count_and_iterate_in_the_order_they_were_made():
    findings = Findings()
    findings.add(Severity.ERROR, Place("f", 2), "second")
    findings.add(Severity.NOTE, Place("f", 1), "first", "hint", "word")
    assert len(findings) == 2
    assert [found.message for found in findings] == ["second", "first"]
    assert list(findings)[1] == Finding(Severity.NOTE, Place("f", 1), "first", "hint", "word")


def test_findings_are_sorted_by_file_met_then_line_then_column():
    findings = Findings()
    for file, line, column in (("z", 2, 1), ("a", 1, 1), ("z", 1, 9), ("z", 1, 2)):
        findings.add(Severity.NOTE, Place(file, line, column), "")
    assert [str(found.place) for found in findings.in_order()] == ["z:1:2", "z:1:9", "z:2:1", "a:1:1"]


def excerpt(line: str, column: int, length: int) -> tuple[str, str]:
    text = render(finding(Severity.ERROR, Place("f", 1, column, length)), {"f": [line]})
    _, source, carets = text.split("\n")
    return source, carets


def test_a_finding_is_rendered_with_its_line_a_caret_and_the_hint():
    place = Place("f.conf", 2, 7, 5)
    text = render(finding(Severity.WARNING, place, "odd", "fix it"), {"f.conf": ["x", "state SLAVE {\r"]})
    assert text.split("\n") == [
        "f.conf:2:7: warning: odd",
        "    2 | state SLAVE {",
        "      |       ^^^^^",
        "      = hint: fix it",
    ]


@pytest.mark.parametrize("sources", [{}, {"f.conf": []}, {"other": ["x"]}])
def test_a_finding_without_its_line_is_rendered_without_an_excerpt(sources):
    assert render(finding(Severity.ERROR), sources) == "f.conf:1:1: error: m"


def test_line_numbers_of_six_digits_keep_the_caret_in_place():
    lines = [""] * 123455 + ["ab"]
    _, source, carets = render(finding(Severity.ERROR, Place("f", 123456, 2, 1)), {"f": lines}).split("\n")
    assert source.index("b") == carets.index("^")


def test_tabs_before_the_word_are_tabs_before_the_caret():
    source, carets = excerpt("\tweight\t-1", 9, 2)
    assert source == "    1 | \tweight\t-1"
    assert carets == "      | \t      \t^^"


@pytest.mark.parametrize("column", [1, 2, 80, 81, 82, 5000, 9998, 9999, 10000, 10001])
def test_a_long_line_is_cut_around_the_place(column):
    line = "".join(chr(0x4E00 + number) for number in range(10_000))  # every character is another one
    source, carets = excerpt(line, column, 1)
    assert len(source) <= 170
    assert carets.count("^") == 1
    assert source[carets.index("^") :][:1] == line[column - 1 : column]


@pytest.mark.parametrize(("length", "carets"), [(0, 1), (1, 1), (3, 3), (4, 3), (100_000, 3)])
def test_carets_do_not_run_past_the_line(length, carets):
    assert excerpt("abcdef", 4, length)[1].count("^") == carets


@pytest.mark.parametrize("column", [4, 5, 100])
def test_a_place_behind_the_line_still_gets_a_caret(column):
    assert excerpt("abc", column, 1)[1].count("^") == 1


def test_control_characters_of_the_file_do_not_reach_the_terminal():
    assert excerpt("a\x1b[2J\x07b", 1, 1)[0] == "    1 | a\ufffd[2J\ufffdb"


def test_control_characters_in_a_word_do_not_reach_the_terminal():
    assert "\x1b" not in rendered(compiled("ab\x1b[2J\n"))


@given(st.text(st.characters(exclude_characters="\n"), max_size=400), st.integers(1, 500), st.integers(0, 500))
def test_any_place_can_be_rendered(line, column, length):
    text = render(finding(Severity.NOTE, Place("f", 1, column, length)), {"f": [line]})
    assert len(text.split("\n")) == 3
    assert "^" in text


def test_the_rest_of_a_secret_is_not_in_the_model_dump():
    result = with_instance("authentication {\nauth_type PASS\nauth_pass hush-hush\n}")
    assert "hush" not in repr(result.configuration)


def text_of(result: Compiled) -> str:
    """All findings as text and JSON."""
    return rendered(result) + "".join(f"{f.message} {f.hint} {f.keyword}" for f in result.findings)


@pytest.mark.parametrize(
    "body",
    [
        "authentication {\nauth_type PASS\nauth_pass hush-hush\n}",
        "authentication {\nauth_type PASS\nauth_pass a hush-hush\n}",
        "authentication {\nauth_type PAS auth_pass hush-hush\n}",
        'authentication {\nauth_type PASS\nauth_pass "hush-hush" b\n}',
        "authentication { auth_type PASS auth_pas hush }",
        "authentication {\nauth_type PASS\nauth_pas hush\n}",
        "authentication {\nauth_type PASS\nauth_psas hush\n}",
        "authentication {\nauth_type PASS\nauht_pass hush\n}",
        "authentication {\nauth_type PASS\nauthpass=hush\n}",
        "authentication {\nauth_type PASS\nauth_pass hush\n{\n}\n}",
        'auth_pas "hush',
        "priority 1 auth_pass hush",
        "hush_key hush-hush",
    ],
)
def test_secrets_are_not_in_findings(body):
    result = with_instance(body)
    assert len(result.findings)
    assert "hush" not in text_of(result).replace("hush_key", "")


@pytest.mark.parametrize(
    "line",
    [
        "$AUTH_PASS=hush",
        "$PASSWORD=hush hush",
        "$VRRP_SECRET=hush",
        "$key=hush\\",
        "auth_pass hush",
        "passwd hush",
        '$A_PASS="hush"',
    ],
)
def test_secrets_outside_any_block_are_not_in_findings(line):
    result = compiled(f"{line} # \u00a0\n{line}\u00a0\n{INSTANCE}")
    assert len(result.findings)
    assert "hush" not in text_of(result)


@pytest.mark.parametrize(
    "text",
    [
        "$P=hush\n{INSTANCE}authentication {\nauth_type PASS\nauth_pass $P x\n}",
        "$P=hush\u00a0\n{INSTANCE}authentication {\nauth_type PASS\nauth_pass ${P}x extra\n}",
        "$LINE=auth_pass hush extra\n{INSTANCE}authentication {\nauth_type PASS\n$LINE\n}",
        "$P=hush\n{INSTANCE}authentication {\nauth_type PASS\n$P auth_pas $P\n}",
        "$AUTH=hush\n{INSTANCE}nonsense $AUTH",
        "$BODY=auth_type PASS \\\nauth_pas hush \\\nauth_pass hush\n\n{INSTANCE}authentication {\n$BODY\n}",
        "~LST(p, hush, hushhush) $S=$p\n{INSTANCE}authentication {\nauth_type PASS\nauth_pass $p $S\n}",
    ],
)
def test_secrets_that_come_out_of_a_definition_are_not_in_findings(text):
    instance = "vrrp_instance V {\ninterface eth0\nvirtual_router_id 1\nvirtual_ipaddress {\n192.0.2.1\n}\n"
    result = compiled(text.replace("{INSTANCE}", instance) + "\n}\n")
    assert len(result.findings)
    assert "hush" not in text_of(result)


@pytest.mark.parametrize(
    "line", ["lvs_sync_key hush", "lvs_sync_kye hush", "lvs_sync_key", "smtp_password hush", "smtp_pasword hush"]
)
def test_keys_and_passwords_are_not_in_findings(line):
    result = with_globals(line)
    assert len(result.findings)
    assert "hush" not in text_of(result)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("virtual_router_id 51x", "51x"),
        ("auth_type PASSS", "PASSS"),
        ("cache_bypass one", "one"),
        ("notify /etc/pass.sh x", "x"),
        ("track_script {", "{"),
    ],
)
def test_what_is_no_secret_is_shown(line, shown):
    assert masked_line(line) == line
    assert shown in masked_line(line)


@pytest.mark.parametrize(
    ("message", "line", "expected"),
    [
        ("'ab' is 1", "auth_pass ab", "'***' is 1"),
        ("'a' has a place", "auth_pass a", "'***' has a place"),
        ("unknown keyword '$P_PASS=abc'", "$P_PASS=abc", "unknown keyword '$P_PASS=***'"),
        ("'abc' behind abcdef", "auth_pass abcdef abc", "'***' behind ***"),
        ("'abc' is odd", "priority abc", "'abc' is odd"),
    ],
)
def test_a_message_is_masked_by_the_secrets_of_its_line(message, line, expected):
    assert masked_message(message, line) == expected


def test_a_mail_password_is_not_in_rendered_findings():
    result = with_globals("smtp_password hush-hush")
    assert len(result.findings)
    assert "hush" not in rendered(result)


def test_secrets_are_not_in_the_repr_of_what_was_compiled():
    result = with_instance("authentication {\nauth_type PASS\nauth_pass hush\n}")
    assert "hush" not in repr(result)
    assert "hush" not in repr(result.findings)


def test_findings_without_end_are_counted_after_the_first_thousand():
    result = compiled("nonsense\n" * 5000 + "vrrp_instance V {\n  virtual_router_id\n}\n")
    first = next(iter(result.findings))
    alike = [finding for finding in result.findings if finding.severity is first.severity]
    assert len(alike) == MAX_FINDINGS + 1
    assert re.fullmatch(r"from here on, 40\d\d more of this severity", alike[-1].message)
    assert alike[-1].place.line == MAX_FINDINGS + 1
    assert exit_status(result.findings) == 2, "a graver one that comes later is not among those that are counted"


def test_an_argument_whose_finding_was_only_counted_has_its_finding_in_the_next_file():
    """Arguments without a finding are remembered: one that was left out is a finding too."""
    blocks = "".join(f"vrrp_instance V{n} {{\n  garp_master_repeat 471{n % 9}2\n}}\n" for n in range(MAX_FINDINGS + 50))
    late = "vrrp_instance W {\n  garp_master_repeat 4713\n}\n"
    compiled(blocks + late)
    assert any("at most 100" in finding.message for finding in compiled(late).findings)
