"""Ops: one folder an op, one file a backend. The folder's ``__init__`` states the contract all backends keep."""
