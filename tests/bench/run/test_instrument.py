"""Regions as a step passes through them, against orders written by hand and planted times."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.plan.cell import Cell
from bench.plan.tower import encoder_spec, feature_spec
from bench.records.region import Region
from bench.run.profiler.instrument import Instrument, graph_nodes
from bench.run.profiler.kernels import Ranges
from bench.run.profiler.measure import build
from bench.run.profiler.timeline import CpuTimeline, CudaTimeline
from bench.run.tasks import train_step
from ftmamba.encoder import FTEncoder
from ftmamba.features import random_batch
from ftmamba.ops.causal_conv import reference as conv
from ftmamba.ops.selective_scan import reference as scan

LOSS = Region(name="loss")


def cell(mixer: str, task: str = "train_step", n_layers: int = 2, backend: str = "reference") -> Cell:
    return Cell(task=task, mixer=mixer, backend=backend, n_tokens=9, batch_size=2, n_layers=n_layers, d_model=16)


def passage(step: Callable[[], object]) -> list[str]:
    """The regions that one step passes through; coming back to a region is one more entry."""
    seen: list[Region] = []
    with Instrument(seen.append, LOSS) as instrument:
        instrument.run(step)
    return [str(region) for region, _ in itertools.groupby(seen)]


def entered(passed: list[str], phase: str) -> list[str]:
    """Names of the innermost regions of one phase, in the order in which they were first met."""
    glue = {"readout", "residual", "mixer", "loss", "other", "block", "scoring"}
    names = [text.split("/", 1)[1] for text in passed if text.startswith(f"{phase}/")]
    return [name for name in dict.fromkeys(names) if name.rpartition("/")[2] not in glue]


MAMBA = ["norm", "in_proj", "causal_conv", "x_proj", "dt_proj", "selective_scan", "out_proj"]
FORWARD = {
    "mamba": ["tokenizer", *(f"blocks.{i}/{name}" for i in (0, 1) for name in MAMBA), "head"],
    "attention": [
        "tokenizer",
        *(f"blocks.0/{name}" for name in ("q_proj", "kv_proj", "attention", "out_proj", "norm", "feed_forward")),
        *(f"blocks.1/{name}" for name in ("norm", "q_proj", "kv_proj", "attention", "out_proj", "feed_forward")),
        "head",
    ],
}


@pytest.mark.parametrize("mixer", ["mamba", "attention"])
@pytest.mark.parametrize("task", ["forward", "train_step"])
def test_a_forward_pass_goes_through_the_regions_in_order(mixer: str, task: str) -> None:
    assert entered(passage(build(cell(mixer, task))), "forward") == FORWARD[mixer]


@pytest.mark.parametrize("mixer", ["mamba", "attention"])
def test_a_backward_pass_meets_the_same_regions_from_the_end_then_the_optimizer(mixer: str) -> None:
    passed = passage(build(cell(mixer)))
    backward = entered(passed, "backward")
    assert sorted(backward) == sorted(FORWARD[mixer])
    assert backward[0] == "head"
    assert backward[-1] == "tokenizer"
    blocks = [name.split("/")[0] for name in backward if name.startswith("blocks")]
    assert [name for name, _ in itertools.groupby(blocks)] == ["blocks.1", "blocks.0"]
    assert passed[-1] == "update/optimizer"
    phases = [phase for phase, _ in itertools.groupby(text.split("/")[0] for text in passed if "overhead" not in text)]
    assert phases == ["forward", "backward", "update"]


def test_two_towers_are_told_apart() -> None:
    passed = passage(build(cell("mamba", n_layers=1), content_tokens=4))
    assert "forward/user/blocks.0/selective_scan" in passed
    assert "backward/content/blocks.0/selective_scan" in passed
    assert "forward/scoring" in passed
    assert "backward/scoring" in passed
    assert not any(text.startswith("forward/blocks") for text in passed)


@pytest.mark.parametrize(
    ("mixer", "backend", "expected"),
    [
        ("torch_transformer", "torch", {"in_proj", "attention", "out_proj", "linear1", "linear2", "norm"}),
        ("mambapy", "pscan", {"norm", "in_proj", "conv1d", "x_proj", "out_proj", "mixer"}),
        ("hf_mamba", "sequential", {"norm", "in_proj", "x_proj", "out_proj", "mixer"}),
    ],
)
def test_other_libraries_layers_have_regions_too(mixer: str, backend: str, expected: set[str]) -> None:
    passed = passage(build(cell(mixer, backend=backend)))
    found = {text.rpartition("/")[2] for text in passed if "/blocks." in text}
    assert expected <= found


@pytest.mark.parametrize("mixer", ["mamba", "attention"])
def test_every_node_runs_in_the_region_that_made_it(mixer: str) -> None:
    """Against torch's profiler, which knows by itself inside which range an op took which sequence number."""
    ranges = Ranges()
    now = LOSS
    ran_in: dict[int, Region] = {}

    def switch(region: Region) -> None:
        nonlocal now
        now = region
        ranges.switch(region)

    tower = FTEncoder(encoder_spec(cell(mixer)), feature_spec(9))
    batch = random_batch(feature_spec(9), 2, torch.Generator().manual_seed(0))

    def step() -> None:
        loss = tower(batch).square().sum()
        for node in graph_nodes(loss):
            number = node._sequence_nr()
            node.register_hook(lambda inputs, outputs, number=number: ran_in.update({number: now}))
        loss.backward()  # type: ignore[no-untyped-call]
        ranges.close()

    with torch.profiler.profile() as found, Instrument(switch, LOSS) as instrument:
        instrument.run(step)
    made_in: dict[int, Region] = {}  # an op that makes no node shows the number of the next one, so the last op counts
    for event in sorted(found.events(), key=lambda event: event.time_range.start):
        parents = [event]
        while parents[-1].cpu_parent is not None:
            parents.append(parents[-1].cpu_parent)
        if event.scope == 0 and event.sequence_nr >= 0 and parents[-1].is_user_annotation:
            made_in[event.sequence_nr] = Region.parse(parents[-1].name)
    numbers = made_in.keys() & ran_in.keys()
    assert len(numbers) > 40
    assert len(numbers) >= len(ran_in) - 1  # all but the nodes that add up gradients, which share one number
    assert {number: made_in[number].backward for number in numbers} == {number: ran_in[number] for number in numbers}


