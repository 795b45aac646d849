"""NVIDIA's management library, or a null object that gives None and the reason."""

from __future__ import annotations

import functools
import os
from typing import Any, NamedTuple

from bench.run.probes import Reading

# Bits of the clock event reasons that mean "slower than it could be" (nvml.h); idle and user settings are left out.
THROTTLE_REASONS = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


class GpuState(NamedTuple):
    """One look at the GPU."""

    sm_clock_hz: int
    temperature_c: int
    power_w: float
    throttle_bits: int


class Nvml:
    """One GPU, seen through ``pynvml``.

    Args:
        library: the ``pynvml`` module, or a stand-in that replays recorded readings; None when there is none.
        handle: the device, as ``library`` names it.
        reason: why there is no library.
    """

    def __init__(self, library: Any, handle: Any, reason: str = "") -> None:
        self._library = library
        self._handle = handle
        self.reason = reason

    @classmethod
    @functools.cache
    def current(cls) -> Nvml:
        """The GPU that torch uses as its current device."""
        try:
            import pynvml

            pynvml.nvmlInit()
            import torch

            uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
        except Exception as error:  # whatever is wrong with a driver, a cell can be timed without it
            return cls(None, None, f"NVML not readable: {error}")

    def energy_j(self) -> float | None:
        """The counter of all energy since the driver was loaded."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def state(self) -> GpuState | None:
        clock = self._ask("nvmlDeviceGetClockInfo", 1)  # 1 is NVML_CLOCK_SM
        temperature = self._ask("nvmlDeviceGetTemperature", 0)  # 0 is NVML_TEMPERATURE_GPU
        power = self._ask("nvmlDeviceGetPowerUsage")
        throttle = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        if clock is None or temperature is None or power is None or throttle is None:
            return None
        return GpuState(int(clock) * 1_000_000, int(temperature), power / 1e3, int(throttle))

    def process_memory(self) -> Reading:
        """Device memory of this process as the driver counts it: context, libraries and cache included."""
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses") or []
        used = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        if not used or used[0] is None:
            reason = self.reason or "NVML does not list this process (as in a container with its own process numbers)"
            return Reading({"process_memory_bytes": None}, {"process_memory_bytes": reason})
        return Reading({"process_memory_bytes": int(used[0])})

    def _ask(self, name: str, *arguments: int) -> Any:
        if self._library is None:
            return None
        try:
            return getattr(self._library, name)(self._handle, *arguments)
        except Exception as error:  # NVML raises one class an error code; all mean that there is no reading
            self.reason = f"{name}: {error}"
            return None
