"""The sections of a page, one a file: its ``ORDER`` among them, and ``build``, None where there is nothing to say.

A file with ``TERMINAL = True`` is printed at the end of a run as well.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def in_order() -> list[ModuleType]:
    """All that are found in this folder, in reading order."""
    found = [importlib.import_module(f"{__name__}.{each.name}") for each in pkgutil.iter_modules(__path__)]
    return sorted(found, key=lambda section: section.ORDER)
