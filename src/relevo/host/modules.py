"""Loading kernel modules."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

TIMEOUT_S: Final = 20.0
PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"


def load(name: str) -> str:
    """Load a module with ``modprobe``; return an empty string, or why it failed."""
    program = shutil.which("modprobe", path=PATH)
    if program is None:
        return "there is no modprobe"
    if os.geteuid() != 0:
        return "only root may load modules"
    try:
        done = subprocess.run(
            [program, "-q", name], capture_output=True, timeout=TIMEOUT_S, check=False, text=True, env={"PATH": PATH}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"modprobe {name}: {error}"
    return "" if done.returncode == 0 else done.stderr.strip() or f"this kernel has no module {name}"
