"""Two processes train to what one does: held against one process in float64, with every loss."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.training import ranks
from ftmamba.losses import EmbeddedPairs, softmax

PROGRAM = """
import json, sys
import torch
from bench.plan.cell import Cell
from bench.data import adapter, cache
from bench.training import ranks
from bench.training.pair_training import PairTrainer
from bench.training.search import Budget, Trial
from bench.training.towers import encode

rank, n, meeting, loss, optimizer, out = sys.argv[1:]
torch.set_num_threads(1)
if int(n) > 1:
    ranks.join(int(rank), int(n), "cpu", meeting)
cell = Cell(task="rank_quality", dataset="synthetic:users=60:items=30:columns=3:pairs=20", mixer="attention",
            backend="sdpa", loss=loss, dtype="float64", batch_size=32, n_layers=1, d_model=16, learning_rates=[0.01],
            negatives=2, id_dropout=0.2, steps=10)
data = cache.load(adapter(cell.dataset))
trainer = PairTrainer(cell, data, encode(cell, data), Budget(10, 10), None)
model = trainer.fresh(0.0)
stepper = trainer.stepper(model, Trial(0.01))
if optimizer == "sgd":
    stepper._optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    stepper._rates = [0.02]
before = [each.detach().clone() for each in model.parameters()]
for _ in range(10):
    stepper()
if rank == "0":
    torch.save([before, [each.detach() for each in model.parameters()]], out)
"""


def train(folder: Path, n: int, loss: str, optimizer: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    out, meeting = folder / f"{n}.pt", folder / f"meeting-{n}"
    commands = [
        [sys.executable, "-c", PROGRAM, str(r), str(n), str(meeting), loss, optimizer, str(out)] for r in range(n)
    ]
    running = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True) for each in commands]
    for each in running:
        _, err = each.communicate(timeout=300)
        assert each.returncode == 0, err
    before, after = torch.load(out)
    return before, after


def most(some: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """The largest difference."""
    return max(float((a - b).abs().max()) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize(("optimizer", "tolerance"), [("sgd", 1e-12), ("adamw", 1e-9)])
@pytest.mark.parametrize("loss", ["mse", "bce", "softmax"])
def test_two_ranks_learn_what_one_process_does(loss: str, optimizer: str, tolerance: float, tmp_path: Path) -> None:
    (before, one), (_, two) = (train(tmp_path, n, loss, optimizer) for n in (1, 2))
    assert most(before, one) > 1e-4
    assert most(one, two) < tolerance


def test_users_of_a_part_have_their_share_of_the_loss() -> None:
    torch.manual_seed(0)
    log_q = torch.log_softmax(torch.randn(6, dtype=torch.float64), 0)
    users, items = torch.randn(2, 6, 4, dtype=torch.float64)
    pairs = EmbeddedPairs(users, items, torch.ones(6), torch.tensor([3, 1, 3, 2, 0, 1]), log_q)
    halves = [softmax(pairs._replace(users=users[first : first + 3]), first) for first in (0, 3)]
    torch.testing.assert_close(torch.stack(halves).mean(), softmax(pairs), rtol=1e-14, atol=0)


def test_a_process_that_joined_nothing_has_every_row() -> None:
    module = torch.nn.Linear(2, 2)
    assert ranks.part(10) == slice(0, 10)
    assert ranks.joined(module) is module
    assert ranks.from_first(lambda: 3) == 3


RUN = """
import json, sys
from pathlib import Path
from bench import quality, sweep
from bench.records.store import load_run
command = {"sweep": sweep, "quality": quality}[sys.argv[1]]
sys.exit(command.main(sys.argv[2:]))
"""


def run(folder: Path, *argv: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *argv, "--device", "cpu", "--quiet", "--json", "--out", "run"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_a_training_step_on_two_processes_tells_how_it_scales(tmp_path: Path) -> None:
    one, two = run(
        tmp_path, "sweep", "--preset", "smoke", "--tasks", "train_step", "--mixers", "attention", "--lengths", "20",
        "--batch-sizes", "8", "--threads", "2", "--processes", "1,2", "--order", "given",
    )  # fmt: skip
    assert "scaling_efficiency" not in one["values"]  # type: ignore[operator]
    values = two["values"]
    step_s = sorted(two["samples"]["wall_s"])  # type: ignore[index, call-overload]
    assert two["cell"]["processes"] == 2  # type: ignore[index, call-overload]
    assert two["env"]["threads"] == 1  # type: ignore[index, call-overload]
    best, worst = (values["one_process_step_s"] / (2 * each) for each in (step_s[0], step_s[-1]))  # type: ignore[index, call-overload]
    assert worst <= values["scaling_efficiency"] <= best  # type: ignore[index, call-overload]


def test_two_processes_rank_as_one_does(tmp_path: Path) -> None:
    one, two = run(
        tmp_path, "quality", "--dataset", "synthetic:users=60:items=30:columns=3:pairs=20", "--mixers", "attention",
        "--baselines", "none", "--dtype", "float64", "--losses", "softmax", "--batch-size", "32", "--steps", "20",
        "--threads", "2", "--processes", "1,2", "--layers", "1", "--d-model", "16", "--seeds", "0",
    )  # fmt: skip
    for name in ("ndcg@10", "validation_ndcg@10"):
        assert two["values"][name] == pytest.approx(one["values"][name], abs=1e-12)  # type: ignore[index, call-overload]
    assert two["values"]["scaling_efficiency"] > 0  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--processes", "200", "--batch-sizes", "200"), "processes 200 are more than the "),
        (("--processes", "2", "--batch-sizes", "3"), "processes 2 do not divide batch_sizes 3"),
        (("--processes", "2", "--batch-sizes", "2", "--threads", "1"), "threads 1 are shared by processes 2"),
        (("--processes", "2", "--batch-sizes", "2", "--cache", "cold"), "need execution eager and cache warm"),
    ],
)  # fmt: skip
def test_processes_that_cannot_be_are_refused_in_one_line(argv: tuple[str, ...], told: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, "sweep", "--preset", "smoke", "--tasks", "train_step", "--device", "cpu", *argv],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "results").exists()
