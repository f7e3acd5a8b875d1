import pkgutil
from typing import get_args

import msgspec
import pytest

from relevo.config import Findings, Severity
from relevo.config.blocks import checkers
from relevo.config.blocks.arguments import Argument, entries, integer, text, word_list
from relevo.config.blocks.checks import KINDS
from relevo.config.blocks.keepalived_keywords import KEEPALIVED_KEYWORDS, REMOVED, known
from relevo.config.blocks.registry import NO_BLOCKS, OURS, Again, Block, Fields, Keyword, Outer
from relevo.config.blocks.root import ROOT
from relevo.config.blocks.services import REAL_SERVER
from relevo.config.cursor import Cursor
from relevo.config.source import Line
from relevo.config.tree import Statement, parse
from relevo.model import Check
from tests.unit.config.compiling import with_globals, with_server, with_service
from tests.unit.config.test_corpus import blocks

ALL = blocks(ROOT)
INNER = Block("inner", (Keyword("size", integer(0, 9, "a size"), "help"),))
OUTER = Block(
    "outer",
    (
        Keyword("colour", text("a colour"), "help"),
        Keyword("color", text("a colour"), "help", alias_of="colour", note="'color' is American"),
        Keyword("shade", text("a shade"), "help", note="'shade' is vague"),
        Keyword("tag", text("a tag"), "help", again=Again.EACH),
        Keyword("first", text("a word"), "help", again=Again.FIRST),
        Keyword("level", integer(1, 9, "a level"), "help", otherwise=5),
        Keyword("lid", text("a lid"), "help", below=("colour", "red")),
        Keyword("inner", INNER.argument, "help", again=Again.EACH),
        Keyword("whole", INNER.argument, "help", again=Again.JOIN),
        Keyword("names", word_list("NAME"), "help", again=Again.JOIN),
    ),
    header=lambda cursor, fields: fields.__setitem__("head", cursor.word("a head")),
)
TOP = Block("", (Keyword("outer", OUTER.argument, "help", again=Again.EACH),))


def evaluated(body: str) -> tuple[dict, Findings]:
    findings = Findings()
    tree = parse(f"outer x {{\n{body}\n}}", "f", lambda pattern, including: [], findings)
    cursor = Cursor(tree.statements[0], findings)
    return OUTER.read(cursor), findings


def reported(findings: Findings) -> list[tuple[str, str]]:
    return [(found.severity, found.message) for found in findings]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", {}),
        ("colour red", {"colour": "red"}),
        ("colour red\ncolour blue", {"colour": "blue"}),
        ("tag a\ntag b", {"tag": ["a", "b"]}),
        ("inner {\nsize 1\n}\ninner {\n}", {"inner": [{"size": 1}, {}]}),
        ("names {\na b\nc\n}", {"names": ("a", "b", "c")}),
        ("names {\na\n}\nnames {\nb\n}", {"names": ("a", "b")}),
        ("whole {\nsize 1\n}\nwhole {\n}", {"whole": {"size": 1}}),
        ("colour red\nlid x", {"colour": "red", "lid": "x"}),
    ],
)
def test_a_block_collects_its_keywords(body, expected):
    fields, findings = evaluated(body)
    assert fields == {"head": "x", **expected}
    assert len(findings) == 0


FIRST_COUNTS = "'first' is given already: the first one counts, in keepalived too"


@pytest.mark.parametrize(
    ("body", "expected", "severity", "message", "hint"),
    [
        ("color red", {"colour": "red"}, "warning", "'color' is American", "write 'colour' instead"),
        ("shade red", {"shade": "red"}, "warning", "'shade' is vague", ""),
        ("tag a b c", {"tag": ["a"]}, "note", "'b' and what follows on this line is ignored", ""),
        ("tag", {}, "missing", "'tag' needs a tag", "write: tag <tag>"),
        ("colour red {\n}", {"colour": "red"}, "error", "'colour' takes no block: ignored", ""),
        ("inner", {}, "error", "'inner' needs a block", "open it with '{' and close it with '}'"),
        ("names a b", {}, "error", "'names' needs a block", "open it with '{'"),
        ("names {\na {\n}\n}", {"names": ("a",)}, "error", "no block is expected here: ignored", ""),
        ("inner {\nsize 10\n}", {"inner": [{}]}, "error", "10 is out of range", "a size lies in 0..9"),
        ("first a\nfirst b", {"first": "a"}, "warning", FIRST_COUNTS, "remove one of the two"),
        ("level 10", {"level": 5}, "error", "10 is out of range: 5 is used", "a level lies in 1..9"),
        ("lid x", {}, "warning", "'lid' counts only below 'colour red': ignored, in keepalived too", "move or remove the line"),
        ("colur red", {}, "warning", "unknown keyword 'colur' in 'outer': ignored", "did you mean 'colour'?"),
        ("colur {\n}", {}, "warning", "unknown keyword 'colur' in 'outer': ignored with its block", "did you mean 'colour'?"),
        ("zzz 1", {}, "warning", "unknown keyword 'zzz' in 'outer': ignored", "see docs/reference/keywords.md"),
        ("nat_mask 1", {}, "warning", f"keyword 'nat_mask' is ignored: {REMOVED['nat_mask']}", "remove the line"),
    ],
)
def test_what_is_odd_in_a_block_is_reported_and_the_rest_stands(body, expected, severity, message, hint):
    fields, findings = evaluated(f"{body}\ntag last")
    assert fields == {"head": "x", **expected, "tag": [*expected.get("tag", []), "last"]}
    assert [(found.severity, found.message, found.hint) for found in findings] == [(severity, message, hint)]


