"""Axes to cells: all of them, once, with exact names; and what cannot be, told before anything runs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from bench.plan import presets, tasks
from bench.plan.plan import Plan
from bench.plan.setting import PlanError
from bench.plan.tower import encoder_spec, feature_spec, tower_cost
from ftmamba import mixers


def plan_of(**changes: Any) -> Plan:
    return Plan({**presets.load("default"), **changes}, frozenset(changes))


def test_cells_are_the_product_of_the_axes() -> None:
    axes: dict[str, list[Any]] = {
        "lengths": [10, 20],
        "batch_sizes": [1, 2],
        "layers": [1, 3],
        "d_model": [32, 64],
        "dtype": ["float32", "bfloat16"],
        "tasks": ["forward", "train_step"],
        "heap": "kept",
        "seeds": [0, 4],
    }
    cells = plan_of(**axes, mixers=["attention"], backends=["sdpa", "reference"]).resolved("cpu").cells()
    found = {
        (c.n_tokens, c.batch_size, c.n_layers, c.d_model, c.dtype, c.task, c.heap, c.seed, c.backend) for c in cells
    }
    values = [value if isinstance(value, list) else [value] for value in axes.values()]
    assert found == set(itertools.product(*values, ["sdpa", "reference"]))
    assert len(cells) == len(found) == len({cell.id for cell in cells})


def test_each_mixer_takes_the_backends_that_are_its_own() -> None:
    cells = plan_of(backends=["reference", "sdpa"]).resolved("cpu").cells()
    assert {(cell.mixer, cell.backend) for cell in cells} == {
        ("mamba", "reference"),
        ("attention", "reference"),
        ("attention", "sdpa"),
    }
    resolved = plan_of(backends=["sdpa_math"]).resolved("cpu")
    assert not any("auto" in each for each in resolved.backends)
    assert {cell.backend for cell in resolved.cells() if cell.mixer == "attention"} == {"sdpa_math"}
    assert len({cell.backend for cell in resolved.cells() if cell.mixer == "mamba"}) == 1


def test_parameters_stand_behind_their_mixer() -> None:
    cells = plan_of(mixers=["mamba:d_state=8", "mamba", "attention:n_heads=2"], lengths=[9]).resolved("cpu").cells()
    found = {(cell.mixer, cell.params.get("d_state"), cell.params.get("n_heads")) for cell in cells}
    assert found == {("mamba", 8, None), ("mamba", 16, None), ("attention", None, 2)}
    assert {encoder_spec(cell).mixer.n_heads for cell in cells if cell.mixer == "attention"} == {2}


@pytest.mark.parametrize(
    ("device", "d_model", "n_heads"),
    [("cpu", 64, 2), ("cpu", 32, 1), ("cpu", 256, 8), ("cpu", 100, 4), ("cpu", 97, 1), ("cpu", 16, 1), ("cuda", 64, 1),
     ("cuda", 256, 4)],
)  # fmt: skip
def test_a_plan_takes_heads_of_the_best_width(device: str, d_model: int, n_heads: int) -> None:
    given = ["attention", "torch_transformer", "mamba"]
    plan = plan_of(mixers=given, lengths=[10], d_model=[d_model], paired_with="attention/reference").resolved(device)
    assert {cell.params["n_heads"] for cell in plan.cells() if cell.mixer != "mamba"} == {n_heads}
    spelled = "attention/reference" if n_heads == 8 else f"attention:n_heads={n_heads}/reference"
    assert {cell.paired_with for cell in plan.cells()} == {spelled}


def test_heads_that_were_given_stay_and_old_runs_keep_theirs() -> None:
    plan = plan_of(mixers=["attention:n_heads=8", "attention:d_ffn=9"], paired_with="attention:n_heads=8", lengths=[9])
    found = {(cell.params["n_heads"], cell.paired_with) for cell in plan.resolved("cpu").cells()}
    assert found == {(8, ""), (2, f"attention/{mixers.find('attention').backends.resolve('auto', 'cpu')}")}
    before = presets.load("default")
    del before["heads"]
    assert {cell.params["n_heads"] for cell in Plan(before).resolved("cpu").cells() if cell.mixer == "attention"} == {8}
    assert Plan(presets.load("paper")).heads == "own"


def test_resolving_twice_changes_nothing() -> None:
    once = plan_of().resolved("cpu")
    assert once.resolved("cpu") == once == Plan(once.to_dict())


def test_every_cell_but_one_is_paired_with_that_one() -> None:
    plan = plan_of(paired_with="mamba", backends=["reference", "sdpa"], lengths=[10]).resolved("cpu")
    exact = f"mamba/{mixers.find('mamba').backends.resolve('auto', 'cpu')}"
    assert plan.paired_with == exact
    assert all(cell.paired_with == ("" if f"{cell.mixer}/{cell.backend}" == exact else exact) for cell in plan.cells())


def test_another_setting_of_the_same_mixer_is_paired() -> None:
    mixers_given = ("mamba", "mamba:d_state=8")
    cells = plan_of(paired_with="mamba", mixers=list(mixers_given), lengths=[10]).resolved("cpu").cells()
    assert {(cell.params["d_state"], cell.paired_with != "") for cell in cells} == {(16, False), (8, True)}
    other = plan_of(paired_with="mamba:d_state=8", mixers=list(mixers_given), lengths=[10]).resolved("cpu").cells()
    assert {(cell.params["d_state"], cell.paired_with != "") for cell in other} == {(16, True), (8, False)}


def test_an_exact_backend_is_that_of_its_mixer() -> None:
    """`reference` of one mixer, found by itself, is not asked of the others when a run is continued."""
    plan = plan_of(backends=["attention/reference"], lengths=[10]).resolved("cpu")
    found = {(cell.mixer, cell.backend) for cell in plan.resolved("cpu").cells()}
    assert ("attention", "reference") in found
    assert ("mamba", "reference") not in found
    assert len(found) == 2


def test_presets_that_extend_each_other_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    (tmp_path / "a.toml").write_text('extends = "b"')
    (tmp_path / "b.toml").write_text('extends = "a"')
    with pytest.raises(PlanError, match="extends itself, by way of"):
        presets.load("a")


def test_points_beyond_the_most_tokens_are_left_out() -> None:
    cells = plan_of(lengths=[10, 100], batch_sizes=[1, 32], most_tokens=320).resolved("cpu").cells()
    assert {(cell.n_tokens, cell.batch_size) for cell in cells} == {(10, 1), (100, 1), (10, 32)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "unknown setting 'colour'; choose from tasks"),
        ({"datasets": ["coupon"]}, "datasets says nothing to forward, train_step; leave it out"),
        ({"mixers": ["mamba", "bread"]}, "unknown mixer 'bread'; choose from mamba, attention"),
        ({"mixers": ["mamba:d_stat=3"]}, "d_stat"),
        ({"backends": ["bread"]}, "unknown backend 'bread'; choose for mamba: auto, "),
        ({"paired_with": "bread"}, "bread"),
        ({"paired_with": "mamba/sdpa_flash3"}, "unknown backend 'sdpa_flash3'"),
        ({"lengths": [1]}, "a table has at least 2 tokens"),
        ({"lengths": [10], "most_tokens": 3}, "no point is left: all have more than 3 tokens a step"),
        ({"batch_sizes": ["auto"]}, "batch_sizes auto is a loss's own"),
        ({"match": "params", "d_model": [33], "heads": "own"}, "33"),
        ({"d_model": [64, 60], "heads": "own"}, "d_model 60 is not a multiple of n_heads 8"),
        ({"lengths": list(range(2, 10_002)), "batch_sizes": list(range(1, 10))}, "360,000 cells, more than 100,000"),
        ({"lengths": list(range(2, 100_002))}, "lengths has 100,000 values, more than 10,000; shorten it"),
        ({"execution": ["graph"]}, "execution graph means CUDA graphs"),
        ({"backends": ["triton"], "mixers": ["mamba"]}, "cannot run here"),
    ],
    ids=str,
)  # fmt: skip
def test_a_plan_that_cannot_be_is_told_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan_of(**changes).resolved("cpu").cells()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_auto_takes_a_backend_that_computes_in_every_dtype() -> None:
    cells = plan_of(dtype=["float64"]).resolved("cpu").cells()
    assert {(cell.mixer, cell.backend) for cell in cells} == {("mamba", "reference"), ("attention", "sdpa")}
    both = {"dtype": ["float32", "float64"]}
    with pytest.raises(PlanError, match="float64 runs on reference and the others on numba: give float64 a run"):
        plan_of(**both).resolved("cpu").cells()
    named = plan_of(**both, backends=["reference"]).resolved("cpu").cells()
    assert {(cell.dtype, cell.backend) for cell in named} == {("float32", "reference"), ("float64", "reference")}
    with pytest.raises(PlanError, match="'numba' cannot run here: computes in float32"):
        plan_of(dtype=["float64"], backends=["numba"]).resolved("cpu").cells()


def test_what_a_preset_lists_and_the_machine_has_not_is_kept_for_its_reason() -> None:
    """A person who asks for a backend wants it or an error; a preset's other cells are worth having without it."""
    plan = Plan({**presets.load("h100"), "device": "cpu", "execution": ["eager"]})
    assert "triton" in {cell.backend for cell in plan.resolved("cpu").cells()}


