import gc
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.config import Compiled, Included, Severity, compile_text, exit_status, render
from relevo.config.diagnostics import MAX_FINDINGS
from relevo.config.source import words
from relevo.config.tree import Statement
from relevo.model import Configuration, Endpoint, Protocol, SyncDaemon
from tests.unit.config.compiling import (
    CORPUS,
    INSTANCE,
    SECURED,
    compile_corpus,
    compiled,
    corpus_files,
    corpus_text,
    messages,
    with_instance,
    with_server,
    with_service,
)

ARTICLE = corpus_text(CORPUS / "article-master.conf")
TOKENS = re.findall(r"[{}]|\n|[^\s{}]+", ARTICLE)
WORDS = sorted(
    {*TOKENS, '"', "#", "!", "\\", "-1", "99999", "0", "", "\0", "\r", "include x", "quorum", "version 3", "HTTP_GET", "url"}
)


def check_places(result: Compiled) -> None:
    """Every finding lies inside the text, and can be shown."""
    for finding in result.findings:
        lines = result.sources[finding.place.file]
        assert 1 <= finding.place.line <= len(lines)
        assert 1 <= finding.place.column <= len(lines[finding.place.line - 1]) + 1
        assert finding.place.length >= 1
        assert finding.message
        assert str(finding.place) in render(finding, result.sources)


# -- the article ------------------------------------------------------------------------------------------------------


def test_the_article_s_master_means_what_its_author_meant():
    configuration = compile_corpus(CORPUS / "article-master.conf").configuration
    (instance,) = configuration.vrrp_instances
    web, mail = configuration.virtual_servers
    assert configuration.global_defs.router_id == "LVS_EXAMPLE_01"
    assert configuration.global_defs.lvs_sync_daemon == SyncDaemon(interface="eth0", instance="VI_1")
    assert (instance.priority, instance.starts_as_master, instance.smtp_alert) == (150, True, True)
    assert [(found.endpoint, found.protocol, found.scheduler) for found in (web, mail)] == [
        (Endpoint("192.168.6.240", 80), Protocol.TCP, "wrr"),
        (Endpoint("192.168.6.240", 25), Protocol.TCP, "wlc"),
    ]
    assert [server.weight for service in (web, mail) for server in service.real_servers] == [2, 1, 1, 2]
    assert {check.name for service in (web, mail) for server in service.real_servers for check in server.checks} == {"TCP_CHECK"}


def test_the_article_s_backup_differs_in_three_directives():
    master, backup = (compile_corpus(CORPUS / f"article-{name}.conf").configuration for name in ("master", "backup"))
    (instance,) = backup.vrrp_instances
    assert (instance.priority, instance.starts_as_master, backup.global_defs.router_id) == (100, False, "LVS_EXAMPLE_02")
    assert instance == msgspec.structs.replace(master.vrrp_instances[0], priority=100, starts_as_master=False)
    assert backup.virtual_servers == master.virtual_servers


# -- the whole file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "\n\n", "# a\n", "global_defs {\n}", "vrrp_instance A {\n}", "\x7fELF"])
def test_a_file_of_which_nothing_can_run_is_fatal(text):
    result = compiled(text)
    assert result.configuration.vrrp_instances == ()
    assert result.findings.items[-1].severity is Severity.FATAL
    assert exit_status(result.findings) == 4


def test_a_clean_file_has_no_findings():
    result = with_instance("", "virtual_server 192.0.2.1 80 {\nprotocol TCP\nreal_server 10.0.0.1 80 {\nTCP_CHECK {\n}\n}\n}")
    assert messages(result) == []
    assert exit_status(result.findings) == 0


@pytest.mark.parametrize("word", ["prioriti", "virtual_sever", "vrrp_instanse"])
def test_a_typo_outside_any_block_is_named_as_such(word):
    assert f"warning: unknown keyword '{word}' outside any block: ignored" in messages(compiled(f"{word} x\n{INSTANCE}"))


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("advert_in", "advert_int"),
        ("virtual_ipadress", "virtual_ipaddress"),
        ("vritual_router_id", "virtual_router_id"),
        ("no_preempt", "nopreempt"),
    ],
)
def test_a_typo_is_answered_with_the_word_meant(typo, meant):
    (finding,) = with_instance(f"{typo} 1").findings
    assert finding.hint == f"did you mean '{meant}'?"


