import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.config.source import CLOSE, OPEN, Brace, Quoted, columns, located_words, open_quote, script_words, words

lines = st.text(alphabet=st.one_of(st.sampled_from("ab1./\t \"'#!\\{}"), st.characters(exclude_characters="\n")), max_size=60)
plain_lines = st.text(alphabet=st.characters(exclude_characters='\n"#!\\{}'), max_size=60)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        (" \t ", []),
        ("state MASTER", ["state", "MASTER"]),
        ("\tweight  2\r", ["weight", "2"]),
        ("# all of it", []),
        ("! all of it", []),
        ("weight 2#glued", ["weight", "2"]),
        ("weight 2!glued # again", ["weight", "2"]),
        (r"router_id a\#b\!c", ["router_id", "a#b!c"]),
        ('auth_pass "a b#c!d{e}"', ["auth_pass", "a b#c!d{e}"]),
        ('notify"/bin/x y"user', ["notify", "/bin/x y", "user"]),
        ('path ""', ["path", ""]),
        ('path "open # to the end', ["path", "open # to the end"]),
        ("path 'a b'", ["path", "'a", "b'"]),
        ("real_server 1.2.3.4 80{", ["real_server", "1.2.3.4", "80", "{"]),
        ("{a}b}}", ["{", "a", "}", "b", "}", "}"]),
    ],
)
def test_a_line_is_split_into(line, expected):
    assert words(line) == expected


def test_unquoted_braces_differ_from_quoted_ones():
    found = words('{ } "{" "}"')
    assert [type(word) for word in found] == [Brace, Brace, Quoted, Quoted]
    assert found[0] is OPEN
    assert found[1] is CLOSE


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("state MASTER", [(1, 5), (7, 6)]),
        ('\t"a b"{x', [(2, 5), (7, 1), (8, 1)]),
        (r"a\#b c", [(1, 4), (6, 1)]),
        ("a # b", [(1, 1)]),
    ],
)
def test_columns_count_from_one_and_cover_the_word_as_written(line, expected):
    assert columns(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [('a "b', True), ('a "b" "', True), ('a "b"', False), ('a # "b', False), ("a", False), ('"', True), ('""', False)],
)
def test_open_quotes_are_seen(line, expected):
    assert bool(open_quote(line)) is expected


@given(plain_lines)
def test_fast_path_agrees_with_the_located_path(line):
    assert words(line) == [word for word, _, _ in located_words(line)]


@given(lines)
def test_every_line_has_as_many_columns_as_words(line):
    assert len(columns(line)) == len(words(line))


@given(lines)
def test_columns_point_at_the_words(line):
    for word, column, length in located_words(line):
        written = line[column - 1 : column - 1 + length]
        bare = re.sub(r"\\([#!])", r"\1", written) if type(word) is str else written.strip('"')
        assert bare == word


@given(lines)
def test_words_stand_in_order_and_do_not_overlap(line):
    spots = columns(line)
    assert all(a + length <= b for (a, length), (b, _) in itertools.pairwise(spots))
    assert all(length > 0 and column + length - 1 <= len(line) for column, length in spots)


@given(st.lists(st.text(alphabet="abc./:-@", min_size=1)))
def test_joining_words_and_splitting_gives_them_back(found):
    assert words("  ".join(found)) == found


def test_a_backslash_does_not_join_words():
    assert words("a\\ b") == ["a\\", "b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("   ", ()),
        ("/bin/x a  b", ("/bin/x", "a", "b")),
        ("/bin/x 'a \"b' c", ("/bin/x", 'a "b', "c")),
        ('/bin/x "a \'b" c', ("/bin/x", "a 'b", "c")),
        ("/bin/x a'b c'd", ("/bin/x", "ab cd")),
        ("/bin/x ''", ("/bin/x", "")),
        (r"/bin/x a\ b", ("/bin/x", "a b")),
        (r"/bin/x a\tb", ("/bin/x", "a\tb")),
        (r"/bin/x a\qb", ("/bin/x", "aqb")),
        (r'/bin/x "\a\b\E\f\n\r\t\v\q"', ("/bin/x", "\a\b\x1b\f\n\r\t\vq")),
        (r'/bin/x "\101\x41\x4\cA\""', ("/bin/x", 'AA\x04\x01"')),
        (r'/bin/x "\x \777"', ("/bin/x", "x \xff")),
        (r'"/bin/x \c"', ("/bin/x c",)),
        (r"/bin/x '\t'", ("/bin/x", r"\t")),
        ('/bin/x "open', ("/bin/x", "open")),
        ("/bin/x 'open", ("/bin/x", "open")),
    ],
)
def test_a_command_is_split_into(text, expected):
    assert script_words(text) == expected


@given(st.text())
def test_any_command_can_be_split(text):
    assert all(type(word) is str for word in script_words(text))


@pytest.mark.parametrize(("text", "expected"), [(r"\x41", "A"), (r"\101", "A"), (r"\cA", "\x01")])
def test_numeric_escapes_work_outside_quotes(text, expected):
    assert script_words(text) == (expected,)
