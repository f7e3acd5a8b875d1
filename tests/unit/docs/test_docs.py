"""The pages agree with the program: generated pages, links, the map of folders, help texts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from relevo.cli.commands import COMMANDS

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_generated_pages_agree_with_the_code() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_have_a_target(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_readme_has_no_gaps_and_names_the_test_command() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make test" in text
    assert not re.findall(r"^@[A-Z]+@$", text, re.M), "a placeholder is left"


def test_the_map_names_every_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    folders = {path.name for path in (ROOT / "src" / "relevo").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {folder for folder in folders if f"{folder}/" not in text} == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", "relevo", command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 3


def test_our_own_keywords_are_listed_as_differences() -> None:
    keywords = (ROOT / "docs" / "reference" / "keywords.md").read_text()
    differences = (ROOT / "docs" / "reference" / "differences.md").read_text()
    ours = set(re.findall(r"^\| `([a-z_]+)` \|.*\[Relevo\]", keywords, re.M))
    assert ours
    assert {word for word in ours if word not in differences} == set()


def test_every_test_that_the_threats_name_exists() -> None:
    named = re.findall(r"`(tests/[a-z_/0-9]+\.py)::(test_[a-z0-9_]+)`", (ROOT / "docs" / "reference" / "threats.md").read_text())
    assert len(named) > 20
    assert [(file, test) for file, test in named if f"def {test}(" not in (ROOT / file).read_text()] == []
