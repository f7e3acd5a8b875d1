"""The configuration language: text → lines → tree → blocks → model, with a source position for every finding.

``compile_text`` is the whole compiler; it reads no file. The caller passes a ``Reader``, which reads included files.
"""

from relevo.config.compile import Compiled, compile_text
from relevo.config.diagnostics import STATUS_UNREADABLE, Finding, Findings, Severity, exit_status, render
from relevo.config.macros import Surroundings
from relevo.config.place import How, Place, Places, Step
from relevo.config.preprocess import Included, Reader, flatten

__all__ = [
    "STATUS_UNREADABLE",
    "Compiled",
    "Finding",
    "Findings",
    "How",
    "Included",
    "Place",
    "Places",
    "Reader",
    "Severity",
    "Step",
    "Surroundings",
    "compile_text",
    "exit_status",
    "flatten",
    "render",
]