def test_equal_parameters_on_request() -> None:
    from ftmamba.cost import encoder_params

    cells = plan_of(tasks=["forward"], match="params", lengths=[100]).resolved("cpu").cells()
    params = {cell.mixer: encoder_params(encoder_spec(cell), feature_spec(100)) for cell in cells}
    assert params["attention"] == pytest.approx(params["mamba"], rel=0.02)
    assert all(cell.params.get("d_ffn") is not None for cell in cells if cell.mixer == "attention")


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_a_plan(name: str) -> None:
    assert 'about = "' in (presets.FOLDER / f"{name}.toml").read_text()
    plan = Plan({**presets.load(name), "device": "cpu"})
    if "graph" in plan.get("execution", ()):
        plan = plan.but(execution=["eager"])
    assert plan.resolved("cpu").cells()


def test_a_file_names_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("lengths = [7]\nrounds = 9\n")
    assert presets.load(str(path)) == {**presets.load("default"), "lengths": [7], "rounds": 9}
    assert presets.load(str(path), "profile") == {**presets.load("profile"), "lengths": [7], "rounds": 9}


def test_a_file_that_is_no_preset_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "endless.toml"
    path.write_text(f"lengths = [{'2,' * presets.MOST_BYTES}]")
    monkeypatch.setattr(
        presets.tomllib, "loads", lambda text: pytest.fail("parsed") if len(text) > 10_000 else {"about": ""}
    )
    with pytest.raises(PlanError, match=r"endless.toml' has more than 1,048,576 bytes"):
        presets.load(str(path))