def test_a_hint_prefers_a_word_that_works_here():
    (finding,) = with_instance("virtual_router 1").findings
    assert finding.hint == "did you mean 'virtual_router_id'?"


def test_a_block_without_a_keyword_is_reported_once():
    assert len(with_instance("{\npriority 3\n}").findings) == 1


def test_a_missing_argument_is_graver_than_anything_but_fatal():
    result = with_instance("priority\nbogus\nnotify /x")
    assert {found.severity for found in result.findings} == {Severity.MISSING, Severity.WARNING, Severity.SECURITY}
    assert exit_status(result.findings) == 2


UNSAFE = "security: scripts run without enable_script_security: a user who can write to one becomes root"


@pytest.mark.parametrize(
    ("result", "place"),
    [
        (with_instance("notify_master /m\nnotify_backup /b"), "test.conf:7:1"),
        (with_instance("", "vrrp_sync_group G {\ngroup {\nVI\n}\nnotify /n\n}"), "test.conf:13:1"),
        (with_service("quorum_up /u"), "test.conf:3:1"),
        (with_server("notify_down /d"), "test.conf:5:1"),
    ],
)
def test_scripts_without_script_security_are_named_once(result, place):
    (unsafe,) = [found for found in result.findings.items if "has one member" not in found.message]
    assert (f"security: {unsafe.message}", str(unsafe.place)) == (UNSAFE, place)
    assert exit_status(result.findings) == 6


def test_script_security_may_stand_anywhere_in_the_file():
    assert messages(with_instance("notify /n", SECURED)) == []


def test_included_text_is_compiled_with_its_own_places():
    reader = {"a.conf": "vrrp_instance A {\n  prioritty 5\n}\n", "b.conf": INSTANCE}
    result = compile_text("include a.conf\ninclude b.conf", "main", lambda name, by: [Included(name, reader[name])])
    assert [str(found.place) for found in result.findings] == ["a.conf:2:3", "a.conf:1:15"]
    assert [found.name for found in result.configuration.vrrp_instances] == ["VI"]
    assert sorted(result.sources) == ["a.conf", "b.conf", "main"]


def test_without_a_reader_includes_match_nothing():
    assert messages(compiled(f"include x\n{INSTANCE}")) == ["warning: no file matches 'x'"]


def test_a_file_of_a_hundred_thousand_lines_is_compiled_whole():
    server = "real_server 10.%d.%d.%d 80 {\nTCP_CHECK {\n}\n}\n"
    servers = "".join(server % (n >> 16, n >> 8 & 255, n & 255) for n in range(25_000))
    result = compiled(f"virtual_server 192.0.2.1 80 {{\nprotocol TCP\n{servers}}}\n")
    assert len(result.sources["test.conf"]) > 100_000
    assert len(result.configuration.virtual_servers[0].real_servers) == 25_000
    assert messages(result) == []


def test_the_tree_is_freed_with_the_compiler():
    """No cycle keeps the statements: a daemon would hold megabytes of them until its garbage collector comes by."""
    text = corpus_text(CORPUS / "every-service.conf") + corpus_text(CORPUS / "every-vrrp.conf")
    gc.collect()
    gc.disable()
    try:
        result = compile_text(text, "f")
        left = sum(isinstance(found, Statement) for found in gc.get_objects())
    finally:
        gc.enable()
    assert result.configuration.virtual_servers
    assert left == 0


def test_a_hundred_thousand_comments_blanks_and_surplus_braces_are_survived():
    result = compiled("# x\n\n}\n" * 33_334 + INSTANCE)
    assert len(result.findings) == MAX_FINDINGS + 1
    assert "32334 more" in list(result.findings)[-1].message
    assert len(result.configuration.vrrp_instances) == 1


# -- properties -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", corpus_files(), ids=lambda path: path.stem)
def test_findings_of_the_corpus_lie_in_the_text(path):
    check_places(compile_corpus(path))


@given(st.text(max_size=300))
def test_any_text_compiles(text):
    check_places(compile_text(text, "f"))


