"""Profiles from records whose truth is planted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.profile import faster_half, profile_of, profiles_of, roof_times
from bench.plan.cell import Cell
from bench.records.record import Record
from bench.records.region import Region
from bench.records.store import Run


def record(
    samples: dict[str, Any], values: dict[str, Any] | None = None, n_tokens: int = 100, content_tokens: int = 0
) -> Record:
    cell = Cell(task="profile", profiled="train_step", mixer="mamba", backend="numba", n_tokens=n_tokens,
                content_tokens=content_tokens, batch_size=4, n_layers=2, d_model=64)  # fmt: skip
    return Record(
        run="planted", cell_id=cell.id, round=0, cell=dict(cell), status="ok", samples=samples, values=values or {},
    )  # fmt: skip


PARTS = {
    "forward/tokenizer": 1.0,
    "forward/blocks.0/in_proj": 2.0,
    "forward/blocks.0/selective_scan": 4.0,
    "forward/blocks.1/in_proj": 2.0,
    "backward/blocks.0/selective_scan": 8.0,
    "backward/blocks.1/out_proj": 2.0,
    "update/optimizer": 1.0,
}


def planted(factors: list[float], **values: Any) -> Record:
    """Marked steps that all take 20 ms times their factor; plain steps that take 16 ms."""
    samples = {f"region_s:{name}": [ms * factor / 1e3 for factor in factors] for name, ms in PARTS.items()}
    return record({"wall_s": [0.016] * 5, "marked_wall_s": [0.02 * factor for factor in factors], **samples}, values)


def test_regions_add_up_to_the_step_and_outliers_do_not_count() -> None:
    found = profile_of(planted([1.0, 1.1, 50.0, 0.9, 7.0, 1.3, 1.2, 1.0]))  # the faster half has a mean factor of 1
    assert found.marked_s == pytest.approx(0.02)
    assert sum(found.regions.values()) == pytest.approx(found.marked_s)
    assert found.overhead == pytest.approx(0.25)
    assert found.n_steps == (5, 8)


def test_groups_put_blocks_and_projections_together() -> None:
    shares = {share.name: share for share in profile_of(planted([1.0] * 5)).groups()}
    assert list(shares) == ["tokenizer", "projections", "scan", "optimizer"]
    scan, projections = shares["scan"], shares["projections"]
    assert (scan.forward_s, scan.backward_s, scan.share) == pytest.approx((0.004, 0.008, 0.6))
    assert (projections.seconds, projections.forward_s, projections.backward_s) == pytest.approx((0.006, 0.004, 0.002))
    optimizer = shares["optimizer"]
    assert (optimizer.seconds, optimizer.forward_s, optimizer.backward_s) == pytest.approx((0.001, 0.0, 0.0))
    assert sum(share.share for share in shares.values()) == pytest.approx(1)


def test_parts_keep_every_block_and_put_its_passes_together() -> None:
    parts = {share.name: share for share in profile_of(planted([1.0] * 5)).parts()}
    assert parts["blocks.0/selective_scan"].seconds == pytest.approx(0.012)
    assert parts["blocks.1/in_proj"].seconds == pytest.approx(0.002)
    assert sum(share.share for share in parts.values()) == pytest.approx(1)


def test_share_of_the_roof_by_hand() -> None:
    values = {
        "roof_flops_per_s": 1e9,
        "roof_bytes_per_s:1000": 4e9,
        "roof_bytes_per_s:1000000": 1e9,
        "flops:forward/blocks.0/in_proj": 1e6,  # 1 ms of arithmetic against 10 us of traffic in cache
        "min_bytes:forward/blocks.0/in_proj": 4e4,
        "flops:forward/blocks.1/in_proj": 1e3,  # 0.5 ms of traffic, 2 million bytes being beyond the cache
        "min_bytes:forward/blocks.1/in_proj": 5e5,
        "flops:forward/tokenizer": 0,
        "min_bytes:forward/tokenizer": 100,  # less than the smallest copy: its rate
    }
    times = roof_times(values)
    assert times[Region(name="in_proj", block=0)] == pytest.approx(1e-3)
    assert times[Region(name="in_proj", block=1)] == pytest.approx(5e5 / 4e9)
    assert times[Region(name="tokenizer")] == pytest.approx(100 / 4e9)
    shares = {share.name: share for share in profile_of(planted([1.0] * 5, **values)).groups()}
    # Of the projections two of three regions have least work: 4 ms were measured of them.
    assert shares["projections"].roof_share == pytest.approx((1e-3 + 5e5 / 4e9) / 4e-3)
    assert shares["scan"].roof_share is None
    scan = Region(name="selective_scan", block=0).backward
    exponentials = {f"exps:{scan}": 4e6, f"flops:{scan}": 1e6, "roof_exps_per_s": 2e9}
    assert roof_times({**values, **exponentials})[scan] == pytest.approx(2e-3)
    assert roof_times({**values, f"exps:{scan}": 4e6, f"flops:{scan}": 1e6})[scan] == pytest.approx(1e-3)
    beyond = roof_times({**values, "min_bytes:forward/blocks.1/in_proj": 2e6})
    assert beyond[Region(name="in_proj", block=1)] == pytest.approx(2e-3)


def test_memory_goes_to_the_groups() -> None:
    values = {"live_bytes:forward/blocks.0/in_proj": 100, "live_bytes:backward/blocks.1/out_proj": 30}
    shares = {share.name: share for share in profile_of(planted([1.0] * 5, **values)).groups()}
    assert shares["projections"].live_bytes == 130
    assert shares["scan"].live_bytes == 0
    assert {share.live_bytes for share in profile_of(planted([1.0] * 5)).groups()} == {None}


def test_launch_bound_is_the_share_without_a_kernel() -> None:
    assert profile_of(planted([1.0] * 5, kernel_s=0.012)).launch_bound == pytest.approx(0.25)
    assert profile_of(planted([1.0] * 5, kernel_s=0.017)).launch_bound == 0  # the profiler made the kernels longer
    assert profile_of(planted([1.0] * 5)).launch_bound is None


def test_ops_come_with_the_most_expensive_first() -> None:
    values = {
        "op_s:forward/blocks.0/in_proj:aten::mm": 0.001,
        "op_calls:forward/blocks.0/in_proj:aten::mm": 2,
        "op_s:backward/tokenizer:void kernel<a::b>(int, float)": 0.002,
    }
    ops = profile_of(planted([1.0] * 5, **values)).ops
    assert [(str(op.region), op.name, op.seconds) for op in ops] == [
        ("backward/tokenizer", "void kernel<a::b>(int, float)", 0.002),
        ("forward/blocks.0/in_proj", "aten::mm", 0.001),
    ]
    assert ops[1].calls == 2
    assert math.isnan(ops[0].calls)


def test_two_towers() -> None:
    names = {
        "forward/user/blocks.0/selective_scan": 4.0,
        "backward/user/blocks.0/selective_scan": 2.0,
        "forward/content/head": 1.0,
        "forward/scoring": 1.0,
        "update/optimizer": 2.0,
    }
    samples = {f"region_s:{name}": [ms / 1e3] * 5 for name, ms in names.items()}
    found = profile_of(record({"wall_s": [0.01] * 5, "marked_wall_s": [0.01] * 5, **samples}, content_tokens=7))
    assert {share.name: round(share.share, 6) for share in found.towers()} == {
        "user tower": 0.6, "content tower": 0.1, "scoring": 0.1, "optimizer": 0.2,
    }  # fmt: skip
    assert profile_of(planted([1.0] * 5)).towers() == []


def test_only_profiles_are_read_in_ascending_order_of_length() -> None:
    records = [record({}, n_tokens=n, content_tokens=9) for n in (1000, 100, 300)]
    runs = [
        Run("a", {}, records),
        Run("b", {}, [replace(each, cell={**each.cell, "task": "forward"}) for each in records]),
    ]
    found = profiles_of(runs)
    assert [profile.n_tokens for profile in found] == [100, 300, 1000]
    assert {profile.content_tokens for profile in found} == {9}


@pytest.mark.parametrize(
    "samples",
    [
        {},
        {"marked_wall_s": [], "wall_s": []},
        {"marked_wall_s": ["x", 1.0], "wall_s": None, "region_s:forward/head": [1.0, 2.0]},
        {"marked_wall_s": [1.0], "wall_s": [1.0], "region_s:forward/head": [1.0, 2.0]},
        {"marked_wall_s": [1.0], "wall_s": [1.0], "region_s:nonsense": [1.0], "region_s:": [1.0], "region_s": [1]},
        {"marked_wall_s": [math.nan], "wall_s": [math.inf], "region_s:forward/head": [math.nan]},
    ],
)
def test_whatever_the_record_holds_there_is_no_number_rather_than_a_wrong_one(samples: dict[str, Any]) -> None:
    values = {"flops:forward/head": "many", "roof_flops_per_s": -1, "roof_bytes_per_s:x": 1.0, "op_s:": 1, "op_s:a": 2}
    found = profile_of(record(samples, values))
    assert not found.regions
    assert math.isnan(found.marked_s)
    assert found.groups() == []
    assert found.ops == []


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=60))
def test_the_faster_half_is_half_and_the_faster_one(readings: list[float]) -> None:
    kept = faster_half(np.array(readings))
    left_out = np.delete(np.array(readings), kept)
    assert len(left_out) <= len(kept) <= len(left_out) + 1
    assert all(left_out >= np.array(readings)[kept].max())


def test_a_failed_cell_keeps_its_reason(tmp_path: Path) -> None:
    fields = dict(Cell(task="forward", mixer="mamba", backend="numba", n_tokens=9, batch_size=1, n_layers=1, d_model=8))
    failed = Record(run="r", cell_id="c", round=0, cell=fields, status="oom", reason="no memory")
    found = profile_of(failed)
    assert (found.status, found.reason, found.groups()) == ("oom", "no memory", [])
