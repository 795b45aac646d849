"""What runs on CUDA alone, with stand-ins for it: first readings, captures, broken contexts, absent packages."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from acting_worker import LENGTH_OF
from torch import Tensor

from bench.data import adapter, planted
from bench.data.dataset import TEST
from bench.data.targets import stages
from bench.plan import presets
from bench.plan.cell import Cell
from bench.plan.plan import Plan
from bench.records.store import load_run
from bench.records.writer import RunWriter
from bench.run import environment, graph, measure, ops, rank_history, rank_quality, stopping, worker
from bench.run.child import run_child
from bench.run.probes import Reading, memory, wall
from bench.run.runner import Runner, missing
from bench.run.session import Conduct
from bench.training.evaluate import HeldOut

ACTING = (sys.executable, str(Path(__file__).parent / "acting_worker.py"))
H100: dict[str, Any] = {"gpus": [{"free_bytes": 80 * 2**30}], "threads": {"torch": 2}}


class Stopwatch:
    """A clock that goes on only when a step says so."""

    now = 0.0

    def read(self, step: Callable[[], Any], n: int) -> list[float]:
        marks = [self.now]
        for _ in range(n):
            step()
            marks.append(self.now)
        return [end - start for start, end in itertools.pairwise(marks)]

    def step(self, first_s: float, later_s: float) -> Callable[[], Tensor]:
        """A step whose first iteration holds compilation and capture."""
        seconds: Iterator[float] = iter([first_s])

        def step() -> Tensor:
            self.now += next(seconds, later_s)
            return torch.ones(1)

        return step


def test_the_first_iteration_on_cuda_says_nothing_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Stopwatch()
    monkeypatch.setattr(wall, "clock_for", lambda device: watch)
    monkeypatch.setattr(memory, "peak_of", lambda step, device: (step(), Reading()))
    first_s, _ = measure.first_step(watch.step(0.5, 1e-3), "cuda")
    assert first_s == pytest.approx(1e-3)
    assert measure.first_s_of(watch.step(0.5, 1e-3), "cuda") == pytest.approx(1e-3)
    step = watch.step(1e-3, 1e-3)
    seconds, _ = stopping.collect(watch, step, 0.5, first_s=first_s)
    assert len(seconds) > 20  # many iterations a reading: the GPU is given them faster than it takes them


class Captures:
    """Stands in for CUDA's graphs: runs what is captured, and counts streams."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_streams, self.captured_on = 0, []  # type: ignore[var-annotated]
        graph.side_stream.cache_clear()
        stream = SimpleNamespace(wait_stream=lambda other: None)
        monkeypatch.setattr(torch.cuda, "Stream", self._stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda s: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
        monkeypatch.setattr(torch.cuda, "graph", self._graph)

    def _stream(self) -> Any:
        self.n_streams += 1
        return SimpleNamespace(wait_stream=lambda other: None, name=self.n_streams)

    def _graph(self, made: Any, stream: Any = None) -> Any:
        self.captured_on.append(stream)
        return contextlib.nullcontext()


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Iterator[Captures]:
    yield Captures(monkeypatch)
    graph.side_stream.cache_clear()


def test_all_graphs_of_a_process_are_captured_on_one_stream(captures: Captures) -> None:
    ran: list[int] = []

    def step() -> Tensor:
        ran.append(1)
        return torch.ones(1)

    for times in (1, 5):
        graph.GraphedStep(step, times)()
    assert captures.n_streams == 1
    assert [stream.name for stream in captures.captured_on] == [1, 1]
    assert len(ran) == 2 * graph.GRAPH_WARM_UP + 1 + 5


def test_ops_shorter_than_a_launch_share_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Graphed:
        """Replays take five microseconds an iteration."""

        def __init__(self, step: object, times: int = 1) -> None:
            made.append(times)
            self.times = times

        def __call__(self) -> None:
            watch.now += 5e-6 * self.times

    watch = Stopwatch()
    monkeypatch.setattr(wall, "clock_for", lambda device: watch)
    monkeypatch.setattr(ops, "GraphedStep", Graphed)
    cell = Cell(task="op", op="causal_conv", backend="reference", device="cpu", dtype="float32", execution="graph",
                n_tokens=5, batch_size=1, width=8)  # fmt: skip
    found = ops.time_of(cell, 0.01)
    assert made == [1, 40]  # 200 microseconds
    assert found["samples"]["wall_s"] == pytest.approx([5e-6] * len(found["samples"]["wall_s"]))
    assert "40 iterations a graph" in found["notes"]["wall_s"]


def test_a_preset_leaves_out_what_is_not_installed_and_starts_no_process(tmp_path: Path) -> None:
    plan = Plan(
        {**presets.load("gpu-sweep"), "mixers": ["mamba_ssm"], "backends": ["fused"], "execution": ["graph"]}
    ).resolved("cuda")
    with RunWriter.create(tmp_path, {}) as writer:
        Runner(plan, H100, writer, Conduct(command="bench.sweep", argv=[]), worker=("no such program",)).run(
            missing(plan, []), lambda record, seconds: None
        )
    records = load_run(tmp_path).records
    assert {record.status for record in records} == {"skipped"}
    assert all("selective_scan_cuda" in each.reason and "python -m bench.peers" in each.reason for each in records)


def test_kernels_of_half_precision_are_left_out_in_float32(tmp_path: Path) -> None:
    plan = Plan({**presets.load("gpu-ops"), "ops": ["attention"], "backends": ["sdpa_flash", "sdpa_cudnn"],
                 "dtype": ["float32"]}).resolved("cuda")  # fmt: skip
    with RunWriter.create(tmp_path, {}) as writer:
        Runner(plan, H100, writer, Conduct(command="bench.sweep", argv=[]), worker=("no such program",)).run(
            missing(plan, [])[:9], lambda record, seconds: None
        )
    assert {record.reason.partition(" takes ")[2] for record in load_run(tmp_path).records} == {"half precision alone"}


def test_the_fused_peer_needs_the_convolution_that_it_would_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    from ftmamba.mixers.mamba_ssm import SPEC

    there = {"mamba_ssm", "selective_scan_cuda"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in there else None)
    assert "causal_conv1d" in str(SPEC.backends["fused"].refusal("cuda"))
    there |= {"causal_conv1d", "causal_conv1d_cuda"}
    assert SPEC.backends["fused"].refusal("cuda") is None
    there.remove("selective_scan_cuda")  # mamba_ssm imports without it, and every cell would be an error
    assert "selective_scan_cuda" in str(SPEC.backends["unfused"].refusal("cuda"))


def test_hugging_faces_layer_runs_what_its_label_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from ftmamba.mixers.hf_mamba import HFMambaSpec
    from ftmamba.mixers.hf_mamba.layer import HFMambaMixer

    monkeypatch.setattr(HFMambaMixer, "slow_forward", lambda self, x: x, raising=False)
    x = torch.randn(1, 3, 16)
    assert HFMambaMixer(HFMambaSpec(backend="sequential"), 16)(x) is x


@pytest.mark.parametrize(
    "words", ["CUDA error: an illegal memory access", "Triton Error [CUDA]: an illegal memory access was encountered",
              "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"],
)  # fmt: skip
def test_no_cell_is_measured_in_a_broken_context(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTING_WORDS", words)
    sizes = {"batch_size": 1, "n_layers": 1, "d_model": 8}
    cells = [
        {"cell": {"task": "forward", "mixer": "attention", "backend": "sdpa", "n_tokens": n, **sizes}, "verified": True}
        for n in (LENGTH_OF["raise_words"], 1000)
    ]
    replies: list[dict[str, Any]] = []
    request = {"cells": cells, "settings": {}, "threads": 1, "cpus": [], "memory_limit_bytes": None, "seconds": None}
    outcome = run_child(ACTING, request, timeout_s=60, on_reply=replies.append)
    assert outcome.exit_code == worker.EXIT_POISONED
    assert [reply["status"] for reply in replies] == ["error"]


def test_memory_that_ran_out_in_a_capture_is_out_of_memory() -> None:
    def capture() -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    with pytest.raises(RuntimeError) as caught:
        capture()
    found = worker.failure(caught.value)
    assert found["status"] == "oom"
    assert "Tried to allocate" in found["reason"]
    alloc = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    assert worker.failure(alloc)["status"] == "oom"
    assert worker.failure(RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE"))["status"] == "error"


def test_an_old_driver_blocks_no_cell_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def old(index: int) -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040)")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", old)
    found = environment.facts()
    assert found["gpus"] == []
    assert environment.resolve_device("auto", found) == "cpu"
    with pytest.raises(environment.MachineError, match="driver on your system is too old"):
        environment.resolve_device("cuda", found)


def test_what_triton_needs_to_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    problem = environment.compiler_problem()
    assert problem is not None
    assert "a C compiler (gcc)" in problem
    assert "Python.h" in problem
    monkeypatch.setenv("CC", "cc")
    (tmp_path / "Python.h").touch()
    assert environment.compiler_problem() is None


@pytest.mark.parametrize(("roundings", "wrong_gradient"), [(5.0, False), (12.0, True)])
def test_a_small_gradient_is_not_wrong_for_a_few_roundings(
    roundings: float, wrong_gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain torch was lucky with the tensor's few numbers; an output, of many, has no such luck."""
    off = 1 + roundings * torch.finfo(torch.float32).eps
    found = iter((torch.ones(1, dtype=torch.float64), torch.ones(1), torch.tensor([off])))
    monkeypatch.setattr(ops, "results", lambda *_: dict.fromkeys(("y", "d_D"), next(found)))
    cell = Cell(task="op_check", op="causal_conv", backend="reference", dtype="float32", n_tokens=5, batch_size=1,
                width=8)  # fmt: skip
    told = ops.wrong(ops.errors(cell))
    assert "y is off" in told
    assert ("d_D is off" in told) is wrong_gradient


class Queue:
    """Stands in for a GPU: work is queued at no cost to the processor, and events know when it reaches them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queued_s, self.reached_s = 0.0, 0.0
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: QueueEvent(self))
        monkeypatch.setattr(torch.cuda, "synchronize", self._synchronize)
        monkeypatch.setattr(wall, "clock_for", lambda device: wall.CudaClock())

    def _synchronize(self) -> None:
        self.reached_s = self.queued_s


class QueueEvent:
    at_s: float

    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def record(self) -> None:
        self.at_s = self.queue.queued_s

    def elapsed_time(self, other: QueueEvent) -> float:
        assert self.queue.reached_s >= other.at_s, "not waited for"
        return 1e3 * (other.at_s - self.at_s)


RANKED = {
    "rank_quality": {
        "dataset": "synthetic", "protocol": "full", "features": "ids", "loss": "mse", "negatives": 1, "batch_size": 32,
        "mixer": "attention", "backend": "sdpa", "steps": 2, "learning_rates": (0.003,),
    },
    "rank_history": {
        "dataset": "d", "history_length": 4, "mixer": "mean", "backend": "reference", "read_at": "last",
        "batch_size": 1000, "steps": 2, "learning_rates": (0.01,),
    },
}  # fmt: skip


@pytest.mark.parametrize("task", RANKED)
def test_rows_a_second_count_the_gpus_time_not_the_launches(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = {"rank_quality": rank_quality, "rank_history": rank_history}[task]
    cell = Cell(task=task, **RANKED[task], n_layers=1, d_model=16, dtype="float32", seed=0)
    if task == "rank_quality":
        data = adapter("synthetic:users=300:items=60:columns=8:pairs=40").load(Path())
        n_rows = len(HeldOut.of(data, TEST, None, cell.leave_out).users) + 60
    else:
        data = planted.generate("d", distance=3, shuffled=0, seed=0, n_users=50, n_items=12, n_linked=20)
        n_rows = len(stages(data.events, data.events.cuts[0])[1].users)
    queue, scorer = Queue(monkeypatch), module.scorer

    def launched(*arguments: Any) -> Any:
        queue.queued_s += 2.0
        return scorer(*arguments)

    monkeypatch.setattr(module, "scorer", launched)
    _, _, reading = module.measure(cell, data, [10])
    assert reading.values["inference_rows_per_s"] == pytest.approx(n_rows / 2.0)
