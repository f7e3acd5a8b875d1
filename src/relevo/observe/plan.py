"""The operations of a reload as lines of text."""

from __future__ import annotations

from relevo.model.plan import Step


def line_of(step: Step) -> str:
    """Return an operation as a line: what is done, the detail behind a colon, what it breaks in parentheses."""
    text = f"{step.do.value} {step.name}" + (f": {step.detail}" if step.detail else "")
    return f"{text} ({step.breaks})" if step.breaks else text
