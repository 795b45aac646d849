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


POWER_INSTANT = 186  # NVML_FI_DEV_POWER_INSTANT; nvmlDeviceGetPowerUsage is the mean of a second from Ampere on


class GpuState(NamedTuple):
    """One look at the GPU; None for what it does not tell."""

    sm_clock_hz: int | None
    temperature_c: int | None
    power_w: float | None
    throttle_bits: int | None


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
        self._unsupported: set[str] = set()

    @classmethod
    @functools.cache
    def current(cls) -> Nvml:
        """The GPU that torch uses as its current device."""
        try:
            import pynvml

            pynvml.nvmlInit()
            import torch

            uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
            return cls(pynvml, handle_of(pynvml, str(uuid)))
        except Exception as error:  # whatever is wrong with a driver, a cell can be timed without it
            return cls(None, None, f"NVML not readable: {error}")

    def energy_j(self) -> float | None:
        """The counter of all energy since the driver was loaded."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def state(self) -> GpuState | None:
        """What it tells now; None where it tells nothing."""
        clock = self._ask("nvmlDeviceGetClockInfo", 1)  # 1 is NVML_CLOCK_SM
        temperature = self._ask("nvmlDeviceGetTemperature", 0)  # 0 is NVML_TEMPERATURE_GPU
        power = self._power_mw()
        throttle = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        state = GpuState(
            None if clock is None else int(clock) * 1_000_000,
            None if temperature is None else int(temperature),
            None if power is None else power / 1e3,
            None if throttle is None else int(throttle),
        )
        return state if any(each is not None for each in state) else None

    def _power_mw(self) -> float | None:
        """Of this moment, or where the GPU does not tell that the mean of the last second."""
        fields = self._ask("nvmlDeviceGetFieldValues", [POWER_INSTANT])
        if fields and fields[0].nvmlReturn == 0 and fields[0].value.uiVal:
            return float(fields[0].value.uiVal)
        return self._ask("nvmlDeviceGetPowerUsage")  # type: ignore[no-any-return]

    def process_memory(self) -> Reading:
        """Device memory of this process as the driver counts it: context, libraries and cache included."""
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses") or []
        used = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        if not used or used[0] is None:
            reason = self.reason or "NVML does not list this process (as in a container with its own process numbers)"
            return Reading({"process_memory_bytes": None}, {"process_memory_bytes": reason})
        return Reading({"process_memory_bytes": int(used[0])})

    def _ask(self, name: str, *arguments: Any) -> Any:
        if self._library is None or name in self._unsupported:
            return None
        try:
            return getattr(self._library, name)(self._handle, *arguments)
        except Exception as error:  # NVML raises one class an error code; all mean that there is no reading
            self.reason = f"{name}: {error}"
            if type(error).__name__ in ("NVMLError_NotSupported", "NVMLError_FunctionNotFound", "AttributeError"):
                self._unsupported.add(name)
            return None


def handle_of(library: Any, uuid: str) -> Any:
    """NVML's handle of the device with a UUID as torch gives it: of a GPU, or of one of its slices (MIG).

    Raises:
        Exception: NVML's, where there is no such device.
    """
    names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
    for name in names[:-1]:
        try:
            return library.nvmlDeviceGetHandleByUUID(name)
        except Exception:  # one class an error code; the next name may be the right one
            continue
    return library.nvmlDeviceGetHandleByUUID(names[-1])
