import inspect

import pytest

from relevo.config import Findings, Severity
from relevo.config.compile import ROOT
from relevo.config.cursor import Cursor
from relevo.config.keywords.census import CENSUS, REMOVED
from relevo.config.keywords.readers import integer, text, word_list
from relevo.config.keywords.registry import Block, Fields, Keyword, entries, reads_block, takes_block
from relevo.config.tree import parse
from tests.unit.config.test_corpus import blocks

ALL = blocks(ROOT)
INNER = Block("inner", (Keyword("size", integer(0, 9, "a size"), "help"),), dict)
OUTER = Block(
    "outer",
    (
        Keyword("colour", text("a colour"), "help"),
        Keyword("color", text("a colour"), "help", field="colour", alias_of="colour", note="'color' is American"),
        Keyword("shade", text("a shade"), "help", note="'shade' is vague"),
        Keyword("tag", text("a tag"), "help", field="tags", repeats=True),
        Keyword("inner", INNER, "help", repeats=True),
        Keyword("names", word_list, "help"),
    ),
    lambda fields: fields,
    header=lambda cursor, fields: fields.__setitem__("head", cursor.word("a head")),
)
TOP = Block("", (Keyword("outer", OUTER, "help", repeats=True),), lambda fields: fields)


def evaluated(body: str) -> tuple[dict, Findings]:
    findings = Findings()
    tree = parse(f"outer x {{\n{body}\n}}", "f", lambda pattern, including: [], findings)
    cursor = Cursor(tree.statements[0], findings)
    return OUTER(cursor), findings


def told(findings: Findings) -> list[tuple[str, str]]:
    return [(found.severity, found.message) for found in findings]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", {}),
        ("colour red", {"colour": "red"}),
        ("colour red\ncolour blue", {"colour": "blue"}),
        ("tag a\ntag b", {"tags": ["a", "b"]}),
        ("inner {\nsize 1\n}\ninner {\n}", {"inner": [{"size": 1}, {}]}),
        ("names {\na b\nc\n}", {"names": ("a", "b", "c")}),
    ],
)
def test_a_block_collects_its_keywords(body, expected):
    fields, findings = evaluated(body)
    assert fields == {"head": "x", **expected}
    assert len(findings) == 0


@pytest.mark.parametrize(
    ("body", "expected", "severity", "message", "hint"),
    [
        ("color red", {"colour": "red"}, "warning", "'color' is American", "write 'colour' instead"),
        ("shade red", {"shade": "red"}, "warning", "'shade' is vague", ""),
        ("tag a b c", {"tags": ["a"]}, "note", "'b' and what follows on this line is ignored", ""),
        ("tag", {}, "missing", "'tag' needs a tag", "write: tag <a tag>"),
        ("colour red {\n}", {"colour": "red"}, "error", "'colour' takes no block: ignored", ""),
        ("inner", {}, "error", "'inner' needs a block", "open it with '{' and close it with '}'"),
        ("names a b", {}, "error", "'names' needs a block", "open it with '{'"),
        ("names {\na {\n}\n}", {"names": ("a",)}, "error", "no block is expected here: ignored", ""),
        ("inner {\nsize 10\n}", {"inner": [{}]}, "error", "10 is out of range", "a size lies in 0..9"),
        ("colur red", {}, "warning", "unknown keyword 'colur' in 'outer': ignored", "did you mean 'colour'?"),
        ("colur {\n}", {}, "warning", "unknown keyword 'colur' in 'outer': ignored with its block", "did you mean 'colour'?"),
        ("zzz 1", {}, "warning", "unknown keyword 'zzz' in 'outer': ignored", "see docs/reference/keywords.md"),
        ("nat_mask 1", {}, "warning", f"keyword 'nat_mask' is ignored: {REMOVED['nat_mask']}", "remove the line"),
    ],
)
def test_what_is_odd_in_a_block_is_reported_and_the_rest_stands(body, expected, severity, message, hint):
    fields, findings = evaluated(f"{body}\ntag last")
    assert fields == {"head": "x", **expected, "tags": [*expected.get("tags", []), "last"]}
    assert [(found.severity, found.message, found.hint) for found in findings] == [(severity, message, hint)]


def test_a_word_of_keepalived_that_is_not_here_yet_is_told_from_an_unknown_one():
    _, findings = evaluated("vrrp_strict")
    assert told(findings) == [("warning", "keyword 'vrrp_strict' in 'outer' is not supported by this version: ignored")]
    assert "1.2.20" in findings.items[0].hint


