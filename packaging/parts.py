"""Checks the list of a release's parts: valid CycloneDX, every part locked, every licence one that we may pass on.

``python packaging/parts.py PARTS.cdx.json LOCKED.txt`` prints a line for each part, or says on standard error what is wrong, with
exit status 1.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

ALLOWED: Final = ("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "PSF-2.0")
"""Licences that ask for their text and a notice, and for nothing of the program that uses them."""
OLD_NAMES: Final = {
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
}
"""How packages named their licence before SPDX."""


def licences(component: dict[str, Any]) -> list[str]:
    """Return what a part says of its licence; an SPDX expression where there is one."""
    found = []
    for each in component.get("licenses", []):
        name = each.get("expression") or each["license"].get("id") or each["license"].get("name", "")
        found.append(OLD_NAMES.get(name, name))
    return found


def allowed(expression: str) -> bool:
    """Whether an SPDX expression leaves a choice that is allowed: one of ``A OR B``, all of ``A AND B``. Both need a human."""
    parts = re.split(r"\s+(AND|OR)\s+", expression.strip("() "))
    names, operators = parts[::2], set(parts[1::2])
    return len(operators) < 2 and (any if "OR" in operators else all)(name in ALLOWED for name in names)


def problems(parts: dict[str, Any], locked: str) -> list[str]:
    """Return what is wrong with a list of parts."""
    versions = {name.lower().replace("_", "-"): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", locked, re.M)}
    found = []
    listed = set()
    for each in parts.get("components", []):
        name = each["name"].lower().replace("_", "-")
        listed.add(name)
        if name != "relevo" and versions.get(name) != each.get("version"):
            found.append(f"{name} {each.get('version')} is not locked: packaging/lock")
        if not any(map(allowed, licences(each))):
            found.append(f"{name}: no licence that is allowed: {', '.join(licences(each)) or 'none named'}")
    found += [f"{name} is locked and not listed" for name in sorted(versions.keys() - listed)]
    return found


def main(parts_file: str, locked_file: str) -> int:
    """Check and print; return the exit status."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = Path(parts_file).read_text(encoding="utf-8")
    parts = json.loads(text)
    wrong = problems(parts, Path(locked_file).read_text(encoding="utf-8"))
    invalid = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    wrong += [f"no valid CycloneDX: {invalid}"] if invalid is not None else []
    for each in wrong:
        print(f"parts: {each}", file=sys.stderr)  # noqa: T201
    for each in sorted(parts.get("components", []), key=lambda each: str(each["name"])):
        print(f"{each['name']} {each.get('version')}: {', '.join(licences(each))}")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
