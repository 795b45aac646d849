"""Clock, temperature, power and throttling of the GPU while a cell is timed; on the CPU throttling by its quota."""

from __future__ import annotations

import statistics
import threading

from bench.run import cgroup
from bench.run.probes import Reading
from bench.run.probes.nvml import THROTTLE_REASONS, GpuState, Nvml

PERIOD_S = 0.01


class ClockSampler:
    """Looks at the GPU every hundredth of a second, in a thread, between ``start`` and ``stop``."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._states: list[GpuState] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> Reading:
        self._ended.set()
        self._thread.join()
        self._look()  # one at least, however short the cell was
        return summarise(self._states, self._nvml.reason)

    def _sample(self) -> None:
        while not self._ended.wait(PERIOD_S):
            self._look()

    def _look(self) -> None:
        if (state := self._nvml.state()) is not None:
            self._states.append(state)


class QuotaWatch:
    """How often the CPU's quota made this process wait. Its clocks are not sampled: a thread takes the cell's time."""

    def start(self) -> None:
        self._before = cgroup.throttled()

    def stop(self) -> Reading:
        quota = cgroup.cpu_quota()
        if quota is None:
            return Reading()
        pairs = zip(cgroup.throttled(), self._before, strict=True)
        share = max((stops - stops0) / max(1, periods - periods0) for (periods, stops), (periods0, stops0) in pairs)
        notes = {"throttled_fraction": f"throttled: CPU quota of {quota:g} cores"} if share else {}
        return Reading({"throttled_fraction": share}, notes)


def sampler_for(device: str) -> ClockSampler | QuotaWatch:
    return ClockSampler(Nvml.current()) if device == "cuda" else QuotaWatch()


def summarise(states: list[GpuState], reason: str) -> Reading:
    """Median clock and power, highest temperature, and the share of looks that found the GPU throttled."""
    clocks, temperatures, powers, bits = (
        [each for each in column if each is not None] for column in (zip(*states, strict=True) if states else ([],) * 4)
    )
    throttled = [each for each in bits if any(int(each) & bit for bit in THROTTLE_REASONS)]
    values: dict[str, float | int | None] = {
        "gpu_clock_hz": statistics.median(clocks) if clocks else None,
        "gpu_temperature_c": max(temperatures, default=None),
        "gpu_power_w": statistics.median(powers) if powers else None,
        "throttled_fraction": len(throttled) / len(bits) if bits else None,
    }
    notes = {name: reason for name, value in values.items() if value is None}
    found = [name for bit, name in THROTTLE_REASONS.items() if any(int(each) & bit for each in throttled)]
    return Reading(values, {**notes, "throttled_fraction": f"throttled: {', '.join(found)}"} if found else notes)
