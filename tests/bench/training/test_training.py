"""Training end to end on planted tastes: it learns, it repeats bit for bit, and goes on after an interruption."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.baselines import BASELINES
from bench.data import adapter
from bench.data.dataset import TEST, TRAIN, VALIDATION, DataSet
from bench.plan.cell import Cell
from bench.plan.match import matched
from bench.plan.tower import encoder_spec
from bench.run.probes import wall
from bench.run.rank_quality import measure, scorer, validator
from bench.training import checkpoint, loop
from bench.training.evaluate import HeldOut, rank
from bench.training.loop import DivergedError, Step
from bench.training.pair_training import PairStepper, PairTrainer, hide_ids
from bench.training.ranking import top_items
from bench.training.search import Budget, Trial, trials_of
from bench.training.towers import build, encode
from ftmamba.columns import UNSEEN
from ftmamba.cost import encoder_params
from ftmamba.embedding import embed
from ftmamba.features import FeatureBatch
from ftmamba.spec import FeatureSpec

BACKENDS = {"mamba": "numba", "attention": "sdpa"}


@pytest.fixture(name="data", scope="module")
def _data() -> DataSet:
    return adapter("synthetic:users=300:items=60:columns=8:pairs=40").load(Path())


def cell(model: str = "attention", **settings: Any) -> Cell:
    chosen = {
        "task": "rank_quality", "dataset": "synthetic", "protocol": "full", "seed": 0, "features": "ids", "loss": "mse",
        **({"mixer": model, "backend": BACKENDS[model]} if model in BACKENDS else {"baseline": model}),
        "n_layers": 1, "d_model": 16, "batch_size": 32, "steps": 30,
        "learning_rates": (0.003,), "negatives": 1, "id_dropout": 0.2, "dtype": "float32", **settings,
    }  # fmt: skip
    return Cell(**chosen)


@pytest.mark.parametrize("model", ["mamba", "attention", "mlp"])
def test_models_learn_planted_tastes(data: DataSet, model: str) -> None:
    setting = cell(model, loss="softmax", batch_size=128, steps=400, learning_rates=(0.005,), features="attributes")
    found, samples, cost = measure(setting, data, [1, 10])
    test = HeldOut.of(data, TEST)
    random, popularity, oracle = (
        rank(data, test, BASELINES[name].fit(data, 0)(test.users), [10]).per_user["ndcg@10"].mean()
        for name in ("random", "popularity", "oracle")
    )
    assert random + 0.05 < popularity
    assert popularity + 0.02 < found.per_user["ndcg@10"].mean() < oracle
    assert samples["train_loss"][-1] < samples["train_loss"][0]
    assert cost.values["steps"] == samples["step"][-1]
    assert cost.values["best_step"] in samples["step"]
    assert cost.values["validation_ndcg@10"] == max(samples["validation_ndcg@10"])


@pytest.mark.parametrize("model", ["attention", "mlp", "mamba"])
def test_same_seed_same_bits(data: DataSet, model: str) -> None:
    setting = cell(model, steps=10)
    one, other = (measure(setting, data, [5])[0].per_user for _ in range(2))
    assert one.equals(other)
    third = measure(setting.but(seed=1), data, [5])[0].per_user
    assert not one.equals(third)


def trainer(data: DataSet, setting: Cell, saved: Path | None = None, **settings: Any) -> PairTrainer:
    encoded = encode(setting, data)
    budget = Budget.of(setting, data)
    return PairTrainer(setting, data, encoded, budget, validator(setting, data, encoded), saved, **settings)


class CutError(Exception):
    """The power went off."""


@pytest.mark.parametrize(("protocol", "dropout"), [("full", 0.0), ("paper", 0.0), ("full", 0.3)])
def test_interrupted_training_ends_as_an_uninterrupted_one(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, dropout: float
) -> None:
    setting, trial = cell(steps=40, protocol=protocol), Trial(0.003, dropout)
    whole = trainer(data, setting).run(trial)
    saved = tmp_path / "state.safetensors"
    advance = PairTrainer._advance
    calls = 0

    def cut_off(self: PairTrainer, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise CutError
        advance(self, *arguments)

    monkeypatch.setattr(PairTrainer, "_advance", cut_off)
    with pytest.raises(CutError):
        trainer(data, setting, saved).run(trial)
    monkeypatch.setattr(PairTrainer, "_advance", advance)
    rest = trainer(data, setting, saved).run(trial)
    assert rest.steps == whole.steps
    assert rest.best_step == whole.best_step
    assert math.isnan(whole.best) == (protocol == "paper")
    for name in ("step", "train_loss", "validation_ndcg@10"):
        assert rest.curve.get(name) == whole.curve.get(name)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[name]), name


def test_a_last_fit_does_not_go_on_from_the_first(data: DataSet, tmp_path: Path) -> None:
    """It trains on other rows, and may take as many steps."""
    saved, setting = tmp_path / "state.safetensors", cell(steps=10)
    trainer(data, setting, saved).run(Trial(0.003))
    last = trainer(data, setting, saved)
    last._validate = None
    assert "validation_ndcg@10" not in last.run(Trial(0.003)).curve


def test_a_state_of_another_training_or_a_damaged_one_is_not_used(data: DataSet, tmp_path: Path) -> None:
    saved = tmp_path / "state.safetensors"
    setting = cell(steps=10)
    trainer(data, setting, saved).run(Trial(0.003))
    key = f"{setting.id}/0.003/0.0/1e-05/10/10"
    assert checkpoint.load(saved, key, "cpu") is not None
    assert checkpoint.load(saved, f"{setting.id}/0.1/0.0/1e-05/10/10", "cpu") is None
    saved.write_bytes(saved.read_bytes()[:100])
    assert checkpoint.load(saved, key, "cpu") is None
    assert checkpoint.load(tmp_path / "absent", key, "cpu") is None


def test_best_weights_are_kept(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = cell(steps=30)
    encoded = encode(setting, data)
    scores = iter([0.1, 0.5, 0.2, 0.3, 0.1, 0.1, 0.1, 0.9])
    seen = []

    def validate(model: Any) -> float:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(scores)

    found = PairTrainer(setting, data, encoded, Budget(30, 30), validate).run(Trial(0.003))
    assert (found.best, found.best_step) == (0.5, 6)
    assert found.steps == 3 * (2 + loop.PATIENCE)  # early stopping
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, seen[1][name])


def test_validation_chooses_the_learning_rate(data: DataSet) -> None:
    setting = cell(steps=100, batch_size=64, loss="softmax", learning_rates=(1e-7, 0.005))
    _, samples, cost = measure(setting, data, [10])
    assert samples["grid_learning_rate"] == [1e-7, 0.005]
    assert cost.values["learning_rate"] == 0.005
    assert cost.values["validation_ndcg@10"] == max(samples["grid_validation_ndcg@10"])


@pytest.mark.parametrize("model", ["attention", "mlp"])
def test_dropout_and_weight_decay_do_something_and_each_is_tried(data: DataSet, model: str) -> None:
    setting = cell(model, steps=10, dropouts=(0.0, 0.5), weight_decays=(1e-5, 10.0))
    _, samples, cost = measure(setting, data, [10])
    assert list(zip(samples["grid_dropout"], samples["grid_weight_decay"], strict=True)) == [
        (0.0, 1e-5), (0.0, 10.0), (0.5, 1e-5), (0.5, 10.0),
    ]  # fmt: skip
    assert cost.values["dropout"] in (0.0, 0.5)
    losses = {tuple(trainer(data, setting).run(trial).curve["train_loss"]) for trial in trials_of(setting)}
    assert len(losses) == 4


def test_every_model_tries_the_same_of_a_grid_that_is_too_large() -> None:
    rates = {"learning_rates": (0.001, 0.003, 0.01), "dropouts": (0.0, 0.1, 0.2), "trials": 4}
    one, other = (trials_of(cell(model, seed=seed, **rates)) for model, seed in (("mamba", 0), ("mlp", 5)))
    assert one == other
    assert len(set(one)) == 4
    assert len(trials_of(cell(**{**rates, "trials": 0}))) == len(trials_of(cell(**{**rates, "trials": 99}))) == 9


def test_a_model_trains_for_as_long_as_another_takes(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """By planted clocks whose readings, in turns, are 2 and 3 seconds: half as many steps again."""
    readings = itertools.cycle([2.0, 3.0])
    clock = SimpleNamespace(read=lambda step, n: [(step(), next(readings))[1] for _ in range(n)])
    monkeypatch.setattr(wall, "clock_for", lambda device: clock)
    setting = cell("attention", steps=20, batch_size=16, as_long_as="mamba")
    _, samples, cost = measure(setting, data, [10])
    assert cost.values["steps_factor"] == 1.5
    assert samples["step"][0] == 3  # a tenth of 30
    assert cell("attention", steps=20).id == Cell(**{**cell("attention", steps=20), "as_long_as": ""}).id
    assert setting.id != cell("attention", steps=20, batch_size=16).id


@pytest.mark.parametrize(("loss", "negatives", "a_positive"), [("mse", 3, 4), ("softmax", 1, 1)])
def test_an_epoch_is_a_pass_over_the_pairs(data: DataSet, loss: str, negatives: int, a_positive: int) -> None:
    known = {"negatives": negatives} if loss == "mse" else {"negatives": 0}
    setting = cell(loss=loss, batch_size=16, epochs=2.5, **known)
    n_pairs = len(data.positives(TRAIN)[0]) * a_positive
    assert Budget.of(setting, data) == (round(2.5 * n_pairs / 16),) * 2
    assert Budget.of(cell(steps=7), data) == (7, 7)


def test_a_refit_is_a_training_on_all_that_came_before_the_test(data: DataSet) -> None:
    """It goes through as much of its longer schedule as was best, and knows validation but not the test."""
    setting = cell(steps=40, refit=True)
    chosen, _, cost = measure(setting, data, [10])
    whole = replace(data, interactions=data.interactions.query(f"split != {TEST}").assign(split=np.int8(TRAIN)))
    larger = len(whole.interactions.query("label > 0")) / len(data.positives(TRAIN)[0])
    budget = Budget(round(40 * larger), round(cost.values["best_step"] * larger))
    encoded = encode(setting, whole)
    model = PairTrainer(setting, whole, encoded, budget, None).run(Trial(0.003)).model
    test = HeldOut.of(data, TEST)
    assert rank(data, test, scorer(model, encoded, test), [10]).per_user.equals(chosen.per_user)
    assert not measure(setting.but(refit=False), data, [10])[0].per_user.equals(chosen.per_user)


def test_divergence_is_told(data: DataSet) -> None:
    with pytest.raises(DivergedError, match="lower learning rate"):
        trainer(data, cell(steps=50, d_model=8)).run(Trial(1e30))


def test_training_never_looks_at_the_test(data: DataSet) -> None:
    """Other test labels, same trained model."""
    rows = data.interactions.copy()
    rows.loc[rows["split"] == TEST, "label"] = 1.0 - rows["label"]
    changed = replace(data, interactions=rows)
    one, other = (trainer(each, cell(steps=20)).run(Trial(0.003)) for each in (data, changed))
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])


def test_lists_leave_out_what_was_liked_before(data: DataSet) -> None:
    test = HeldOut.of(data, TEST)
    setting = cell(steps=5)
    encoded = encode(setting, data)
    model = build(setting, encoded)
    assert embed(model.user, encoded.users).shape == (300, 16)
    before = {(int(u), int(i)) for u, i in zip(*data.positives(0, VALIDATION), strict=True)}
    ranked = top_items(scorer(model, encoded, test), test.users, test.exclude, 60)
    listed = {(int(u), int(i)) for u, row in zip(test.users, ranked, strict=True) for i in row if i >= 0}
    assert not listed & before
    assert len(listed) + sum((u in set(test.users)) for u, _ in before) == len(test.users) * 60


def test_paper_protocol_tests_on_a_hundred_users(data: DataSet) -> None:
    found, samples, cost = measure(cell(steps=10, protocol="paper"), data, [1])
    assert len(found.per_user) == 100
    assert "validation_ndcg@10" not in samples
    assert cost.values["validation_ndcg@10"] is None
    assert cost.notes["validation_ndcg@10"]
    again, _, _ = measure(cell("mlp", steps=10, protocol="paper"), data, [1])
    assert list(again.per_user["user"]) == list(found.per_user["user"])  # the same hundred for every model


def test_users_who_liked_nothing_are_counted(data: DataSet) -> None:
    rows = data.interactions
    test = HeldOut.of(data, TEST)
    present = set(rows["user"][rows["split"] == TEST])
    liking = set(rows["user"][(rows["split"] == TEST) & (rows["label"] > 0)])
    assert set(test.users.tolist()) == liking
    assert test.n_without_positives == len(present - liking)


def test_hidden_ids(data: DataSet) -> None:
    batch = FeatureBatch(torch.zeros(20, 1), torch.full((20, 3), 7))
    found = hide_ids(batch, torch.arange(20) < 5).categorical
    assert (found[:5, 2] == UNSEEN).all()
    assert (found[5:] == 7).all()
    assert (found[:, :2] == 7).all()
    assert (batch.categorical == 7).all()  # the table itself is left alone


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
def test_a_share_of_ids_is_hidden_of_either_side_by_itself(data: DataSet, share: float) -> None:
    trained = trainer(data, cell("mlp", id_dropout=share, batch_size=2000))
    stepper = PairStepper(trained, build(trained.cell, trained.encoded), Trial(0.001))
    stepper()
    users, items = stepper._batch.hidden_users.float(), stepper._batch.hidden_items.float()
    for found, expected in ((users, share), (items, share), (users * items, share**2)):
        assert float(found.mean()) == pytest.approx(expected, abs=0.04)


class PlayedBack:
    """What a CUDA graph does to a step: runs it to warm up, and answers every time in the same tensor."""

    def __init__(self, step: Step) -> None:
        self._step, self._answer = step, torch.full((), torch.nan)
        self._is_warm = False

    def __call__(self) -> torch.Tensor:
        for _ in range(0 if self._is_warm else 3):
            self._step()
        self._is_warm = True
        return self._answer.copy_(self._step())


@pytest.mark.parametrize("loss", ["mse", "softmax"])
def test_a_graphed_training_is_the_same_training(data: DataSet, loss: str) -> None:
    setting = cell(loss=loss, steps=60)
    plain = trainer(data, setting).run(Trial(0.003))
    graphed = trainer(data, setting, graphed=PlayedBack).run(Trial(0.003))
    assert graphed.curve["train_loss"] == pytest.approx(plain.curve["train_loss"], rel=1e-4)


def test_a_graphed_training_goes_on_where_it_was(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, saved, advance = cell(steps=40), tmp_path / "state.safetensors", PairTrainer._advance
    whole = trainer(data, setting, graphed=PlayedBack).run(Trial(0.003))
    calls = iter(range(100))

    def cut_off(self: PairTrainer, *arguments: Any) -> None:
        if next(calls) == 5:
            raise CutError
        advance(self, *arguments)

    monkeypatch.setattr(PairTrainer, "_advance", cut_off)
    with pytest.raises(CutError):
        trainer(data, setting, saved, graphed=PlayedBack).run(Trial(0.003))
    rest = trainer(data, setting, saved, graphed=PlayedBack).run(Trial(0.003))
    assert rest.curve["train_loss"] == whole.curve["train_loss"]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[name]), name


@pytest.mark.parametrize(("n_layers", "d_model"), [(1, 32), (2, 64), (4, 128)])
def test_matched_parameters_agree_within_two_percent(n_layers: int, d_model: int) -> None:
    features = FeatureSpec(3, (10,))
    mamba, attention = (
        encoder_params(encoder_spec(matched(cell(mixer, n_layers=n_layers, d_model=d_model), "params")), features)
        for mixer in ("mamba", "attention")
    )
    assert attention == pytest.approx(mamba, rel=0.02)


def test_mlp_has_as_many_parameters_as_mamba(data: DataSet) -> None:
    counts = {}
    for model in ("mamba", "mlp"):
        setting = cell(model, d_model=32, n_layers=2)
        built = build(setting, encode(setting, data))
        counts[model] = sum(each.numel() for each in built.parameters() if each.requires_grad)
    assert counts["mlp"] == pytest.approx(counts["mamba"], rel=0.02)


def test_oracle_needs_a_simulated_data_set(data: DataSet) -> None:
    with pytest.raises(ValueError, match="not simulated"):
        BASELINES["oracle"].fit(replace(data, truth=None), 0)


def test_only_answered_items_are_ranked_where_asking_was_no_chance(data: DataSet) -> None:
    asked = replace(data, candidates="observed")
    test = HeldOut.of(asked, TEST)
    ranked = top_items(BASELINES["random"].fit(asked, 0)(test.users), test.users, test.exclude, 60)
    listed = {(int(u), int(i)) for u, row in zip(test.users, ranked, strict=True) for i in row if i >= 0}
    users, items, _ = asked.pairs(TEST)
    assert listed == {(int(u), int(i)) for u, i in zip(users, items, strict=True) if u in set(test.users)}
    assert (test.n_before == HeldOut.of(data, TEST).n_before).all()