@pytest.mark.parametrize(
    ("result", "message", "hint"),
    [
        (
            with_server("BFD_CHECK {\n}"),
            "'BFD_CHECK' comes with a later version: without another check the server counts as up",
            "docs/reference/keywords.md has the standing of every keyword",
        ),
        (
            with_globals("vrrp_ipsets"),
            "'vrrp_ipsets' has no effect here: no_accept uses nftables",
            "",
        ),
        (
            with_service("timeout 300"),
            "keyword 'timeout' does not belong in 'virtual_server': ignored",
            "it belongs in 'vrrp_script'",
        ),
        (
            with_service("neighbor_ip 192.0.2.1"),
            "keyword 'neighbor_ip' does not belong in 'virtual_server': ignored",
            "it belongs in 'bfd_instance'",
        ),
        (
            with_server("TCP_CHECK {\nnb_get_retry 3\n}"),
            "unknown keyword 'nb_get_retry' in 'TCP_CHECK': ignored",
            "write 'retry'",
        ),
    ],
)
def test_a_word_of_keepalived_s_is_judged_by_the_block_it_stands_in(result, message, hint):
    assert [(found.message, found.hint) for found in result.findings] == [(message, hint)]


@pytest.mark.parametrize(
    ("word", "home"),
    [("garp_master_delay", "vrrp_instance"), ("connect_port", "TCP_CHECK"), ("router_id", "global_defs")],
)
def test_a_misplaced_keyword_is_not_reported_as_unsupported(word, home):
    _, findings = evaluated(f"{word} 1")
    assert "not supported" not in findings.items[0].message
    assert home in findings.items[0].hint


def test_a_block_without_its_header_is_left_out_whole():
    findings = Findings()
    tree = parse("outer {\ntag a\n}\nouter y {\n}", "f", lambda pattern, including: [], findings)
    fields = Fields(Cursor(tree.statements[0], findings), TOP)
    TOP.evaluate(tree.statements, fields)
    assert fields == {"outer": [{"head": "y"}]}
    assert reported(findings) == [("missing", "'outer' needs a head")]


def test_findings_about_fields_stand_at_the_value_or_the_keyword_or_the_head():
    fields, findings = evaluated("colour red\ninner {\n}")
    for name in ("colour", "inner", "head", "absent"):
        fields.report(Severity.NOTE, name, name)
    assert fields.findings is findings
    assert [(found.message, str(found.place)) for found in findings] == [
        ("colour", "f:2:8"),
        ("inner", "f:3:1"),
        ("head", "f:1:1"),
        ("absent", "f:1:1"),
    ]


class Coat(msgspec.Struct):
    colour: str
    size: int = 3
    warm_s: float = 1.0


class Lining(msgspec.Struct):
    weight: int


SHOP = Block("shop", (Keyword("size", integer(0, 9, "a size"), "help"), Keyword("hue", text("a hue"), "help")))
COAT = Block(
    "coat",
    (
        Keyword("colour", text("a colour"), "help", inherits=("shop.hue",)),
        Keyword("size", integer(0, 9, "a size"), "help", inherits=("shelf.size", "shop.size")),
        Keyword("warm", integer(0, 9, "warmth"), "help", target="warm_s"),
        Keyword("heavy", integer(0, 9, "a weight"), "help", target="weight", default=7),
        Keyword("pocket", text("a pocket"), "help"),
    ),
    (Coat, Lining),
)


def coat(**values: object) -> Fields:
    fields = Fields(Cursor(Statement("coat", [], Line("f", 1, "coat"), 0), Findings()), COAT)
    fields.update(values)
    return fields


def shop(**values: object) -> Outer:
    fields = Fields(coat().cursor, SHOP)
    fields.update(values)
    return NO_BLOCKS.with_block(fields)


@pytest.mark.parametrize(
    ("own", "above", "expected"),
    [
        ({"colour": "red"}, {}, Coat("red")),
        ({"colour": "red", "size": 1, "warm": 2, "pocket": "x"}, {"size": 9, "hue": "blue"}, Coat("red", 1, 2)),
        ({}, {"size": 9, "hue": "blue"}, Coat("blue", 9)),
    ],
)
def test_values_go_to_the_model_given_or_inherited(own, above, expected):
    fields = coat(**own)
    fields.above = shop(**above)
    assert fields.into(Coat) == expected
    assert fields.into(Coat, colour="none").colour == "none"


def test_a_row_s_default_stands_in_where_the_model_has_none():
    assert coat().into(Lining) == Lining(7)
    assert coat(heavy=2).into(Lining) == Lining(2)


