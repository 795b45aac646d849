"""What all tests share: where Triton's kernels run, and no judgement of time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Triton decides when it is first imported: on a GPU where there is one, else under its interpreter, on CPU tensors.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted time: the clocks stand still but for sleep, which takes exactly what it is told and returns at once."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "perf_counter", lambda: sum(slept))
    monkeypatch.setattr(time, "perf_counter_ns", lambda: round(sum(slept) * 1e9))
