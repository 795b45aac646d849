"""Control groups, from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.run import cgroup, environment
from bench.run.cgroup import cpu_quota, groups
from bench.run.memory import free_bytes
from bench.run.probes import Reading, clocks


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def belong(root: Path, text: str) -> Path:
    write(root, membership=text)
    return root / "membership"


def test_version_2_the_tightest_group_around_the_process_counts(tmp_path: Path) -> None:
    ours = belong(tmp_path, "0::/kubepods/pod/job")
    write(tmp_path / "kubepods", cpu__max="250000 100000")
    write(tmp_path / "kubepods" / "pod", cpu__max="max 100000")
    write(tmp_path / "kubepods" / "other", cpu__max="1000 100000")
    assert cpu_quota(tmp_path, ours) == 2.5
    write(tmp_path / "kubepods" / "pod" / "job", cpu__max="30000 20000")
    assert cpu_quota(tmp_path, ours) == 1.5


def test_version_1_the_tightest_group_around_the_process_counts(tmp_path: Path) -> None:
    ours = belong(tmp_path, "5:memory:/other\n4:cpu,cpuacct:/docker/job\n0::/")
    write(tmp_path / "cpu" / "docker", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    write(tmp_path / "cpu" / "other", cpu__cfs_quota_us="1000", cpu__cfs_period_us="100000")
    assert cpu_quota(tmp_path, ours) is None
    write(tmp_path / "cpu" / "docker" / "job", cpu__cfs_quota_us="75000", cpu__cfs_period_us="50000")
    assert cpu_quota(tmp_path, ours) == 1.5


def test_in_a_container_the_root_is_its_own_group(tmp_path: Path) -> None:
    """``membership`` names a group of the host there."""
    write(tmp_path, cpu__max="50000 100000")
    assert cpu_quota(tmp_path, belong(tmp_path, "0::/../../host/group")) == 0.5
    assert groups("cpu", tmp_path / "none", tmp_path / "none") == []


def test_memory_of_the_tightest_group_around_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup.groups, "__defaults__", (tmp_path, belong(tmp_path, "0::/slice/job")))
    write(tmp_path / "slice", memory__max="9000", memory__current="1000")
    write(tmp_path / "slice" / "job", memory__max="8000", memory__current="500")
    assert free_bytes(tmp_path) == 7500


@pytest.mark.parametrize(("quota", "threads"), [(None, 4), (64.0, 4), (2.9, 2), (0.3, 1)])
def test_no_more_threads_than_the_quota_feeds(
    quota: float | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    before = torch.get_num_threads()
    monkeypatch.setattr(environment, "cpu_quota", lambda: quota)
    try:
        torch.set_num_threads(4)
        found = environment.facts()
    finally:
        torch.set_num_threads(before)
    assert found["threads"]["torch"] == threads
    assert found["cpu"]["quota_cores"] == quota


def test_throttling_while_a_cell_is_timed_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def reading(quota: float | None, *stats: list[tuple[int, int]]) -> Reading:
        looks: Any = iter(stats)
        monkeypatch.setattr(cgroup, "throttled", lambda: next(looks))
        monkeypatch.setattr(cgroup, "cpu_quota", lambda: quota)
        watch = clocks.sampler_for("cpu")
        watch.start()
        return watch.stop()

    assert reading(None, [(0, 0)], [(0, 0)]) == Reading()
    assert reading(2.0, [(10, 3), (90, 40)], [(30, 3), (110, 40)]) == Reading({"throttled_fraction": 0.0})
    slowed = reading(1.5, [(10, 3), (90, 40)], [(30, 3), (110, 45)])
    assert slowed.values == {"throttled_fraction": 0.25}
    assert slowed.notes == {"throttled_fraction": "throttled: CPU quota of 1.5 cores"}
    assert reading(1.5, [(10, 3)], [(10, 3)]).values == {"throttled_fraction": 0.0}  # within one period


def test_throttled_periods_as_the_kernel_counts_them(tmp_path: Path) -> None:
    write(tmp_path, cpu__stat="usage_usec 5\nnr_periods 7\nnr_throttled 2\nthrottled_usec 9")
    assert cgroup.throttled(tmp_path, tmp_path / "none") == [(7, 2)]
