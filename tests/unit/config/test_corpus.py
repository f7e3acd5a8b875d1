"""The golden corpus: tests/corpus/NAME.conf → NAME.json (the compiled model) and NAME.findings (the rendered findings).

After a wanted change of the language, ``RELEVO_REGOLD=1 pytest tests/unit/config/test_corpus.py`` rewrites the golden
files; read the difference before it is committed. The model is ``msgspec.to_builtins`` of the ``Configuration``, as
``relevo config`` prints it but with the secrets in the clear, so that their quoting is tested too: all are made up.
"""

import os
from pathlib import Path

import msgspec
import pytest

from relevo.config import Findings, exit_status
from relevo.config.blocks.registry import Block
from relevo.config.blocks.root import ROOT
from relevo.config.tree import Statement, parse
from tests.unit.config.compiling import CORPUS, compile_corpus, corpus_files, corpus_text, read_corpus, rendered

REGOLD = os.environ.get("RELEVO_REGOLD") == "1"
each_file = pytest.mark.parametrize("path", corpus_files(), ids=lambda path: path.stem)


def compare(golden: Path, text: str) -> None:
    if REGOLD:
        golden.write_text(text, encoding="utf-8", newline="")
    assert golden.read_bytes().decode() == text


@each_file
def test_model_is_the_golden_one(path):
    plain = msgspec.to_builtins(compile_corpus(path).configuration)
    compare(path.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(plain)).decode() + "\n")


@each_file
def test_findings_are_the_golden_ones(path):
    text = rendered(compile_corpus(path))
    compare(path.with_suffix(".findings"), text + "\n" if text else "")


def test_every_golden_file_belongs_to_a_configuration():
    golden = {path.stem for suffix in ("json", "findings") for path in CORPUS.glob(f"*.{suffix}")}
    assert golden == {path.stem for path in corpus_files()}


@each_file
def test_model_survives_json(path):
    configuration = compile_corpus(path).configuration
    assert msgspec.json.decode(msgspec.json.encode(configuration), type=type(configuration)) == configuration


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("article-master", 5),
        ("article-backup", 5),
        ("one-line", 5),
        ("comments", 0),
        ("broken-unclosed-brace", 5),
        ("broken-surplus-brace", 5),
        ("broken-unclosed-quote", 6),
        ("broken-nul", 5),
        ("broken-long-line", 5),
        ("broken-keyword-less-block", 5),
        ("broken-deep", 5),
        ("broken-missing-argument", 2),
        ("broken-empty", 4),
        ("broken-only-comments", 4),
        ("broken-garbage", 4),
    ],
)
def test_exit_status_is_that_of_the_gravest_finding(name, status):
    assert exit_status(compile_corpus(CORPUS / f"{name}.conf").findings) == status


def blocks(root: Block) -> list[Block]:
    inner = [found for keyword in root.keywords if keyword.argument.block for found in blocks(keyword.argument.block)]
    return list({found.name: found for found in [root, *inner]}.values())


def used(block: Block, statements: list[Statement]) -> set[tuple[str, str]]:
    found = set()
    for statement in statements:
        keyword = block.table.get(statement.keyword)
        if keyword is None:
            continue
        found.add((block.name, keyword.name))
        if keyword.argument.block:
            found |= used(keyword.argument.block, statement.block or [])
    return found


@pytest.fixture(scope="module")
def used_in_corpus() -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for path in corpus_files():
        found |= used(ROOT, parse(corpus_text(path), path.name, read_corpus, Findings()).statements)
    return found


@pytest.mark.parametrize("block", blocks(ROOT), ids=lambda block: block.name or "root")
def test_every_keyword_of_the_registry_is_in_the_corpus(block, used_in_corpus):
    assert {(block.name, name) for name in block.table} - used_in_corpus == set()
