"""The whole error tree.

What is a *value* is not here: refused packets, failed checks and findings in a configuration are enum reasons and
records that are counted and shown. An exception means that the operation asked for cannot go on.
"""

from __future__ import annotations


class RelevoError(Exception):
    """Root of every error Relevo raises on purpose.

    ``hint`` names the way out; the command line prints it under the message.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigurationError(RelevoError):
    """The configuration cannot be used at all (no file, not text, over a limit)."""


class HostError(RelevoError):
    """The operating system refused something; the message says what was asked and its answer."""


class PlaneError(RelevoError):
    """A data plane could not be reached or cannot do what was asked."""


class ControlError(RelevoError):
    """The control socket is absent, refused the caller, or did not answer in time."""


class LabError(RelevoError):
    """The lab cannot build the cluster asked for."""


class ImpossibleTransition(RelevoError):
    """A machine was given an input that its transition table does not have: a programming error."""
