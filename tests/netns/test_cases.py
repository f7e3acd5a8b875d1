"""Public bug reports as runnable cases (``tests/cases``): real directors in namespaces during edits and faults.

A case mostly waits, so several run at the same time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

CASES = sorted(path for path in (Path(__file__).parents[1] / "cases").glob("*.sh") if path.name != "lib.sh")
AT_ONCE = 3
LIMIT_S = 180.0


def run(case: Path) -> str:
    """Run a case; return what it printed."""
    environment = {
        **os.environ,
        "RELEVO": str(Path(sys.executable).with_name("relevo")),
        "PY": sys.executable,
        "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
    }
    done = subprocess.run(["bash", str(case)], capture_output=True, text=True, env=environment, timeout=LIMIT_S, check=False)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Future[str]]]:
    """All cases, started."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {case.stem: pool.submit(run, case) for case in CASES}
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", [case.stem for case in CASES])
def test_a_case_prints_only_ok(name: str, namespaces: None, ebpf: None, results: dict[str, Future[str]]) -> None:
    lines = results[name].result().splitlines()
    assert lines
    assert [line for line in lines if not line.startswith("ok ")] == []