class _Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        time.sleep(0.25)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        time.sleep(0.5)
        return grads[0]


class _Then(nn.Module):
    """A module, then a nap."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any) -> Tensor:
        return _Slow.apply(self.module(*args))  # type: ignore[no-any-return, no-untyped-call]


def _slow_op(op: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    def slow(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, tuple):  # an op's tensors in one structure
            return op(x._replace(**{x._fields[0]: _Slow.apply(x[0])}), *args, **kwargs)  # type: ignore[attr-defined, no-untyped-call]
        return op(_Slow.apply(x), *args, **kwargs)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(module, name, slow)


def _split_of(tower: FTEncoder) -> dict[str, float]:
    """Seconds of the regions that took any."""
    batch = random_batch(feature_spec(9), 2, torch.Generator().manual_seed(0))
    (split,) = CpuTimeline(LOSS).read(train_step.prepare(tower, batch), 1)
    return {str(region): seconds for region, seconds in split.items() if seconds}


@pytest.mark.parametrize("place", ["head", "tokenizer", "blocks.1/norm", "blocks.0/feed_forward"])
@pytest.mark.usefixtures("naps")
def test_time_slept_in_a_module_is_that_region_s_in_both_passes(place: str) -> None:
    tower = FTEncoder(encoder_spec(cell("attention")), feature_spec(9))
    if place == "head":
        tower.head.norm = _Then(tower.head.norm)  # type: ignore[assignment]
    elif place == "tokenizer":
        forward = tower.tokenizer.forward
        tower.tokenizer.forward = lambda batch: _Slow.apply(forward(batch))  # type: ignore[method-assign]
    elif place == "blocks.1/norm":
        norm: Any = tower.blocks[1].mixer_norm
        forward = norm.forward
        norm.forward = lambda x: _Slow.apply(forward(x))
    else:
        tower.blocks[0].ffn.expand = _Then(tower.blocks[0].ffn.expand)  # type: ignore[union-attr]
    assert _split_of(tower) == {f"forward/{place}": 0.25, f"backward/{place}": 0.5}


@pytest.mark.parametrize(("module", "name"), [(scan, "selective_scan"), (conv, "causal_conv")])
@pytest.mark.usefixtures("naps")
def test_time_slept_in_an_op_is_that_region_s_in_both_passes(
    module: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow_op(getattr(module, name), monkeypatch, module, name)
    tower = FTEncoder(encoder_spec(cell("mamba", n_layers=1)), feature_spec(9))
    assert _split_of(tower) == {f"forward/blocks.0/{name}": 0.25, f"backward/blocks.0/{name}": 0.5}


class _Event:
    """Stands in for a CUDA event: the stream is the processor itself."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at: float | None = None

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: _Event) -> float:
        assert self.at is not None
        assert end.at is not None
        return (end.at - self.at) * 1e3


