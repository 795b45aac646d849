"""Ops: one folder an op, one file a backend. The folder's ``__init__`` states the contract all backends keep."""


def backends_of(op):
    import importlib

    return importlib.import_module(f"ftmamba.ops.{op}").BACKENDS
