"""Probes: against allocations of known size, and against recorded readings where the hardware is absent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from ctypes.util import find_library
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from bench.run.memory import free_bytes, oom_kills
from bench.run.probes import Reading, clocks, energy, memory
from bench.run.probes.nvml import GpuState, Nvml, handle_of
from bench.run.probes.wall import CpuClock

MIB = 2**20


@pytest.mark.parametrize("fill", [torch.ones, torch.zeros, torch.empty])  # pages written, mapped at first use, never
@pytest.mark.parametrize("mebibytes", [3, 300])
def test_peak_memory_of_a_known_allocation(mebibytes: int, fill: Callable[[int], Tensor]) -> None:
    def step() -> int:
        first, second = (fill(mebibytes * MIB // 8) for _ in range(2))  # half of the peak each
        del first  # makes room for the third
        return len(second) + len(fill(mebibytes * MIB // 8))

    elements, reading = memory.peak_of(step, "cpu")
    assert elements == mebibytes * MIB // 4
    assert reading.values["peak_memory_bytes"] == mebibytes * MIB


@pytest.mark.parametrize("name", ["jemalloc", "tcmalloc_minimal", "mimalloc"])
def test_peak_memory_is_the_same_with_every_allocator(name: str) -> None:
    if (library := find_library(name)) is None:
        pytest.skip(f"{name} is not installed")
    program = (
        "import torch; from bench.run.probes.memory import peak_of\n"
        "step = lambda: torch.empty(2**21)\n"
        "for _ in range(3): print(peak_of(step, 'cpu')[1].values['peak_memory_bytes'])"
    )
    environment = {**os.environ, "LD_PRELOAD": library}
    told = subprocess.check_output([sys.executable, "-c", program], text=True, env=environment)
    assert told.split() == [str(2 * 2**22)] * 3


def test_a_gpu_allocator_that_rounds_up_or_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stats: dict[str, int] = {}
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 0)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: stats)
    monkeypatch.setattr(Nvml, "current", lambda: Nvml(None, None, "none"))
    _, blind = memory.peak_of(lambda: None, "cuda")
    assert blind.values["peak_memory_bytes"] is None
    assert "counts nothing" in blind.notes["peak_memory_bytes"]
    stats |= {"requested_bytes.all.current": 100, "allocated_bytes.all.current": 512}

    def step() -> None:
        stats.update({"requested_bytes.all.peak": 700, "allocated_bytes.all.peak": 1536})

    _, seen = memory.peak_of(step, "cuda")
    assert seen.values["peak_memory_bytes"] == 600


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's options")
def test_a_kept_heap_maps_no_fresh_pages() -> None:
    program = (
        "import resource, torch; from bench.run.probes.memory import keep_heap\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(8): torch.ones(10 * 2**20)\n"  # 40 MiB, beyond what glibc ever keeps by itself
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "given_back = faults(); keep_heap(); print(given_back, min(faults() for _ in range(4)))"
    )
    given_back, kept = map(int, subprocess.check_output([sys.executable, "-c", program], text=True).split())
    assert given_back > 8 * 15  # pages may be huge ones, of 2 MiB
    assert kept < given_back / 4  # the heap may still grow once


@pytest.mark.usefixtures("naps")
def test_every_iteration_is_timed_on_its_own() -> None:
    seconds = iter((0.25, 2.0, 0.5))
    assert CpuClock().read(lambda: time.sleep(next(seconds)), 3) == [0.25, 2.0, 0.5]


def rapl(folder: Path, *readings: int, top: int = 1_000_000_000) -> None:
    for package, microjoules in enumerate(readings):
        for name in (f"intel-rapl:{package}", f"intel-rapl:{package}:0"):
            zone = folder / name
            zone.mkdir(exist_ok=True)
            (zone / "energy_uj").write_text(f"{microjoules}\n")
            (zone / "max_energy_range_uj").write_text(f"{top}\n")


def test_rapl_adds_packages_and_unrolls_a_counter(tmp_path: Path) -> None:
    rapl(tmp_path, 1_000_000, 999_000_000)
    meter = energy.meter_for("cpu", tmp_path)
    meter.start()
    rapl(tmp_path, 4_000_000, 1_000_000)  # 3 J, and 2 J over the end of the range
    assert meter.stop(n_iterations=10) == Reading({"energy_j": 0.5})


def test_a_machine_without_rapl_says_so(tmp_path: Path) -> None:
    def never() -> None:
        raise AssertionError("no iteration is run for a counter that is not there")

    def reason() -> str:
        reading = energy.energy_of(energy.meter_for("cpu", tmp_path), CpuClock(), never, 0.1)
        assert reading.values == {"energy_j": None}
        return reading.notes["energy_j"]

    assert reason() == "RAPL is not there"
    rapl(tmp_path, 1)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    (tmp_path / "intel-rapl:0" / "energy_uj").mkdir()
    assert reason().startswith("RAPL not readable")


class RecordedNvml:
    """Stands in for ``pynvml`` with the readings of a GPU that ran into its power cap."""

    def __init__(self) -> None:
        self._energy = iter([1_000_000, 1_250_000])

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        assert handle == "gpu"
        return next(self._energy)

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        assert kind == 1
        return 1410

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        return 71

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return 399_500

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:  # noqa: N802
        return 0x04

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=1, usedGpuMemory=5), SimpleNamespace(pid=os.getpid(), usedGpuMemory=7 * MIB)]


class HopperNvml(RecordedNvml):
    """The mean of a second beside the power of this moment; what slices of a GPU do not tell."""

    asked = 0

    def nvmlDeviceGetFieldValues(self, handle: str, fields: list[int]) -> list[Any]:  # noqa: N802
        assert fields == [186]
        return [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=650_000))]

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:  # noqa: N802
        self.asked += 1
        raise type("NVMLError_NotSupported", (Exception,), {})("not supported")


def test_what_a_gpu_does_not_tell_hides_nothing_else() -> None:
    library = HopperNvml()
    nvml = Nvml(library, "gpu")
    sampler = clocks.ClockSampler(nvml)
    sampler.start()
    time.sleep(10 * clocks.PERIOD_S)
    found = sampler.stop()
    assert found.values["gpu_power_w"] == 650.0  # not the mean of the last second
    assert found.values["gpu_clock_hz"] == 1_410_000_000
    assert found.values["throttled_fraction"] is None
    assert "not supported" in found.notes["throttled_fraction"]
    assert library.asked == 1  # and not at every look


def test_a_slice_of_a_gpu_is_found_by_its_own_name() -> None:
    known = {"MIG-1234": "slice", "GPU-5678": "whole"}
    library = SimpleNamespace(nvmlDeviceGetHandleByUUID=known.__getitem__)
    assert handle_of(library, "1234") == "slice"
    assert handle_of(library, "MIG-1234") == "slice"
    assert handle_of(library, "5678") == "whole"
    with pytest.raises(KeyError):
        handle_of(library, "9")


class BrokenNvml:
    def __getattr__(self, name: str) -> Any:
        def fail(*arguments: object) -> None:
            raise RuntimeError("GPU is lost")

        return fail


def test_recorded_readings_of_a_gpu() -> None:
    nvml = Nvml(RecordedNvml(), "gpu")
    done = []
    reading = energy.energy_of(energy.NvmlEnergy(nvml), CpuClock(), lambda: done.append(1), 0.006)
    assert len(done) == 100  # 0.6 s of iterations that take 6 ms
    assert reading == Reading({"energy_j": 2.5})
    assert nvml.state() == GpuState(1_410_000_000, 71, 399.5, 0x04)
    assert nvml.process_memory().values == {"process_memory_bytes": 7 * MIB}


@pytest.mark.parametrize("nvml", [Nvml(None, None, "NVML not readable: no driver"), Nvml(BrokenNvml(), "gpu")])
def test_an_absent_or_broken_gpu_gives_none_with_a_reason(nvml: Nvml) -> None:
    sampler = clocks.ClockSampler(nvml)
    sampler.start()
    reading = energy.energy_of(energy.NvmlEnergy(nvml), CpuClock(), lambda: None, 0.1)
    reading += sampler.stop() + nvml.process_memory()
    assert set(reading.values.values()) == {None}
    assert reading.notes.keys() == reading.values.keys()
    assert all(note for note in reading.notes.values())


def test_a_cell_shorter_than_the_period_is_looked_at_once() -> None:
    sampler = clocks.ClockSampler(Nvml(RecordedNvml(), "gpu"))
    sampler.start()
    found = sampler.stop()
    assert found.values["gpu_power_w"] == 399.5
    assert found.notes["throttled_fraction"] == "throttled: software power cap"


def test_throttled_readings_are_flagged() -> None:
    fine, capped, hot = (
        GpuState(clock, 60 + bits, 100.0, bits) for clock, bits in ((1000, 0), (800, 0x04), (600, 0x40))
    )
    found = clocks.summarise([fine, capped, hot, fine], "")
    assert found.values["throttled_fraction"] == 0.5
    assert found.values["gpu_clock_hz"] == 900
    assert found.values["gpu_temperature_c"] == 60 + 0x40
    assert found.notes["throttled_fraction"] == "throttled: software power cap, hardware thermal slowdown"
    assert clocks.summarise([GpuState(1, 1, 1.0, 0x01)], "").notes == {}  # idle is no throttling


def test_free_memory_is_what_the_control_group_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes(tmp_path) > 0
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=50_000_000))
    assert free_bytes(tmp_path) == 50_000_000
    (tmp_path / "memory.max").write_text("100000000\n")
    (tmp_path / "memory.current").write_text("70000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 5000000\n")
    assert free_bytes(tmp_path) == 35_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(tmp_path) == 50_000_000


def test_kills_for_want_of_memory_are_counted(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("pgfault 9\noom_kill 2\n")
    (tmp_path / "memory.events").write_text("oom 5\noom_kill 3\n")
    assert oom_kills(tmp_path, tmp_path / "vmstat") == 5
    assert oom_kills(tmp_path / "none", tmp_path / "none") == 0
