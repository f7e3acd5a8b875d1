"""The kinds of checkers, one file each, which registers itself.

A new checker is a new file here, which is imported below, and a type in ``model/checks``.
"""

from relevo.config.blocks.checkers import dns, file, http, misc, missing, ping, smtp, tcp, udp  # noqa: F401 - they register
from relevo.config.blocks.checks import KINDS

__all__ = ["KINDS"]