def test_the_default_reaches_the_asymptotic_regime() -> None:
    """At the longest L, what grows fastest makes up nearly all of the arithmetic."""
    plan = plan_of(backends=["reference"]).resolved("cpu")
    longest = max(plan.lengths)
    assert longest == 10_000
    costs = {(cell.mixer, cell.n_tokens): tower_cost(cell).flops for cell in plan.cells() if cell.task == "forward"}
    previous = sorted(plan.lengths)[-2]
    ratio = longest / previous
    assert costs["mamba", longest] / costs["mamba", previous] == pytest.approx(ratio, rel=0.01)
    assert costs["attention", longest] / costs["attention", previous] > ratio**1.9


@pytest.mark.parametrize("n_tokens", [2, 3, 4, 1000])
def test_a_table_becomes_as_many_tokens_as_asked(n_tokens: int) -> None:
    table = feature_spec(n_tokens)
    assert table.n_tokens == n_tokens
    assert abs(table.n_numeric - len(table.cardinalities)) <= 1


@pytest.mark.parametrize("name", tasks.names())
def test_a_task_declares_itself(name: str) -> None:
    task = tasks.find(name)
    assert task.words
    assert task.noun
    assert task.run is not None or task.check is not None


def test_only_float32_has_a_precision_other_than_its_own() -> None:
    plan = Plan({**presets.load("smoke"), "dtype": ["float32", "bfloat16"], "precision": ["own", "tf32", "autocast"]})
    found = {(cell.dtype, cell.precision) for cell in plan.resolved("cpu").cells()}
    assert found == {("float32", "own"), ("float32", "tf32"), ("float32", "autocast"), ("bfloat16", "own")}


