"""Findings as SARIF: a log that names each place as an editor counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from relevo.config import Included, compile_text
from relevo.config.export import plain_finding, sarif

CORPUS = sorted((Path(__file__).parents[2] / "corpus").glob("*.conf"))


def test_a_finding_has_its_rule_its_level_its_place_and_its_hint() -> None:
    log = sarif(compile_text("vrrp_instance V {\n    priorty 100\n}\n", "k.conf").findings.in_order())
    assert log["version"] == "2.1.0"
    run = log["runs"][0]
    found = next(each for each in run["results"] if each["ruleId"] == "warning/priorty")
    assert run["tool"]["driver"]["rules"][found["ruleIndex"]]["id"] == found["ruleId"]
    assert found["level"] == "warning"
    assert found["message"]["text"].endswith("\ndid you mean 'priority'?")
    assert found["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "k.conf"},
                "region": {"startLine": 2, "startColumn": 5, "endColumn": 12},
            }
        }
    ]


def test_includes_and_definitions_are_related_locations() -> None:
    result = compile_text("include x\n", "k.conf", lambda pattern, by: [Included("x", "$A=nonesuch\n$A 1\n")])
    found = next(each for each in sarif(result.findings)["runs"][0]["results"] if "nonesuch" in each["message"]["text"])
    texts = [each["message"]["text"] for each in found["relatedLocations"]]
    assert texts == ["read as: nonesuch 1", "with the definition at x:1", "included from k.conf:1"]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_finding_of_the_corpus_is_in_the_log_at_a_place_that_exists(path: Path) -> None:
    findings = compile_text(path.read_bytes().decode("utf-8", "replace"), path.name).findings.in_order()
    results = sarif(findings)["runs"][0]["results"]
    assert len(results) == len(findings) == len([plain_finding(finding) for finding in findings])
    for result in results:
        region = result["locations"][0]["physicalLocation"]["region"]
        assert region["startLine"] >= 1
        assert 1 <= region["startColumn"] < region["endColumn"]
        assert result["level"] in ("note", "warning", "error")
