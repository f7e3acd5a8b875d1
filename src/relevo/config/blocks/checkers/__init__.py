"""The kinds of checkers, one file each, which registers itself: a new checker is a new file here and a type in ``model/checks``."""

import importlib
import pkgutil

from relevo.config.blocks.checks import KINDS

for _module in sorted(found.name for found in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")

__all__ = ["KINDS"]
