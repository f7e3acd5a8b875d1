"""Reading the configuration file, and findings that forbid its use."""

from __future__ import annotations

from typing import Final

from relevo.config import Compiled, Places, Severity, compile_text, exit_status, flatten
from relevo.host.configuration_file import read_configuration
from relevo.host.includes import read_included, surroundings

BLOCKING: Final = (Severity.MISSING, Severity.FATAL)
"""Findings that forbid a start or reload."""


def compile_file(file: str, config_id: str | None = None, places: Places | None = None) -> Compiled:
    """Read and compile a configuration file; ``ConfigurationError`` if it cannot be read. ``config_id`` is for ``@id`` lines."""
    text, around = read_configuration(file), surroundings(file, config_id)
    return compile_text(text, file, read_included, places=places, surroundings=around)


def flat_text(file: str, config_id: str | None = None) -> str:
    """Return the text of a configuration file as it is read: with includes and definitions replaced."""
    return flatten(read_configuration(file), file, read_included, surroundings(file, config_id))


def blocking_problem(compiled: Compiled, *, strict: bool) -> str:
    """Return why a configuration must not be used, or an empty string.

    As in keepalived, unknown parts are left out, and a missing argument is fatal.
    """
    for finding in compiled.findings.in_order():
        if finding.severity in BLOCKING:
            return f"{finding.place}: {finding.message}"
    if strict and exit_status(compiled.findings):
        worst = compiled.findings.in_order()[0]
        return f"{worst.place}: {worst.message} (--strict)"
    return ""
