"""The compiler: text → tree → blocks → model."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from relevo.config.assemble import configuration
from relevo.config.blocks.registry import Fields
from relevo.config.blocks.root import ROOT
from relevo.config.cursor import Cursor
from relevo.config.diagnostics import Findings
from relevo.config.macros import NOWHERE, Surroundings
from relevo.config.place import Places
from relevo.config.preprocess import Reader
from relevo.config.source import Line
from relevo.config.tree import Statement, parse
from relevo.model import Configuration


class Compiled(msgspec.Struct, frozen=True):
    """The model of a configuration, and its findings."""

    configuration: Configuration
    findings: Findings

    @property
    def sources(self) -> dict[str, list[str]]:
        """Return the lines of every file, for displaying the findings."""
        return self.findings.sources


def compile_text(
    text: str,
    file: str,
    reader: Reader = lambda pattern, including: [],
    *,
    places: Places | None = None,
    surroundings: Surroundings = NOWHERE,
) -> Compiled:
    """Compile ``text``, known as ``file`` in findings. It never raises: what cannot be used is left out and reported.

    ``places`` gets the positions of all declarations; ``surroundings`` is what the file can ask about the machine.
    """
    with _without_collector():
        findings = Findings()
        tree = parse(text, file, reader, findings, surroundings)
        first = tree.sources[file][0]
        top = Statement("", [], Line(file, 1, first), 0)
        top.block = tree.statements
        root = Fields(Cursor(top, findings), ROOT)
        ROOT.evaluate(tree.statements, root)
        model = configuration(root, places or Places(wanted=False))
        findings.count_the_rest()
        findings.hide_secrets()
    return Compiled(model, findings)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the garbage collector: what the compiler makes has no cycles, and walking it is a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
