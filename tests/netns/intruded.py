"""``relevo run`` with an intruder in every process: each tries everything at once when it has given up its privileges.

The lines go to standard error. The environment names the folder of ``tests.intruder.files_in`` and the victim.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from relevo import config
from relevo.cli.main import main
from relevo.daemon import confinement, launch
from relevo.daemon.confinement import Role
from tests.intruder import attempts

FOLDER = Path(os.environ["INTRUDER_FOLDER"])
VICTIM = int(os.environ["INTRUDER_VICTIM"])
PLANE = os.environ["INTRUDER_PLANE"]


def intrude(role: Role) -> None:
    files = {name: FOLDER / name for name in ("secret", "open", "program")}
    for achieved in attempts(role, {**files, "folder": FOLDER}, VICTIM):
        sys.stderr.write(f"INTRUDER in {role.name}: {achieved}\n")
    sys.stderr.write(f"INTRUDER in {role.name} has tried\n")


def before(owner: Any, name: str, role: Role) -> None:
    """Let the intruder in before ``owner.name`` is called."""
    real = getattr(owner, name)

    def intruded(*arguments: Any, **named: Any) -> Any:
        intrude(role)
        return real(*arguments, **named)

    setattr(owner, name, intruded)


def intrude_everywhere() -> None:
    """Only the daemon imports its workers."""
    from relevo.daemon.balancer import BalancerWorker
    from relevo.daemon.director import DirectorWorker
    from relevo.daemon.mailer import Mailer
    from relevo.planes.proxy import worker

    before(DirectorWorker, "run", confinement.DIRECTOR)
    before(BalancerWorker, "run", confinement.BALANCERS[PLANE])
    before(Mailer, "run", confinement.MAIL)
    before(worker, "serve", confinement.PROXY)


before(config, "compile_text", confinement.COMPILER)
become = launch._become_daemon


def become_intruded(*arguments: Any) -> None:
    intrude_everywhere()
    become(*arguments)


launch._become_daemon = become_intruded  # type: ignore[assignment]
main()
