import pytest

from relevo.config import Findings, How, Included, Place, Severity, Step
from relevo.config.preprocess import INCLUDES, MAX_INCLUDE_DEPTH
from relevo.config.source import MAX_LINE_LENGTH, Line
from relevo.config.tree import MAX_BLOCK_DEPTH, Statement, Tree, parse


def nothing(pattern: str, including: str) -> list[Included]:
    return []


def parsed(text: str, reader=nothing) -> tuple[Tree, Findings]:
    findings = Findings()
    return parse(text, "f", reader, findings), findings


def shape(statements: list[Statement]) -> list[object]:
    """Statements as lists of words, a block as a list at the end."""
    return [[s.keyword, *s.args] + ([] if s.block is None else [shape(s.block)]) for s in statements]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("\n\n# x\n", []),
        ("a", [["a"]]),
        ("a b c\nd", [["a", "b", "c"], ["d"]]),
        ("a {\n}", [["a", []]]),
        ("a\n{\nb\n}\nc", [["a", [["b"]]], ["c"]]),
        ("a{b c}", [["a", [["b", "c"]]]]),
        ("a { b { c } } d", [["a", [["b", [["c"]]]]], ["d"]]),
        ("a {\nb {\nc\n}}", [["a", [["b", [["c"]]]]]]),
        ("a {\n} b {\n}", [["a", []], ["b", []]]),
        ('a "{" b', [["a", "{", "b"]]),
        ("a {\r\n  b\r\n}\r\n", [["a", [["b"]]]]),
    ],
)
def test_well_formed_text_becomes_statements_and_blocks(text, expected):
    tree, findings = parsed(text)
    assert shape(tree.statements) == expected
    assert len(findings) == 0


@pytest.mark.parametrize(
    ("text", "expected", "message", "line"),
    [
        ("a {\nb", [["a", [["b"]]]], "block 'a' is never closed", 1),
        ("a\n}\nb", [["a"], ["b"]], "'}' closes nothing", 2),
        ("{\na\n}", [["", [["a"]]]], "'{' without a keyword before it", 1),
        ("a {\n}\n{\nb\n}", [["a", []], ["", [["b"]]]], "'{' without a keyword before it", 3),
        ('a "b', [["a", "b"]], "quote is never closed", 1),
        ("a\nb\0c\nd", [["a"], ["d"]], "line contains a NUL character: ignored", 2),
        ("a\n" + "b" * (MAX_LINE_LENGTH + 1), [["a"]], f"line of {MAX_LINE_LENGTH + 1} characters: ignored", 2),
    ],
)
def test_malformed_text_is_reported_and_the_rest_stands(text, expected, message, line):
    tree, findings = parsed(text)
    assert shape(tree.statements) == expected
    assert [(found.message, found.place.line) for found in findings] == [(message, line)]
    assert all(found.hint for found in findings)


def test_a_line_may_be_as_long_as_the_limit():
    tree, findings = parsed("b" * MAX_LINE_LENGTH)
    assert len(tree.statements) == 1
    assert len(findings) == 0


def test_blocks_may_nest_as_deep_as_the_limit():
    deep = "a {\n" * MAX_BLOCK_DEPTH + "}\n" * MAX_BLOCK_DEPTH
    assert len(parsed(deep)[1]) == 0
    assert [found.message for found in parsed(f"b {{\n{deep}}}")[1]] == [f"blocks nested deeper than {MAX_BLOCK_DEPTH}"]


def test_every_unclosed_block_is_named():
    findings = parsed("a {\nb {\nc {\n}")[1]
    assert [found.keyword for found in findings] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a {\n  b {\n    x\n  c {\n  }\n}\n", 2),
        ("a {\n  b {\n  }\n  c {\n    d {\n  }\n}\n", 5),
        ("a {\n\tb {\n\t\tx\n\tc {\n\t}\n}\n", 2),
        ("a {\n  b {\n  }\n", 1),
    ],
)
def test_a_missing_brace_is_blamed_on_the_block_that_the_indentation_shows(text, line):
    assert [found.place.line for found in parsed(text)[1]] == [line]


def test_a_line_knows_every_include_on_its_way():
    tree, _ = parsed("x\ninclude g", files(g="include h", h="a"))
    chain = tree.statements[1].place().chain
    assert [str(step) for step in chain] == ["included from g:1", "included from f:2"]


@pytest.mark.parametrize(
    ("text", "column", "code"), [("a\u00a0b", 2, "U+00A0"), ("\u3000a b", 1, "U+3000"), ("a b\u2003", 4, "U+2003")]
)
def test_an_odd_blank_is_a_blank_with_a_warning(text, column, code):
    tree, findings = parsed(text)
    assert tree.statements[0].keyword == "a"
    assert [found.message[:6] for found in findings] == [code]
    assert findings.items[0].place.column == column


@pytest.mark.parametrize("text", ["a # \u00a0", 'a "b\u00a0c"', "a é"])
def test_an_odd_blank_in_a_comment_or_in_quotes_is_nothing(text):
    assert len(parsed(text)[1]) == 0


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0, Place("f", 1, 5, 3)),
        (1, Place("f", 1, 9, 5)),
        (2, Place("f", 1, 15, 1)),
        (3, Place("f", 1, 16, 1)),
        (9, Place("f", 1, 16, 1)),
    ],
)
def test_places_of_a_statement_are_those_of_its_words(word, expected):
    tree, _ = parsed('a { bcd "e f" g')
    assert tree.statements[0].block[0].place(word) == expected