@given(st.lists(st.sampled_from(WORDS), max_size=80))
def test_any_words_of_the_language_compile(found):
    check_places(compile_text(" ".join(found), "f"))


def mutate(tokens: list[str], kind: str, at: int, other: int) -> list[str]:
    at, other = at % len(tokens), other % len(tokens)
    if kind == "delete":
        return tokens[:at] + tokens[at + 1 :]
    if kind == "duplicate":
        return [*tokens[: at + 1], *tokens[at:]]
    if kind == "swap":
        tokens = list(tokens)
        tokens[at], tokens[other] = tokens[other], tokens[at]
        return tokens
    return [*tokens[:at], WORDS[other % len(WORDS)], *tokens[at:]]


MUTATIONS = st.lists(
    st.tuples(st.sampled_from(["delete", "duplicate", "swap", "insert"]), st.integers(0, 9999), st.integers(0, 9999)),
    min_size=1,
    max_size=12,
)


def mutated(mutations: list[tuple[str, int, int]]) -> str:
    tokens = TOKENS
    for mutation in mutations:
        tokens = mutate(tokens, *mutation)
    return " ".join(tokens)


@given(MUTATIONS)
def test_any_mutation_of_the_article_compiles(mutations):
    result = compile_text(mutated(mutations), "f")
    check_places(result)
    encoded = msgspec.json.encode(result.configuration, enc_hook=str)
    assert msgspec.json.decode(encoded, type=Configuration) == result.configuration


@given(MUTATIONS)
def test_what_is_left_of_a_mutation_is_in_range(mutations):
    for instance in compile_text(mutated(mutations), "f").configuration.vrrp_instances:
        assert 1 <= instance.virtual_router_id <= 255
        assert 1 <= instance.priority <= 255
        assert instance.advert_interval_s > 0
    for service in compile_text(mutated(mutations), "f").configuration.virtual_servers:
        assert service.quorum >= 1
        assert 0 <= service.hysteresis < service.quorum
        assert len({server.endpoint for server in service.real_servers}) == len(service.real_servers)


CLEAN = (
    "article-master",
    "cross-checks",
    "every-global-defs",
    "every-service",
    "ipv6-service",
    "misplaced",
    "not-yet",
    "packaged-default",
)
BLANKS = st.sampled_from([" ", "  ", "\t", " \t "])


@given(st.sampled_from(CLEAN), st.data())
def test_white_space_does_not_change_the_model(name, data):
    path = CORPUS / f"{name}.conf"
    blank, indent, end = (
        data.draw(BLANKS),
        data.draw(st.sampled_from(["", " ", "\t\t"])),
        data.draw(st.sampled_from(["\n", "\r\n", "\n\n", " \n"])),
    )
    spaced = end.join(indent + respaced(line, blank) for line in corpus_text(path).split("\n"))
    result = compile_text(spaced, path.name)
    assert result.configuration == compile_corpus(path).configuration
    assert [found.message for found in result.findings] == [found.message for found in compile_corpus(path).findings]


def respaced(line: str, blank: str) -> str:
    """``line`` with every run of blanks outside quotes replaced."""
    return line if '"' in line else blank.join(words(line))


@pytest.mark.parametrize("name", CLEAN)
def test_braces_may_be_glued_or_stand_on_lines_of_their_own(name):
    text, model = corpus_text(CORPUS / f"{name}.conf"), compile_corpus(CORPUS / f"{name}.conf").configuration
    for changed in (text.replace(" {\n", "{\n"), text.replace(" {\n", "\n{\n"), re.sub(r"\n\s*}(?=\n)", " }", text)):
        assert compile_text(changed, "f").configuration == model


@given(st.dictionaries(st.sampled_from("abc"), st.sampled_from(["include a", "include b", "include c", "x", ""]), min_size=1))
def test_includes_end_for_any_files(texts):
    def reader(name: str, including: str) -> list[Included]:
        return [Included(name, texts[name])] if name in texts else []

    check_places(compile_text("include a", "a", reader))


def test_text_with_lone_surrogates_compiles():
    compiled("vrrp_instance A {\nauthentication {\nauth_type PASS\nauth_pass a\udc80b\n}\n}")