def test_factors_vary_one_at_a_time_around_the_centre() -> None:
    base = {"lengths": [32], "mixers": ["mamba", "attention"], "tasks": ["forward"]}
    plan = plan_of(**base, vary=["layers=1|4", "mixers=mamba:d_state=8", "layers=4 column_order=reversed|random:1"])
    found = [
        (cell.mixer, cell.n_layers, cell.column_order, cell.params.get("d_state"))
        for cell in plan.resolved("cpu").cells()
    ]
    centre = [("mamba", 2, "table", 16), ("attention", 2, "table", None)]
    layers = [("mamba", n, "table", 16) for n in (1, 4)] + [("attention", n, "table", None) for n in (1, 4)]
    both = [(m, 4, order, s) for m, s in (("mamba", 16), ("attention", None)) for order in ("reversed", "random:1")]
    assert set(found) == {*centre, *layers, ("mamba", 2, "table", 8), *both}
    assert len(found) == len(set(found)) == 11


def test_baselines_stand_beside_the_centre_alone() -> None:
    small = {"datasets": ["synthetic"], "seeds": [0], "mixers": ["mamba"], "baselines": ["popularity", "mlp"]}
    plan = Plan({**presets.load("quality"), **small, "vary": ["layers=1|3"]})
    found = [(cell.get("mixer", cell.get("baseline")), cell.get("n_layers")) for cell in plan.resolved("cpu").cells()]
    assert sorted(found, key=str) == [("mamba", 1), ("mamba", 2), ("mamba", 3), ("mlp", 2), ("popularity", None)]


def test_matched_in_time_all_but_plain_mamba_train_for_as_long_as_it() -> None:
    small = {"datasets": ["synthetic"], "seeds": [0], "mixers": ["mamba", "mamba:d_state=4", "attention"],
             "baselines": ["mlp", "popularity"], "match": "time"}  # fmt: skip
    cells = Plan({**presets.load("quality"), **small}).resolved("cpu").cells()
    found = {(each.get("mixer", each.get("baseline")), each.as_long_as) for each in cells}
    assert found == {("mamba", ""), ("mamba", "mamba"), ("attention", "mamba"), ("mlp", ""), ("popularity", "")}
    with pytest.raises(PlanError, match="match time says how long to train, which is nothing to forward"):
        plan_of(tasks=["forward"], match="time").resolved("cpu").cells()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers", "vary takes axes with their values, such as layers=1|4, got 'layers'"),
        ("colour=red", "vary takes axes"),
        ("rounds=3", "vary takes axes"),
        ("tasks=forward", "vary takes axes"),
        ("layers=x", "layers takes whole numbers"),
        ("heads=best|own", "heads takes names"),
        ("mixers=elephant", "elephant"),
    ],
)
def test_a_factor_that_cannot_vary_is_told_in_one_line(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message.replace("|", r"\|")) as caught:
        plan_of(vary=[text]).resolved("cpu").cells()
    assert "\n" not in str(caught.value)
