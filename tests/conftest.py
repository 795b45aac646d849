"""Triton kernels run on a GPU where there is one, else under Triton's interpreter, on CPU tensors.

Triton decides when it is first imported, so the choice is made here, before any test module loads.
"""

from __future__ import annotations

import os
from pathlib import Path

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
