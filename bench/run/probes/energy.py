"""Energy of an iteration: NVML's counter of the GPU, or RAPL's of the processor packages."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench.run.probes import Reading
from bench.run.probes.nvml import Nvml
from bench.run.probes.wall import Clock

POWERCAP = Path("/sys/class/powercap")
PASS_S = 0.6  # of iterations between two looks at the counter, which advances in steps of up to 0.1 s


class EnergyMeter(Protocol):
    """A counter of the whole device's energy, its idle share included."""

    def start(self) -> None: ...

    def stop(self, n_iterations: int) -> Reading:
        """``energy_j``: joules since ``start``, over the iterations that ran meanwhile."""
        ...


class NoEnergy:
    """A machine without a readable counter."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def start(self) -> None:
        pass

    def stop(self, n_iterations: int) -> Reading:
        return Reading({"energy_j": None}, {"energy_j": self._reason})


class NvmlEnergy:
    """The GPU's counter."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._start: float | None = None

    def start(self) -> None:
        self._start = self._nvml.energy_j()

    def stop(self, n_iterations: int) -> Reading:
        end = self._nvml.energy_j()
        if self._start is None or end is None:
            return NoEnergy(self._nvml.reason).stop(n_iterations)
        return Reading({"energy_j": (end - self._start) / n_iterations})


class RaplEnergy:
    """All processor packages under ``folder``; a counter that ran over its range is unrolled once.

    Raises:
        OSError: a counter cannot be read.
        ValueError: there is none.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._packages = sorted(path for path in folder.glob("intel-rapl:*") if path.name.count(":") == 1)
        if not self._packages:
            raise ValueError("RAPL is not there")
        self._ranges = [int((path / "max_energy_range_uj").read_text()) for path in self._packages]
        self._start = self._read()

    def _read(self) -> list[int]:
        return [int((path / "energy_uj").read_text()) for path in self._packages]

    def start(self) -> None:
        self._start = self._read()

    def stop(self, n_iterations: int) -> Reading:
        microjoules = 0
        for before, after, top in zip(self._start, self._read(), self._ranges, strict=True):
            microjoules += after - before if after >= before else after + top - before
        return Reading({"energy_j": microjoules / 1e6 / n_iterations})


def meter_for(device: str, folder: Path = POWERCAP) -> EnergyMeter:
    """The meter that this machine has for ``device``."""
    if device == "cuda":
        return NvmlEnergy(Nvml.current())
    try:
        return RaplEnergy(folder)
    except OSError as error:
        return NoEnergy(f"RAPL not readable: {error.strerror}")
    except ValueError as error:
        return NoEnergy(str(error))


def energy_of(meter: EnergyMeter, clock: Clock, step: Callable[[], object], typical_s: float) -> Reading:
    """``energy_j``, joules an iteration, in a pass of its own; nothing is run where there is no meter.

    Args:
        meter: the device's counter.
        clock: runs iterations to their end.
        step: one iteration.
        typical_s: seconds of an iteration.
    """
    n = math.ceil(PASS_S / typical_s)
    meter.start()
    if not isinstance(meter, NoEnergy):
        clock.read(step, n)
    return meter.stop(n)