def test_the_effective_value_is_the_nearest_one():
    size, heavy, pocket = COAT.table["size"], COAT.table["heavy"], COAT.table["pocket"]
    fields = coat()
    fields.above = shop(size=4)
    assert (fields.effective(size), fields.effective(heavy), fields.effective(pocket, "x")) == (4, 7, "x")
    assert coat(size=1).effective(size) == 1


def test_a_target_that_no_model_has_is_refused():
    with pytest.raises(AssertionError, match="no model of the block has a field 'nowhere'"):
        Block("b", (Keyword("k", text("x"), "help", target="nowhere"),), (Coat,))


@pytest.mark.parametrize("body", ["names {\na b {\n}\nc\n}", "names { a b }"])
def test_entries_read_from_the_first_word_of_their_line(body):
    seen = []

    def reader(cursor):
        for line in entries(cursor):
            line.warn("first", word=1)
            seen.append(line.rest())

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
    line.report(Severity.MISSING, "lacks", word=0)
    assert findings.items[0].place.column == column


# -- the tables themselves --------------------------------------------------------------------------------------------

every_block = pytest.mark.parametrize("block", ALL, ids=lambda block: block.name or "root")


def test_every_keyword_of_keepalived_is_in_the_block_where_keepalived_has_it():
    ours = {block.name: set(block.table) for block in ALL}
    ours["vrrp_track_file"] = ours["track_file"]  # the old spelling of the block
    absent = {(block, word) for block, words in KEEPALIVED_KEYWORDS.items() for word in words if word not in ours[block]}
    assert absent == set()


@every_block
def test_no_keyword_is_listed_twice_in_a_block(block):
    assert sorted(block.table) == sorted(keyword.name for keyword in block.keywords)


@every_block
def test_every_keyword_has_a_help_text(block):
    assert all(keyword.help.strip() for keyword in block.keywords)


@every_block
def test_every_alias_names_a_keyword_of_its_block(block):
    for keyword in block.keywords:
        if keyword.alias_of:
            assert keyword.alias_of in block.table
            assert keyword.note


@every_block
def test_every_keyword_is_keepalived_s_in_this_block_or_deprecated_or_our_own(block):
    for keyword in block.keywords:
        origins = [bool(known(block.name, keyword.name)), keyword.since == OURS, bool(keyword.alias_of)]
        assert any(origins) and not (origins[0] and origins[1]), keyword.name


@every_block
def test_what_a_keyword_inherits_is_a_keyword(block):
    named = {found.name: found for found in ALL}
    for keyword in block.keywords:
        for outer, name in keyword.sources:
            assert name in named[outer].table, (block.name, keyword.name)


@every_block
def test_a_default_is_declared_once_or_twice_alike(block):
    for keyword in block.keywords:
        model = block.model_of(keyword)
        if model is None or keyword.default is None:
            continue
        declared = {field.name: field.default for field in msgspec.structs.fields(model)}[keyword.target or keyword.name]
        assert declared is msgspec.NODEFAULT or declared == keyword.default, keyword.name


def test_the_table_has_every_keyword_of_keepalived_and_none_that_was_removed():
    words = {word for block in KEEPALIVED_KEYWORDS.values() for word in block}
    assert len(words) == 363
    assert not words & set(REMOVED)
    assert (known("", "vrrp_instance"), known("HTTP_GET", "sni_name")) == ("0.5.3", "after 2.4.3")


@pytest.mark.parametrize(
    ("block", "word", "release"),
    [
        ("vrrp_script", "timeout", "1.2.6"),
        ("virtual_server", "timeout", ""),
        ("virtual_server", "fall", ""),
        ("real_server", "alpha", "1.3.7"),
        ("virtual_server", "alpha", "1.1.16"),
        ("MISC_CHECK", "connect_port", ""),
        ("nothing", "alpha", ""),
    ],
)
def test_the_table_is_per_block(block, word, release):
    assert known(block, word) == release


@every_block
def test_every_argument_describes_itself(block):
    for keyword in block.keywords:
        argument = keyword.argument
        assert isinstance(argument, Argument)
        assert bool(argument.block) <= argument.takes_block
        assert not argument.unit or argument.limits


# -- checkers ---------------------------------------------------------------------------------------------------------


def test_each_type_of_check_has_a_kind_and_each_kind_a_type():
    assert {kind.block.models[0] for kind in KINDS.values()} == set(get_args(Check))


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_a_kind_is_a_keyword_of_a_real_server_and_makes_checks_of_its_type(kind):
    assert REAL_SERVER.table[kind.name].argument.block is kind.block
    body = {"MISC_CHECK": "misc_path /bin/true", "FILE_CHECK": "track_file f"}.get(kind.name, "url {\npath /\n}")
    before = "track_file f {\nfile /f\n}\n"
    (server,) = with_server(f"{kind.name} {{\n{body}\n}}", outside=before).configuration.virtual_servers[0].real_servers
    assert [type(check) for check in server.checks] == [kind.block.models[0]]


def test_every_file_of_checkers_registers_itself():
    files = {module.name for module in pkgutil.iter_modules(checkers.__path__)}
    assert files - {"missing"} == {kind.build.__module__.rpartition(".")[2] for kind in KINDS.values()}
