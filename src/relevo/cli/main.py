"""The ``relevo`` program."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command. ``relevo run`` parts here, so that the daemon is without the command line's library."""
    if sys.argv[1:2] == ["run"]:
        from relevo.daemon.launch import split

        split("relevo")
    gc.disable()  # a command ends before it has garbage worth looking for; the lab, which lasts, enables it
    from relevo.cli.commands import main as command_line

    command_line()
