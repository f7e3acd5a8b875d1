"""The configuration language: text → tokens → tree → model, every finding with its place.

``compile_text`` is the whole compiler; it reads no file. What a file includes is fetched through the ``Reader`` that
the caller passes in.
"""

from relevo.config.compile import Compiled, compile_text
from relevo.config.diagnostics import Finding, Findings, Place, Severity, exit_status, render
from relevo.config.tree import Included, Reader

__all__ = [
    "Compiled",
    "Finding",
    "Findings",
    "Included",
    "Place",
    "Reader",
    "Severity",
    "compile_text",
    "exit_status",
    "render",
]