@pytest.mark.parametrize(
    ("word", "home"),
    [("garp_master_delay", "vrrp_instance"), ("connect_port", "TCP_CHECK"), ("router_id", "global_defs")],
)
def test_a_misplaced_keyword_is_told_from_an_unsupported_one(word, home):
    _, findings = evaluated(f"{word} 1")
    assert "not supported" not in findings.items[0].message
    assert home in findings.items[0].hint


def test_a_block_without_its_header_is_left_out_whole():
    findings = Findings()
    tree = parse("outer {\ntag a\n}\nouter y {\n}", "f", lambda pattern, including: [], findings)
    fields = Fields(Cursor(tree.statements[0], findings))
    TOP.evaluate(tree.statements, fields)
    assert fields == {"outer": [{"head": "y"}]}
    assert told(findings) == [("missing", "'outer' needs a head")]


def test_complaints_of_fields_stand_at_the_value_or_the_keyword_or_the_head():
    fields, findings = evaluated("colour red\ninner {\n}")
    for name in ("colour", "inner", "head", "absent"):
        fields.complain(Severity.NOTE, name, name)
    assert fields.findings is findings
    assert [(found.message, str(found.place)) for found in findings] == [
        ("colour", "f:2:8"),
        ("inner", "f:3:1"),
        ("head", "f:1:1"),
        ("absent", "f:1:1"),
    ]


def test_only_what_was_given_is_picked():
    fields, _ = evaluated("colour red")
    assert fields.picked("colour", "tags") == {"colour": "red"}


@pytest.mark.parametrize("body", ["names {\na b {\n}\nc\n}", "names { a b }"])
def test_entries_read_from_the_first_word_of_their_line(body):
    seen = []

    @reads_block
    def reader(cursor):
        for line in entries(cursor):
            line.warn("first", word=1)
            seen.append(line.rest())

    assert takes_block(Keyword("names", reader, "help"))
    findings = Findings()
    reader(Cursor(parse(body, "f", lambda pattern, including: [], findings).statements[0], findings))
    assert seen[0] == ["a", "b"]
    places = [found.place for found in findings if found.message == "first"]
    lines = body.split("\n")
    assert [lines[place.line - 1][place.column - 1] for place in places] == [words[0] for words in seen]


@pytest.mark.parametrize(("body", "column"), [("names { eth0 weight }", 9), ("names {\n eth0 weight x y\n}", 2)])
def test_what_an_entry_lacks_is_reported_at_its_first_word(body, column):
    findings = Findings()
    cursor = Cursor(parse(body, "f", lambda pattern, including: [], findings).statements[0], findings)
    line = next(entries(cursor))
    line.complain(Severity.MISSING, "lacks", word=0)
    assert findings.items[0].place.column == column


# -- the tables themselves --------------------------------------------------------------------------------------------

every_block = pytest.mark.parametrize("block", ALL, ids=lambda block: block.name or "root")


def test_blocks_are_reached_from_the_root():
    assert {block.name for block in ALL} == {
        "", "global_defs", "vrrp_instance", "authentication", "vrrp_sync_group", "virtual_server", "real_server",
        "TCP_CHECK", "HTTP_GET", "SSL_GET", "url",
    }  # fmt: skip


@every_block
def test_no_keyword_is_listed_twice_in_a_block(block):
    assert sorted(block.table) == sorted(keyword.name for keyword in block.keywords)


@every_block
def test_every_keyword_has_a_help_text(block):
    assert all(keyword.help.strip() for keyword in block.keywords)


@every_block
def test_every_alias_names_a_keyword_of_its_block_and_fills_its_field(block):
    for keyword in block.keywords:
        if keyword.alias_of:
            target = block.table[keyword.alias_of]
            assert (keyword.field or keyword.name) == (target.field or target.name)
            assert keyword.note


@every_block
def test_every_keyword_is_keepalived_s_or_deprecated_or_marked_as_our_own(block):
    for keyword in block.keywords:
        origins = [keyword.name in CENSUS, "[Relevo]" in keyword.help, bool(keyword.alias_of) and keyword.name not in CENSUS]
        assert origins.count(True) == 1, keyword.name


def test_the_census_holds_every_keyword_of_keepalived_and_none_that_was_removed():
    assert len(CENSUS) == 363
    assert not set(CENSUS) & set(REMOVED)
    assert (CENSUS["vrrp_instance"], CENSUS["sni_name"]) == ("0.5.3", "after 2.4.3")


@every_block
def test_every_reader_is_a_block_or_takes_a_cursor(block):
    for keyword in block.keywords:
        assert isinstance(keyword.read, Block) or len(inspect.signature(keyword.read).parameters) == 1
