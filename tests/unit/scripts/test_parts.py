"""The list of a release's parts: what is locked, and what may be passed on."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


def load() -> Any:
    spec = importlib.util.spec_from_file_location("parts", ROOT / "packaging" / "parts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


parts = load()


def part(name: str, version: str, *said: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": version, "licenses": list(said)}


MIT = {"license": {"id": "MIT"}}


@pytest.mark.parametrize(
    ("expression", "verdict"),
    [
        ("MIT", True),
        ("GPL-2.0-or-later", False),
        ("GPL-2.0-or-later OR Apache-2.0", True),
        ("(MIT AND BSD-3-Clause)", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only AND (MIT OR ISC)", False),
        ("(MIT OR ISC) AND BSD-3-Clause", False),
        ("", False),
    ],
)
def test_a_licence_must_leave_a_choice_that_is_allowed(expression: str, verdict: bool) -> None:
    assert parts.allowed(expression) is verdict


def test_what_is_wrong_with_a_list_is_named() -> None:
    listed = {
        "components": [
            part("relevo", "0.1.0", {"license": {"id": "Apache-2.0"}}),
            part("Some_Part", "1.0", MIT),
            part("other", "2.1", MIT),
            part("third", "3.0", {"license": {"name": "License :: Other/Proprietary License"}}),
            part("fourth", "4.0"),
        ]
    }
    locked = "some-part==1.0 \\\n    --hash=sha256:00\nother==2.0\nthird==3.0\nfourth==4.0\nfifth==5.0\n"
    assert parts.problems(listed, locked) == [
        "other 2.1 is not locked: packaging/lock",
        "third: no licence that is allowed: License :: Other/Proprietary License",
        "fourth: no licence that is allowed: none named",
        "fifth is locked and not listed",
    ]


def test_every_dependency_is_locked_with_its_hashes() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    blocks = re.split(r"\n(?=\S)", (ROOT / "packaging" / "locked" / "program.txt").read_text())
    locked = {block.partition("==")[0]: block for block in blocks}
    assert {re.split(r"[><=~]", each)[0] for each in declared} - locked.keys() == set()
    assert [name for name, block in locked.items() if "--hash=sha256:" not in block] == []
