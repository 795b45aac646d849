"""What torch's profiler is read for, least work by region, the trace, and a whole profile of one cell."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.profiler_util import Interval

from bench.plan.cell import Cell
from bench.plan.tower import encoder_spec, feature_spec, tower_cost
from bench.records.region import Region
from bench.run import roof
from bench.run.profiler import measure as profiling
from bench.run.profiler.instrument import OVERHEAD
from bench.run.profiler.kernels import ENGINE, STEP, count_events, op_times, profile_step
from bench.run.profiler.trace import TRACK, region_track, write_trace
from bench.run.profiler.work import step_work
from bench.run.tasks import train_step
from ftmamba.encoder import FTEncoder
from ftmamba.features import random_batch

LOSS = Region(name="loss")
MIB = 2**20


def cell(mixer: str, task: str = "train_step", n_tokens: int = 33, **fields: Any) -> Cell:
    settings = {"backend": "reference", "batch_size": 2, "n_layers": 2, "d_model": 16, **fields}
    return Cell(task=task, mixer=mixer, n_tokens=n_tokens, **settings)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("task", ["forward", "train_step"])
@pytest.mark.parametrize("mixer", ["mamba", "attention"])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_the_regions_operations_add_up_to_the_step_s(mixer: str, task: str, n_layers: int) -> None:
    one = cell(mixer, task, n_layers=n_layers, batch_size=5, d_model=48)
    for fused in (False, True):
        work = step_work(one, fused=fused).values()
        assert sum(each.flops for each in work) == tower_cost(one).flops
        assert sum(each.exps for each in work) == tower_cost(one).exps


def test_bytes_of_a_projection_by_hand() -> None:
    work = step_work(cell("mamba", n_tokens=10, n_layers=2, d_model=16, batch_size=3))
    n_tokens, d, inner = 10, 16, 32
    region = Region(name="in_proj", block=0)
    read, written, weights = 3 * n_tokens * d, 3 * n_tokens * 2 * inner, 2 * d * inner
    assert work[region].n_bytes == 4 * (read + written + weights)
    assert work[region.backward].n_bytes == 4 * (2 * read + written + 2 * weights)
    last = Region(name="out_proj", block=1)
    assert work[last].n_bytes == 4 * (3 * (inner + d) + inner * d)  # of the last block one token is read


def test_exponentials_by_hand() -> None:
    scan = Region(name="selective_scan", block=1)  # the last block scans all tokens too
    assert step_work(cell("mamba", n_tokens=10, batch_size=3))[scan].exps == 3 * 10 * 32 * 16
    attention = step_work(cell("attention", n_tokens=10, batch_size=3))
    assert attention[Region(name="attention", block=0)].exps == 3 * 8 * 10 * 10
    assert attention[Region(name="attention", block=1).backward].exps == 3 * 8 * 10


def test_least_work_is_given_for_regions_that_a_step_has() -> None:
    for mixer, backend, fused in (
        ("mamba", "numba", True),
        ("mamba", "reference", False),
        ("attention", "sdpa", False),
    ):
        one = cell(mixer, backend=backend)
        found = profile_step(profiling.build(one), LOSS, "cpu", 1)
        assert step_work(one, fused=fused).keys() <= {region for region, _ in found.op_s}


def test_two_towers_have_the_work_of_both() -> None:
    one = cell("attention", n_tokens=20)
    both = step_work(one, content_tokens=5)
    sides = (tower_cost(one).flops, tower_cost(cell("attention", n_tokens=5)).flops)
    assert sum(work.flops for work in both.values()) == sum(sides)
    assert {region.tower for region in both} == {"user", "content", ""}


def test_other_libraries_layers_have_no_least_work() -> None:
    assert step_work(cell("torch_transformer", backend="torch")) == {}


def test_ops_are_counted_in_the_region_that_calls_them_forward_and_backward() -> None:
    found = profile_step(profiling.build(cell("attention")), LOSS, "cpu", 3)
    calls = found.op_calls
    q_proj = Region(name="q_proj", block=0)
    assert calls[q_proj, "aten::addmm"] == 1
    assert calls[q_proj.backward, "aten::mm"] == 2  # gradients of the input and of the weight
    feed_forward = Region(name="feed_forward", block=1)
    assert calls[feed_forward, "aten::addmm"] == 2
    assert calls[feed_forward.backward, "aten::mm"] == 4
    assert calls[Region(name="attention", block=0), "aten::_softmax"] == 1
    assert calls[Region(name="attention", block=0).backward, "aten::_softmax_backward_data"] == 1
    assert calls[Region(name="tokenizer"), "aten::embedding"] == 1
    assert any(op == "torch::autograd::AccumulateGrad" for region, op in calls if region == q_proj.backward)
    assert found.kernel_s is None


def test_ops_add_up_to_the_step_by_hand() -> None:
    """Three steps of known length, the first thrown away; each op counts for the region that encloses it."""

    def event(name: str, start: int, end: int, own: float, parent: Any = None, sequence_nr: int = -1) -> Any:
        marks_region = "/" in name or name == STEP
        return SimpleNamespace(
            name=name, self_cpu_time_total=own, cpu_parent=parent, sequence_nr=sequence_nr,
            is_user_annotation=marks_region, time_range=Interval(start, end),
        )  # fmt: skip

    forward, head = "forward/blocks.0/q_proj", Region(name="q_proj", block=0)
    events = []
    for start, product in ((0, 900.0), (1000, 30.0), (2000, 50.0)):
        step = event(STEP, start, start + 160, 0.0)
        region = event(forward, start, start + 60, 10.0, step)
        matmul = event("aten::addmm", start + 5, start + 55, product, region)
        node = event(f"{ENGINE}: AddmmBackward0", start + 60, start + 140, 20.0, step, sequence_nr=7)
        inner = event("aten::mm", start + 70, start + 130, 40.0, node)
        adds_up = event(f"{ENGINE}: torch::autograd::AccumulateGrad", start + 140, start + 150, 8.0, step)
        mark = event(str(OVERHEAD), start + 150, start + 160, 10.0, step)
        events += [step, region, matmul, node, inner, adds_up, mark]
    times, calls, step_s, kernel_s = op_times(events, {7: head}.get, cuda=False)
    expected = {
        (head, "Python"): 10e-6,
        (head, "aten::addmm"): 40e-6,  # the median of the two steps that count
        (head.backward, "AddmmBackward0"): 20e-6,
        (head.backward, "aten::mm"): 40e-6,
        (head.backward, "torch::autograd::AccumulateGrad"): 8e-6,
    }
    assert times == pytest.approx(expected)
    assert calls == dict.fromkeys(expected, 1.0)
    assert step_s == pytest.approx(150e-6)  # without the instrument's own ten
    assert kernel_s is None


def test_the_instruments_own_time_belongs_to_no_region() -> None:
    found = profile_step(profiling.build(cell("attention")), LOSS, "cpu", 2)
    assert OVERHEAD not in {region for region, _ in found.op_s}
    assert all(seconds >= 0 for seconds in found.op_s.values())
    assert found.step_s > 0


def _tower_with(tokenize: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
    tower = FTEncoder(encoder_spec(cell("attention")), feature_spec(33))
    forward = tower.tokenizer.forward
    tower.tokenizer.forward = lambda batch: tokenize(forward(batch))  # type: ignore[method-assign]
    return train_step.prepare(tower, random_batch(feature_spec(33), 2, torch.Generator().manual_seed(0)))


def test_memory_is_counted_for_the_region_that_asked_for_it_while_it_is_in_use() -> None:
    kept: list[Tensor] = []

    def keep(tokens: Tensor) -> Tensor:
        kept[:] = [torch.empty(32 * MIB, dtype=torch.uint8)]
        return tokens

    live = profile_step(_tower_with(keep), LOSS, "cpu", 1).live_bytes
    others = sum(size for region, size in live.items() if region.name != "tokenizer")
    assert 32 * MIB <= live[Region(name="tokenizer")] < 66 * MIB  # the next step's is there before the last's is gone
    assert 0 < others < 2 * MIB


def test_memory_that_is_given_back_before_the_peak_is_not_counted() -> None:
    def use_for_a_moment(tokens: Tensor) -> Tensor:
        torch.empty(MIB // 8, dtype=torch.uint8)
        return tokens

    plain = profile_step(_tower_with(lambda tokens: tokens), LOSS, "cpu", 1).live_bytes
    assert profile_step(_tower_with(use_for_a_moment), LOSS, "cpu", 1).live_bytes == plain


def test_the_weights_of_plain_attention_are_what_memory_goes_to() -> None:
    live = profile_step(profiling.build(cell("attention", n_tokens=200)), LOSS, "cpu", 1).live_bytes
    attention = Region(name="attention", block=0)
    weights = 2 * 8 * 200 * 200 * 4
    assert live[attention] >= weights
    assert live[attention.backward] >= weights
    assert live[attention] + live[attention.backward] > 0.9 * sum(live.values())


def test_events_of_a_step_are_counted_without_tables() -> None:
    x = torch.ones(3)
    one, ten = count_events(lambda: x.exp()), count_events(lambda: [x.exp() for _ in range(10)])
    assert 1 <= one < ten
    assert ten - one == 9


def test_a_trace_has_one_track_of_regions_that_do_not_overlap(tmp_path: Path) -> None:
    found = profile_step(profiling.build(cell("mamba", n_tokens=8)), LOSS, "cpu", 1)
    path = tmp_path / "traces" / "one.json.gz"
    write_trace(found, path)
    assert (tmp_path / "traces" / ".gitignore").read_text() == "*\n"
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    slices = [event for event in events if event.get("cat") == "region"]
    assert all(event["tid"] == TRACK for event in slices)
    names = {event["name"] for event in slices}
    assert {"forward/blocks.0/selective_scan", "backward/blocks.0/selective_scan", "update/optimizer"} <= names
    slices.sort(key=lambda event: event["ts"])
    assert all(a["ts"] + a["dur"] <= b["ts"] for a, b in itertools.pairwise(slices))
    labels = [event for event in events if event.get("ph") == "M" and event.get("tid") == TRACK]
    assert any(event["args"].get("name") == "regions" for event in labels)


def test_nodes_of_one_region_become_one_slice() -> None:
    def node(ts: float, number: int) -> dict[str, Any]:
        name = "autograd::engine::evaluate_function: X"
        return {"ph": "X", "cat": "cpu_op", "name": name, "ts": ts, "dur": 1.0, "pid": 7,
                "args": {"Sequence number": number}}  # fmt: skip

    head, norm = Region(name="head"), Region(name="norm", block=0)
    track = region_track([node(5, 4), node(3, 5), node(1, 6), node(8, -1)], {6: head, 5: head, 4: norm}.get)
    assert [(each["name"], each["ts"], each["dur"]) for each in track if each["ph"] == "X"] == [
        ("backward/head", 1, 3.0),
        ("backward/blocks.0/norm", 5, 1.0),
    ]


def test_a_whole_profile_of_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roof, "BUDGET_S", 0.0)
    monkeypatch.setattr(profiling, "MOST_STEPS", 1)
    one = cell("mamba", n_tokens=12)
    found = profiling.profile_cell(one, {"settings": {"budget_s": 0.2}, "threads": 1}, tmp_path / "trace.json.gz")
    samples, values = found["samples"], found["values"]
    assert len(samples["wall_s"]) >= profiling.FEWEST
    regions = {name: each for name, each in samples.items() if name.startswith("region_s:")}
    for i, total in enumerate(samples["marked_wall_s"]):
        assert sum(each[i] for each in regions.values()) == pytest.approx(total, abs=1e-6)
    assert "region_s:backward/blocks.0/selective_scan" in regions
    assert values["roof_flops_per_s"] > 0  # type: ignore[operator]
    assert values["peak_memory_bytes"] is not None
    assert (tmp_path / "trace.json.gz").exists()
    assert any(name.startswith("op_s:") and value for name, value in values.items())
    assert not any("overhead" in name for name in (*samples, *values))


def test_more_ops_than_the_profiler_can_list_cost_their_table_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "MOST_EVENTS", 50)
    found = profiling.profiled(profiling.build(cell("attention")), LOSS, "cpu", tmp_path / "trace.json.gz")
    assert found.values == {}
    assert "events a step are more than torch's profiler can list" in found.notes["op_s"]


def test_a_trace_that_cannot_be_written_costs_no_figures(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = profiling.profiled(profiling.build(cell("attention")), LOSS, "cpu", tmp_path / "file" / "trace.json.gz")
    assert "trace" in found.notes
    assert any(name.startswith("op_s:") for name in found.values)


def test_ops_too_small_to_tell_are_added_up() -> None:
    kernels = profile_step(profiling.build(cell("attention")), LOSS, "cpu", 1)
    merged = profiling.merged(kernels)
    assert sum(seconds for seconds, _ in merged.values()) == pytest.approx(sum(kernels.op_s.values()))
    assert len(merged) < len(kernels.op_s)