def test_a_statement_on_a_line_without_words_is_placed_at_its_beginning():
    assert Statement("", [], Line("f", 1, "# x"), 0).place() == Place("f", 1)


@pytest.mark.parametrize(("text", "column"), [("a }", 3), ("  {", 3), ("a { } {", 7)])
def test_a_finding_about_a_brace_points_at_the_brace(text, column):
    assert parsed(text)[1].items[0].place.column == column


# -- include ----------------------------------------------------------------------------------------------------------


def files(**texts: str):
    return lambda pattern, including: [Included(pattern, texts[pattern])] if pattern in texts else []


@pytest.mark.parametrize("keyword", INCLUDES)
def test_an_included_file_stands_in_place_of_the_line(keyword):
    tree, findings = parsed(f"a {{\n{keyword} g\nc\n}}", files(g="b\n"))
    assert shape(tree.statements) == [["a", [["b"], ["c"]]]]
    assert len(findings) == 0


def test_statements_of_an_included_file_are_placed_in_it():
    tree, _ = parsed("include g", files(g="\n  b"))
    assert tree.statements[0].place() == Place("g", 2, 3, 1, (Step(How.INCLUDED, "f", 1),))
    assert tree.sources == {"f": ["include g"], "g": ["", "  b"]}


def test_a_pattern_may_match_several_files_and_each_is_read_with_its_own_includer():
    asked = []

    def reader(pattern, including):
        asked.append((pattern, including))
        return [Included("x", "include z"), Included("y", "b")] if pattern == "*" else [Included("z", "a")]

    tree, _ = parsed("include *", reader)
    assert shape(tree.statements) == [["a"], ["b"]]
    assert asked == [("*", "f"), ("z", "x")]


def test_a_block_may_be_closed_by_an_included_file():
    tree, findings = parsed("a {\ninclude g", files(g="b\n}\n"))
    assert shape(tree.statements) == [["a", [["b"]]]]
    assert len(findings) == 0


@pytest.mark.parametrize(
    ("text", "severity", "message", "column"),
    [
        ("include", Severity.MISSING, "'include' without a file name", 1),
        ("include x", Severity.WARNING, "no file matches 'x'", 9),
        ("includer x", Severity.WARNING, "no file matches 'x'", 10),
        ("includem x", Severity.FATAL, "no file matches 'x'", 10),
        ("includem x*", Severity.WARNING, "no file matches 'x*'", 10),
        ("includew x*", Severity.FATAL, "no file matches 'x*'", 10),
        ("includew {x,y}", Severity.WARNING, "no file matches '{x,y}'", 10),
        ("includeb {x,y}", Severity.FATAL, "no file matches '{x,y}'", 10),
        ("includea {x,y}", Severity.FATAL, "no file matches '{x,y}'", 10),
        ("includer locked", Severity.FATAL, "cannot include '/etc/locked': Permission denied", 10),
        ("include locked", Severity.WARNING, "cannot include '/etc/locked': Permission denied", 9),
    ],
)
def test_what_cannot_be_included_is_reported(text, severity, message, column):
    def reader(pattern, including):
        return [Included("/etc/locked", error="Permission denied")] if pattern == "locked" else []

    tree, findings = parsed(f"{text}\na", reader)
    assert shape(tree.statements) == [["a"]]
    assert [(found.severity, found.message, found.place.column) for found in findings] == [(severity, message, column)]
    assert [found.keyword for found in findings] == [text.split()[0]]


def test_an_include_loop_ends_and_is_reported():
    findings = parsed("a\ninclude g", files(g="include f", f="a\ninclude g"))[1]
    assert any(found.severity is Severity.ERROR and "include" in found.message for found in findings)


def test_files_may_include_files_as_deep_as_the_limit():
    def reader(pattern, including):
        depth = int(pattern)
        return [Included(pattern, f"include {depth + 1}" if depth < MAX_INCLUDE_DEPTH else "a")]

    tree, findings = parsed("include 1", reader)
    assert shape(tree.statements) == [["a"]]
    assert len(findings) == 0


class TooMany(Exception):
    pass


def each_other(pattern: str) -> list[Included]:
    """Two files, both of which include both."""
    return [Included("a.conf", "include *.conf"), Included("b.conf", "include *.conf")]


def twice_the_next(pattern: str) -> list[Included]:
    """A file that includes another twice, and so on down: no loop, but doubling."""
    return [Included(pattern, f"include {int(pattern) + 1}\n" * 2)]


@pytest.mark.parametrize(("pattern", "answer"), [("*.conf", each_other), ("0", twice_the_next)])
def test_includes_that_branch_end(pattern, answer):
    asked = []

    def reader(pattern, including):
        asked.append(pattern)
        if len(asked) > 50_000:
            raise TooMany
        return answer(pattern)

    assert len(parsed(f"include {pattern}", reader)[1]) > 0


def test_a_pattern_with_braces_reaches_the_reader_whole():
    asked = []
    parsed("include conf.d/{a,b}.conf", lambda pattern, including: asked.append(pattern) or [])
    assert asked == ["conf.d/{a,b}.conf"]


def test_too_many_statements_end_the_reading(monkeypatch):
    monkeypatch.setattr("relevo.config.tree.MAX_STATEMENTS", 10)
    tree, findings = parsed("a\n" * 1000)
    assert len(tree.statements) == 11
    assert [(found.severity, found.message) for found in findings] == [(Severity.FATAL, "more than 10 statements")]
