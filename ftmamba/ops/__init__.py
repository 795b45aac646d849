"""Ops: one folder an op, one file a backend. The folder's ``__init__`` states the contract all backends keep."""

from __future__ import annotations

import importlib
import pkgutil

from ftmamba.backends import Backends

OPS = tuple(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def backends_of(op: str) -> Backends:
    """All backends of an op, one of ``OPS``."""
    backends: Backends = importlib.import_module(f"{__name__}.{op}").BACKENDS
    return backends
