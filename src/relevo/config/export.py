"""Findings for other programs: as JSON, and as a SARIF log, which code forges and editors read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from relevo import __version__
from relevo.config.diagnostics import Finding, Severity
from relevo.config.place import Place, Step

_LEVELS: Final = {Severity.NOTE: "note", Severity.WARNING: "warning"}
"""SARIF has three levels: everything else is an error."""
_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def plain_finding(finding: Finding) -> dict[str, object]:
    """Return a finding with its place and the chain of includes and expansions, the nearest first."""
    place = finding.place
    return {
        "severity": finding.severity.value,
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "length": place.length,
        "chain": [_plain_step(step) for step in place.chain],
        "keyword": finding.keyword,
        "message": finding.message,
        "hint": finding.hint,
    }


def _plain_step(step: Step) -> dict[str, object]:
    plain: dict[str, object] = {"how": step.how.value, "file": step.file, "line": step.line}
    return plain | {"text": step.text} if step.text else plain


def sarif(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return findings as a SARIF 2.1.0 log (OASIS). The keyword is the rule; the hint follows the message."""
    findings = list(findings)
    rules = list(dict.fromkeys(_rule(finding) for finding in findings))
    driver = {"name": "relevo", "version": __version__, "rules": [{"id": rule} for rule in rules]}
    results = [_result(finding, rules.index(_rule(finding))) for finding in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(finding: Finding) -> str:
    return f"{finding.severity.value}/{finding.keyword or 'file'}"


def _result(finding: Finding, index: int) -> dict[str, Any]:
    text = f"{finding.message}\n{finding.hint}" if finding.hint else finding.message
    result: dict[str, Any] = {
        "ruleId": _rule(finding),
        "ruleIndex": index,
        "level": _LEVELS.get(finding.severity, "error"),
        "message": {"text": text},
        "locations": [_location(finding.place)],
    }
    if finding.place.chain:
        result["relatedLocations"] = [
            {**_location(Place(step.file, step.line)), "message": {"text": str(step)}} for step in finding.place.chain
        ]
    return result


def _location(place: Place) -> dict[str, Any]:
    region = {"startLine": max(1, place.line), "startColumn": max(1, place.column)}
    region["endColumn"] = region["startColumn"] + max(1, place.length)
    return {"physicalLocation": {"artifactLocation": {"uri": place.file}, "region": region}}
