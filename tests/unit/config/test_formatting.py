"""The layout: the same meaning and comments, and nothing left to do the second time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.cli.fmt import fmt
from relevo.config import Surroundings, compile_text
from relevo.config.formatting import formatted
from tests.unit.config.test_corpus import corpus_files

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*/*.conf"))


def meaning(text: str, ident: str = ""):
    found = compile_text(text, "f", surroundings=Surroundings(config_id=ident))
    findings = sorted((each.severity, each.message) for each in found.findings.items)
    # which block was not closed is a guess from the indentation
    return found.configuration, [finding for finding in findings if "is never closed" not in finding[1]]


@pytest.mark.parametrize("path", [*corpus_files(), *EXAMPLES], ids=lambda path: path.stem)
@pytest.mark.parametrize("ident", ["", "one"])
def test_the_meaning_stays_and_the_second_time_nothing_changes(path, ident):
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    laid_out = formatted(text)
    assert formatted(laid_out) == laid_out
    assert meaning(laid_out, ident) == meaning(text, ident)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a {\nb   c\n\td\n}", "a {\n    b c\n    d\n}\n"),
        ("a\n{\nb\n}\n", "a {\n    b\n}\n"),
        ("a # why\n{\nb\n}\n", "a # why\n{\n    b\n}\n"),
        ("a { b }", "a { b }\n"),
        ("a{b}", "a { b }\n"),
        ("a {\n\n\nb\n\n}\n\n\n", "a {\n\n    b\n\n}\n"),
        ("  # top\n a {\n# inner\n b    # behind\n!old\n}", "# top\na {\n    # inner\n    b # behind\n    !old\n}\n"),
        ('script "a   b"  c', 'script "a   b" c\n'),
        ('a"b"', 'a"b"\n'),
        ("}\n}\na", "}\n}\na\n"),
        ("a {\nb {\n} }\nc", "a {\n    b {\n} }\nc\n"),
        ("a {\r\nb\r\n}", "a {\n    b\n}\n"),
        ("\ufeffa", "a\n"),
        ("a {\nx ${N}  y\n}", "a {\n    x ${N}  y\n}\n"),
        ("$D=\\\n   x {  \\\n  }\n\na {\nb\n}", "$D=\\\n   x {  \\\n  }\n\na {\n    b\n}\n"),
        ("", ""),
        ("\n\n", ""),
    ],
)
def test_layout(text, expected):
    assert formatted(text) == expected


PIECES = st.sampled_from(
    ["a", "priority 5", "{", "}", "\n", " ", "\t", "#c", "!c", '"q  q"', '"', "$A=1", "$A", "${A}", "\\\n", "@x ",
     "~SEQ(i, 1, 2) r$i", "vrrp_instance V {\n", "include f", "'", "\r\n", "é", "\\#"]
)  # fmt: skip


@settings(max_examples=400)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_any_text_keeps_its_meaning(text):
    laid_out = formatted(text)
    assert formatted(laid_out) == laid_out
    assert meaning(laid_out) == meaning(text)


def test_a_file_is_replaced_with_its_mode_and_through_its_link(tmp_path):
    file, link = tmp_path / "k.conf", tmp_path / "link"
    file.write_bytes(b"a {\nb \xff\n}\n")
    file.chmod(0o640)
    link.symlink_to(file)
    run = CliRunner().invoke
    assert run(fmt, ["--check", str(link)]).exit_code == 1
    assert run(fmt, ["-w", str(link)]).exit_code == 0
    assert file.read_bytes() == b"a {\n    b \xff\n}\n"
    assert (file.stat().st_mode & 0o777, link.is_symlink()) == (0o640, True)
    assert os.listdir(tmp_path) in (["k.conf", "link"], ["link", "k.conf"])
    assert run(fmt, ["--check", str(link)]).exit_code == 0


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    found = CliRunner().invoke(fmt, [str(tmp_path)])
    assert (found.exit_code, found.stderr) == (4, f"relevo: cannot read {tmp_path}: Is a directory\n")
