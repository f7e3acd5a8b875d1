"""Lines that select, define and repeat, as keepalived reads them (keepalived.conf(5); lib/parser.c)."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.config import Findings, Included, Severity, compile_text, render
from relevo.config.macros import MAX_LINES, Surroundings
from relevo.config.preprocess import Preprocessor
from relevo.config.source import MAX_LINE_LENGTH, without_comment

HERE = Surroundings(
    config_id="me",
    folder="/etc/keepalived",
    environment={"SITE": "north", "EMPTY": ""},
    random=lambda seed: random.Random(seed).randint,
)


def read(text, reader=lambda pattern, including: [], surroundings=HERE):
    """The lines of ``text`` as words joined by one blank, and the findings."""
    findings = Findings()
    lines = list(Preprocessor(reader, findings, surroundings).read(text, "f"))
    return [" ".join(words.all) for _, words in lines], findings


def lines(text, **how):
    found, findings = read(text, **how)
    assert [finding.message for finding in findings if finding.severity is not Severity.NOTE] == []
    return found


# -- @id --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("@me priority 100", ["priority 100"]),
        ("@you priority 100", []),
        ("@^me priority 100", []),
        ("@^you priority 100", ["priority 100"]),
        ("  @me\tpriority 100", ["priority 100"]),
        ("@me @^you priority 100", ["priority 100"]),
        ("@me @you priority 100", []),
        ("@me", []),
        ("@ priority 100", []),
        ("@^ priority 100", ["priority 100"]),
        ("@men priority 100", []),
        ("mail a@me b", ["mail a@me b"]),
        ('@me notify "a # b" # c', ["notify a # b"]),
    ],
)
def test_a_line_counts_only_where_its_id_is_meant(line, expected):
    assert lines(line) == expected


def test_without_an_id_no_line_is_selected_and_all_excluded_ones_are():
    assert lines("@me a\n@^me b\n@ c", surroundings=Surroundings()) == ["b"]


def test_an_id_may_select_a_definition_and_come_from_one():
    assert lines("@me $P=100\n@you $P=50\npriority $P") == ["priority 100"]
    assert lines("$ME=@me a\n$ME") == ["a"]


# -- definitions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$P=70\npriority $P", ["priority 70"]),
        ("$P = 70\npriority $P", ["$P = 70", "priority $P"]),
        ("$P=  a b\t\nx $P y", ["x a b y"]),
        ("$P=1 # why\nx $P", ["x 1"]),
        ("$N=1\neth${N}.5 $N,$N) $N.", ["eth1.5 1,1) $N."]),
        ("$A=$B\n$B=x\n$A ${A}", ["x x"]),
        ("$A=1\n$A=2\n$A", ["2"]),
        ("$EMPTY=\na $EMPTY b", ["a b"]),
        ("$1=x\n$1", ["$1=x", "$1"]),
        ("$_mine=x\n$_mine", ["x"]),
        ("a $NOT ${NEITHER} $", ["a $NOT $ { NEITHER } $"]),
        ('$Q="a b"\nx $Q', ["x a b"]),
        ('x "$P" \n$P=1\nx "${P}"', ["x $P", "x 1"]),
        ("$K=virtual_ipaddress {\n$K\na\n}", ["virtual_ipaddress {", "a", "}"]),
    ],
)
def test_definitions_are_replaced_from_their_line_on(text, expected):
    assert lines(text) == expected


def test_a_definition_may_have_several_lines():
    text = "$I=vrrp_instance V { \\\n    interface eth0   \\\n\n  x\n$J= \\\n  # a comment \\\n\ty 1 \\\n  z\nhead $J\n$I"
    assert lines(text) == ["x", "head y 1", "z", "vrrp_instance V {", "interface eth0"]


def test_a_definition_of_several_lines_counts_only_at_the_end_of_a_line():
    assert lines("$L=a \\\nb\n$L x\n${L}x\nx ${L}") == ["$L x", "$ { L } x", "x a", "b"]


def test_definitions_of_several_lines_contain_one_another():
    assert lines("$IN=in1 \\\nin2\n$OUT=o1 $IN \\\no2 $IN \\\no3\n$OUT") == ["o1 in1", "in2", "o2 in1", "in2", "o3"]


def test_a_definition_that_lacks_its_last_line_ends_with_the_file():
    assert lines("a\n$L=x \\\ny \\") == ["a"]
    assert lines("include g\n$L", reader=lambda pattern, by: [Included("g", "$L=x \\\ny \\")]) == ["x", "y"]


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("${_PWD}/x.sh", "/etc/keepalived/x.sh"),
        ("$_INSTANCE", "me"),
        ("a${_HASH}b ${_BANG}", "a"),  # as in keepalived: out of quotes it begins a comment
        (chr(34) + "a ${_HASH} ${_BANG}" + chr(34), "a # !"),
        ('"a ${_HASH}"', "a #"),
        ("${_ENV SITE}", "north"),
        ("x${_ENV EMPTY}y${_ENV MISSING}", "xy"),
        ("${_RANDOM 7 7}", "7"),
        ("${_RANDOM 9 1}", "$ { _RANDOM 9 1 }"),
        ("${_PWD 1}", "$ { _PWD 1 }"),
        ("${_ENV}", "$ { _ENV }"),
    ],
)
def test_predefined_names(use, expected):
    assert lines(f"x {use}") == [f"x {expected}"]


def test_a_predefined_name_may_be_defined_anew():
    assert lines("$_PWD=here\n$_PWD") == ["here"]


def test_an_included_file_has_a_folder_of_its_own():
    assert lines("include g\n$_PWD", reader=lambda pattern, by: [Included("/srv/parts/g", "$_PWD")]) == [
        "/srv/parts",
        "/etc/keepalived",
    ]


def test_random_numbers_repeat_with_a_seed_and_stay_in_their_range():
    text = "random_seed 5\n" + "x $_RANDOM ${_RANDOM 10} ${_RANDOM 3 5}\n" * 50
    assert lines(text) == lines(text)
    for line in lines(text)[1:]:
        _, any_number, from_ten, small = line.split()
        assert 0 <= int(any_number) <= 32_767
        assert 10 <= int(from_ten) <= 32_767
        assert 3 <= int(small) <= 5


# -- repetitions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("~SEQ(i, 3) eth$i", "eth1 eth2 eth3"),
        ("~SEQ(i, 0) eth$i", "eth1 eth0"),
        ("~SEQ(i, -2) eth${i}x", "eth-1x eth-2x"),
        ("~SEQ(i, 2, 4) a ${i}b", "a 2b a 3b a 4b"),
        ("~SEQ(i, 4, 2) $i", "4 3 2"),
        ("~SEQ(i, 1, 3, 8) $i", "1 4 7"),
        ("~SEQx( i , 0xe , 0x10 ) fe80::$i", "fe80::e fe80::f fe80::10"),
        ("~SEQ(i, 010, 011) $i", "8 9"),
        ("~LST(n, a, b,c) x$n y", "xa y xb y xc y"),
        ("~LST({n,m}, {1,2}, {3}, {5,6}) ${n}/${m}", "1/2 3/ 5/6"),
        ("~SEQ(a, 1, 2) ~SEQ(b, 3, 4) ${a}${b}", "13 14 23 24"),
        ("~LST(a, x, y) ~SEQ(b, 1, 2) ${a}.$b", "x.1 x.2 y.1 y.2"),
    ],
)
def test_repetitions(line, expected):
    assert " ".join(lines(line)) == expected


def test_the_limits_of_a_sequence_may_be_definitions():
    assert lines("$MAX=2\n~SEQ(i, 1, $MAX) x $i") == ["x 1", "x 2"]


def test_a_block_of_several_lines_is_repeated():
    text = "$V=vrrp_instance V${n} { \\\nvirtual_router_id $n \\\n}\n~SEQ(n, 1, 2) $V"
    assert lines(text) == ["vrrp_instance V1 {", "virtual_router_id 1", "}", "vrrp_instance V2 {", "virtual_router_id 2", "}"]


def test_the_last_value_stays_defined():
    assert lines("~SEQ(i, 1, 2) $i\nlast $i") == ["1", "2", "last 2"]


@pytest.mark.parametrize(
    "line",
    [
        "~SEQ(i) x",
        "~SEQ(i, 1, 0, 5) x",
        "~SEQ(i, 1, -1, 5) x",
        "~SEQ(i, a, b) x",
        "~SEQx(i, -1, 3) x",
        "~SEQ i 1 2 x",
        "~SEQ(i, 1, 2, 3, 4) x",
        "~LST(n) x",
        "~LST({n, m}, {1,2,3}) x",
        "~LST({n, 1) x",
        "~LST",
    ],
)
def test_an_invalid_repetition_is_reported_and_left_out(line):
    found, findings = read(f"{line}\ny")
    assert found == ["y"]
    assert [(f.severity, f.message) for f in findings] == [(Severity.ERROR, f"invalid {line[:4]}: the line is ignored")]


def test_an_unknown_tilde_is_a_word():
    assert lines("~NEW x") == ["~NEW x"]


# -- includes ---------------------------------------------------------------------------------------------------------


def test_an_include_may_come_out_of_a_definition():
    assert lines("$F=g\ninclude $F", reader=lambda pattern, by: [Included(pattern, f"in {pattern}")]) == ["in g"]


def test_definitions_hold_in_included_files_and_after_them():
    texts = {"g": "a $P\n$Q=2"}
    assert lines("$P=1\ninclude g\nb $Q", reader=lambda pattern, by: [Included(pattern, texts[pattern])]) == ["a 1", "b 2"]


# -- places and findings ----------------------------------------------------------------------------------------------


def placed(text, word):
    findings = Findings()
    (line, _), *_ = list(Preprocessor(lambda pattern, by: [], findings, HERE).read(text, "f"))
    return line.place(word)


def test_a_word_stands_where_it_is_written():
    assert (placed("@me  priority 300", 1).line, placed("@me  priority 300", 1).column) == (1, 15)
    place = placed("$P=300\n priority $P # x", 1)
    assert (place.line, place.column, place.length) == (2, 11, 2)
    assert [str(step) for step in place.chain] == ["read as: priority 300", "with the definition at f:1"]


def test_a_line_whose_words_are_others_is_meant_as_a_whole():
    place = placed("$P=priority 300\n  $P", 1)
    assert (place.line, place.column, place.length) == (2, 3, 2)


def test_a_name_that_is_not_defined_is_noted_once_and_not_in_a_secret():
    findings = read("a $X\nb $X\nauth_pass a $Y")[1]
    assert [(f.severity, f.message, f.place.line, f.place.column) for f in findings] == [
        (Severity.NOTE, "$X is not defined: it is taken as it is written, as in keepalived", 1, 3)
    ]


# -- what could go on for ever ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "$A=$A\n$A",
        "$A=x ${B}\n$B=y ${A}\n$A",
        "$A=${A}${A}\n${A}",
        "$L=x \\\n$L\n$L",
        "$L=~SEQ(i, 1, 2) ${L}\n$L",
        f"$A={'x' * 9000}\n$A $A $A",
    ],
)
def test_what_contains_itself_or_grows_too_long_is_reported_once(text):
    found, findings = read(f"{text}\nend")
    assert found[-1] == "end"
    assert len(found) < 5000
    assert [f.severity for f in findings] == [Severity.FATAL]


def test_nothing_is_expanded_after_a_definition_that_does_not_come_to_an_end():
    long = "$A=x " + "y" * 200 + " $A\\#$A$A\n"
    found, findings = read(long + "a $A\n" * 2000 + "end")
    assert found == ["end"]
    assert len(findings) == 1


@pytest.mark.parametrize(
    ("text", "severities"),
    [
        ("~SEQ(i, 1, 1000000000) $i", [Severity.FATAL]),
        ("~SEQ(i, 1, 9999) ~SEQ(j, 1, 9999) $j", [Severity.FATAL]),
        ("~SEQ(i, 1, 10000000000000000000) $D=$i", []),
    ],
)
def test_an_exploding_repetition_ends(text, severities, monkeypatch):
    monkeypatch.setattr("relevo.config.macros.MAX_LINES", 1000)
    found, findings = read(f"{text}\nend")
    assert len(found) <= 1001
    assert found[-1] == "end" or not findings.items
    assert [f.severity for f in findings] == severities


def test_the_limits_are_generous():
    assert MAX_LINES >= 1_000_000
    assert MAX_LINE_LENGTH >= 16_384
    assert len(lines("~SEQ(i, 1, 20000) real_server 10.0.0.1 $i")) == 20_000


pieces = st.sampled_from(
    [
        "$A",
        "${A}",
        "$A=",
        "$B=",
        "\\",
        "@me ",
        "@^you ",
        "~SEQ(i,1,3) ",
        "~LST(n,a,b) ",
        "$i",
        "{",
        "}",
        '"',
        "#",
        " ",
        "\n",
        "x",
        "$",
    ]
)


@settings(max_examples=300)
@given(st.lists(pieces, max_size=40).map("".join))
def test_no_text_raises_or_goes_on_for_ever(text):
    found, _ = read(text)
    assert len(found) <= MAX_LINES


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  a b # c", "a b"),
        ('a "# b" ! c', 'a "# b"'),
        ("a \\# b", "a \\# b"),
        ("# all", ""),
        ("a   \\", "a\\"),
        ("a # b \\", "a"),
    ],
)
def test_a_comment_and_outer_blanks_are_cut_off(line, expected):
    assert without_comment(line) == expected


def test_a_secret_behind_an_open_quote_is_hidden_though_it_is_no_word():
    result = compile_text('global_defs {\nlvs_sync_key " ${_HASH} hush\n}', "f", surroundings=HERE)
    assert not any("hush" in render(finding, result.sources) for finding in result.findings)


def test_the_name_of_the_daemon_is_that_of_the_instance_wherever_it_stands():
    assert lines("$_INSTANCE\ninstance lb1 # the first")[0] == "lb1"
    assert lines("$_INSTANCE\nnotinstance lb1")[0] == HERE.config_id
