"""The error classes of the whole project.

An exception means that an operation cannot go on. Refused packets, failed checks and findings in a configuration are values
instead: enum reasons and records, which are counted and displayed.
"""

from __future__ import annotations


class RelevoError(Exception):
    """Base of every error that Relevo raises on purpose.

    ``hint`` says what to do about it; the command line prints it below the message.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(RelevoError):
    """The configuration cannot be used at all: it is missing, not text, or over a limit."""


class HostError(RelevoError):
    """A system call failed. The message names the operation and the system's reason."""


class PlaneError(RelevoError):
    """A data plane cannot be reached, or cannot do what it was asked to do."""


class ControlError(RelevoError):
    """The control socket does not exist, refused the request, or did not answer in time."""


class LabError(RelevoError):
    """The lab cannot build a cluster."""


class ImpossibleTransition(RelevoError):
    """A state machine received an input that its transition table does not list for this state: a programming error."""
