"""Our ipvsadm beside the real one, on the same table of the same kernel: what it prints, its status, and the table after it."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relevo.compat.ipvsadm.program import Program
from relevo.compat.ipvsadm.tables import KernelTable
from relevo.planes.ipvs import refusal
from relevo.planes.ipvs.kernel import Kernel
from relevo.wire.ipvs_netlink import DaemonState, Timeouts
from tests.compat.cases import CASES
from tests.conftest import PATH

if refusal():
    pytest.skip(refusal(), allow_module_level=True)

Said = tuple[int, str, str]
Side = Callable[[str, str], Said]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    opened = Kernel()
    subprocess.run(["modprobe", "ip_vs_pe_sip"], check=False)
    yield opened
    clear(opened)
    opened.close()


def clear(kernel: Kernel) -> None:
    kernel.flush()
    for daemon in kernel.daemons():
        kernel.stop_daemon(DaemonState(daemon.state))
    kernel.set_timeouts(Timeouts(900, 120, 300))


def ours(line: str, text: str) -> Said:
    kernel, out, err = Kernel(), io.StringIO(), io.StringIO()
    try:
        status = Program(lambda: KernelTable(kernel), io.StringIO(text), out, err).run(shlex.split(line))
    finally:
        kernel.close()
    return status, out.getvalue(), err.getvalue()


def theirs(line: str, text: str) -> Said:
    environment = {"PATH": PATH, "LC_ALL": "C"}
    done = subprocess.run(
        ["ipvsadm", *shlex.split(line)], input=text, capture_output=True, text=True, check=False, env=environment
    )
    return done.returncode, done.stdout, done.stderr


def met(kernel: Kernel, side: Side, table: tuple[str, ...], line: str, text: str) -> list[Any]:
    """Return what was said, and what the kernel holds afterwards."""
    clear(kernel)
    for step in table:
        assert ours(step, "") == (0, "", ""), step
    said = side(line, text)
    held = [(service, kernel.destinations(service.identity)) for service in kernel.services()]
    return [said, held, kernel.daemons(), kernel.timeouts()]


@pytest.mark.parametrize(("table", "line", "text"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_it_is_the_same(kernel: Kernel, table: tuple[str, ...], line: str, text: str) -> None:
    wanted = met(kernel, theirs, table, line, text)
    (status, out, err), *held = met(kernel, ours, table, line, text)
    if line.startswith("-S"):  # a documented difference: the original does not save thresholds
        out = re.sub(r" -[xy] \d+", "", out)
    assert [(status, out, err), *held] == wanted


def test_a_saved_table_is_restored_by_either(kernel: Kernel) -> None:
    many = next(table for table, line, _ in CASES if line == "-Sn")
    saved = met(kernel, ours, many, "-Sn", "")[0][1]
    assert "-x 10 -y 5" in saved, "the original forgets thresholds"
    restored = [met(kernel, side, (), "-R", saved) for side in (theirs, ours)]
    assert restored[0] == restored[1]
    assert ours("-Sn", "")[1] == saved


def test_the_command_itself(kernel: Kernel) -> None:
    """Both spellings of it, as processes."""
    wanted = met(kernel, theirs, (), "-Ln --nonsense", "")
    folder = Path(sys.executable).parent
    for command in ([str(folder / "relevo-ipvsadm")], [str(folder / "relevo"), "ipvsadm"]):

        def side(line: str, text: str, command: list[str] = command) -> Said:
            done = subprocess.run([*command, *shlex.split(line)], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout, done.stderr

        assert met(kernel, side, (), "-Ln --nonsense", "") == wanted