def test_on_a_gpu_events_divide_a_step_and_nsight_sees_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logic alone, with stand-ins for what a GPU would do."""
    started: list[str] = []
    ended: list[int] = []

    def start(name: str) -> int:
        started.append(name)
        return len(started)

    monkeypatch.setattr(torch.cuda, "Event", _Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda.nvtx, "range_start", start)
    monkeypatch.setattr(torch.cuda.nvtx, "range_end", ended.append)
    step = build(cell("mamba"))
    splits = CudaTimeline(LOSS).read(step, 2)
    expected = {str(region) for region in CpuTimeline(LOSS).read(step, 1)[0]}
    assert [{str(region) for region in split} for split in splits] == [expected, expected]
    assert expected <= set(started)
    assert ended == list(range(1, len(started) + 1))  # every range ends before the next begins, the last one too
    began = time.perf_counter()
    total = sum(CudaTimeline(LOSS).read(step, 1)[0].values())
    assert 0 < total < time.perf_counter() - began


@pytest.mark.usefixtures("naps")
def test_a_split_leaves_nothing_of_a_step_out() -> None:
    step = build(cell("mamba"))

    def first_and_last() -> None:
        time.sleep(0.25)
        step()
        time.sleep(0.5)

    splits = CpuTimeline(LOSS).read(first_and_last, 2)
    expected = {"forward/loss": 0.25, "update/optimizer": 0.5}
    assert [{str(region): s for region, s in split.items() if s} for split in splits] == [expected, expected]


@pytest.mark.parametrize("mixer", ["mamba", "attention"])
def test_results_and_gradients_are_those_without_the_instrument(mixer: str) -> None:
    tower = FTEncoder(encoder_spec(cell(mixer)), feature_spec(9))
    batch = random_batch(feature_spec(9), 2, torch.Generator().manual_seed(0))

    def step() -> list[Tensor]:
        tower.zero_grad()
        out = tower(batch)
        out.square().sum().backward()
        return [out.detach(), *(p.grad.clone() for p in tower.parameters() if p.grad is not None)]

    plain = step()
    with Instrument(lambda region: None, LOSS) as instrument:
        marked = instrument.run(step)
    assert all(torch.equal(a, b) for a, b in zip(plain, marked, strict=True))


def test_nothing_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def held() -> list[Any]:
        return [nn.Module.__call__, nn.functional.linear, Tensor.backward, scan.selective_scan, conv.causal_conv]

    before = held()
    with Instrument(lambda region: None, LOSS):
        assert all(a is not b for a, b in zip(before, held(), strict=True))
    assert all(a is b for a, b in zip(before, held(), strict=True))

    def fail() -> None:
        raise RuntimeError("in a step")

    instrument = Instrument(lambda region: None, LOSS)
    with pytest.raises(RuntimeError, match="in a step"), instrument:
        instrument.run(fail)
    assert all(a is b for a, b in zip(before, held(), strict=True))


def test_a_step_that_failed_inside_a_region_does_not_spoil_the_next() -> None:
    tower = FTEncoder(encoder_spec(cell("mamba", "forward")), feature_spec(9))
    batch = random_batch(feature_spec(9), 2, torch.Generator().manual_seed(0))
    seen: list[Region] = []
    instrument = Instrument(seen.append, LOSS)
    with pytest.raises(AttributeError), instrument:
        instrument.run(lambda: tower(None))
    seen.clear()
    with instrument:
        instrument.run(lambda: tower(batch))
    assert seen[0] == LOSS
    assert seen[-1] == LOSS
    assert entered([str(region) for region in seen], "forward") == FORWARD["mamba"]
