"""MISC_CHECK in the balancer, which may start nothing: the supervisor runs the commands (``check_scripts``) and reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relevo.daemon.messages import CancelCheck, RunCheck, ScriptEnded
from relevo.machines.check import Failure, Result, Weight
from relevo.model.checks import MiscCheck
from relevo.node.checks import CheckKey

FIRST_WEIGHT: Final = 2
"""Exit status of a dynamic MISC_CHECK that means weight 0."""


class ScriptChecks:
    """The checks whose commands run now; ``send`` passes wishes to the supervisor."""

    def __init__(self, send: Callable[[RunCheck | CancelCheck], None]) -> None:
        self._send = send
        self._number = 0
        self._running: dict[int, tuple[CheckKey, MiscCheck]] = {}
        self._numbers: dict[CheckKey, int] = {}

    def start(self, key: CheckKey, check: MiscCheck) -> None:
        """Have the command of a check run once."""
        self._number += 1
        self._running[self._number] = (key, check)
        self._numbers[key] = self._number
        service, server, (_, number) = key
        self._send(RunCheck(self._number, service, str(server), number))

    def cancel(self, key: CheckKey) -> None:
        """Forget a command; it has no result."""
        number = self._numbers.pop(key, None)
        if number is not None:
            del self._running[number]
            self._send(CancelCheck(number))

    def ended(self, answer: ScriptEnded) -> list[tuple[CheckKey, Result]]:
        """Return the result of a command that has ended, if it is still needed."""
        found = self._running.pop(answer.number, None)
        if found is None:
            return []
        key, check = found
        del self._numbers[key]
        return [(key, _result_of_script(check, answer))]


def _result_of_script(check: MiscCheck, answer: ScriptEnded) -> Result:
    """Return what an exit status means (keepalived.conf(5), "MISC_CHECK"). A command that cannot run says nothing."""
    status = answer.status
    if status is None:
        return Result(detail=f"not known: {answer.reason}")
    if status == 0:
        return Result()
    if check.dynamic and status >= FIRST_WEIGHT:
        return Result(detail=answer.reason, weight=Weight(status - FIRST_WEIGHT, instead=True))
    return Result(Failure.SCRIPT, answer.reason)
