"""The supervisor's part of a reload: its own steps, what the log repeats, and the file that says that it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from relevo.daemon.reload import being_read, own_steps, unlogged
from relevo.model import Configuration
from relevo.model.plan import Do, Step


@pytest.mark.parametrize(
    ("roles", "wanted", "expected"),
    [
        ([], ["balancer", "director"], [(Do.START_PROCESS, "balancer"), (Do.START_PROCESS, "director")]),
        (["proxy", "balancer", "director"], ["director"], [(Do.END_PROCESS, "proxy"), (Do.END_PROCESS, "balancer")]),
        (["director"], ["director"], []),
    ],
)
def test_processes_that_start_or_end_are_steps(roles: list[str], wanted: list[str], expected: list[tuple[Do, str]]) -> None:
    steps = own_steps(Configuration(), Configuration(), roles, wanted)
    assert [(step.do, step.name) for step in steps] == expected


def test_the_log_repeats_only_what_no_worker_has_said() -> None:
    steps = [Step(Do.ADD_ADDRESS, "10.0.0.9/24 dev eth0"), Step(Do.ADD_SERVER, "x"), Step(Do.EDIT_CHECK, "c", "retry 1 → 2")]
    assert unlogged(steps) == ["add address 10.0.0.9/24 dev eth0", "edit check c: retry 1 → 2"]


def test_the_marker_is_there_and_empty_while_the_configuration_is_read(tmp_path: Path) -> None:
    marker, said = tmp_path / "reading", list[str]()
    marker.write_text("from another program")
    with pytest.raises(KeyError), being_read(str(marker), lambda text, severity: said.append(text)):
        assert marker.read_text() == ""
        raise KeyError
    assert not marker.exists()
    with being_read(str(tmp_path / "nowhere" / "reading"), lambda text, severity: said.append(text)):
        pass
    assert len(said) == 1 and "No such file or directory" in said[0]
