"""The names that a sweep's axes choose from."""

from __future__ import annotations

from ftmamba.mixers import BACKENDS_OF

TASKS = ("forward", "train_step", "block_forward", "block_train")
TRAINING = ("train_step", "block_train")  # those that run a backward pass
MIXERS = tuple(BACKENDS_OF)
EXECUTIONS = ("eager", "compile", "graph")
DEVICES = ("cpu", "cuda")
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
DTYPES = tuple(DTYPE_BYTES)
HEAPS = ("kept", "system")
