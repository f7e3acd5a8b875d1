"""The files that a configuration includes, and what else it can ask about this machine."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from itertools import islice
from typing import Final

from relevo.config import Included, Surroundings
from relevo.errors import ConfigurationError
from relevo.host.configuration_file import read_configuration

MAX_ALTERNATIVES: Final = 10_000
"""Files or alternatives in braces that one include may name."""

_BRACES: Final = r"\{([^{}]*)\}"


def _expand_braces(pattern: str) -> list[str]:
    """Return the alternatives of the braces in ``pattern``; ``ConfigurationError`` if they are too many."""
    found: list[str] = []
    waiting = [pattern]
    while waiting:
        present = waiting.pop()
        match = next((each for each in re.finditer(_BRACES, present) if "," in each[1]), None)
        if match is None:
            found.append(present)
        else:
            waiting += [present[: match.start()] + part + present[match.end() :] for part in reversed(match[1].split(","))]
        if len(found) + len(waiting) > MAX_ALTERNATIVES:
            raise ConfigurationError(f"the braces stand for more than {MAX_ALTERNATIVES} names")
    return found


def read_included(pattern: str, including: str) -> list[Included]:
    """Return the files that match ``pattern`` (globs and braces), relative to the directory of the including file.

    An alternative in braces without a match is named as missing. As in keepalived, only regular files are read, and no programs.
    """
    import glob

    folder = os.path.dirname(os.path.abspath(including))
    found: list[Included] = []
    try:
        alternatives = _expand_braces(pattern)
    except ConfigurationError as error:
        return [Included(pattern, error=str(error))]
    for one in alternatives:
        path = os.path.join(folder, one)
        matches = sorted(islice(glob.iglob(path), MAX_ALTERNATIVES))
        if not matches:
            found.append(Included(path, error="no file matches", missing=True))
        found += map(_include, matches)
    return found


def _include(path: str) -> Included:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH):
            return Included(path, error="it can be executed, so it is no configuration (chmod -x)")
        return Included(path, read_configuration(path))
    except OSError as error:
        return Included(path, error=error.strerror or str(error))
    except ConfigurationError as error:
        return Included(path, error=str(error))


def surroundings(file: str, config_id: str | None = None) -> Surroundings:
    """Return what a configuration file can ask about this machine; by default ``@id`` lines are those of its short name."""

    def draw(seed: int | None) -> Callable[[int, int], int]:
        import random

        return random.Random(seed).randint  # noqa: S311 - a number in a configuration, no secret

    return Surroundings(
        config_id=os.uname().nodename.partition(".")[0] if config_id is None else config_id,
        folder=os.path.dirname(os.path.abspath(file)),
        environment=os.environ,
        random=draw,
    )
