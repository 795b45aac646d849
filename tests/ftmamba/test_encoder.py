"""The towers against other libraries' models with the same weights, and what the readout can see."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ftmamba import PRESETS, AttentionSpec, EncoderSpec, FeatureSpec, FTEncoder, MambaSpec, TwoTower
from ftmamba.features import FeatureBatch, random_batch
from ftmamba.mixers import build_mixer
from ftmamba.ops import selective_scan
from ftmamba.tokenizer import FeatureTokenizer
from ftmamba.weights import from_rtdl

FEATURES = FeatureSpec(n_numeric=3, cardinalities=(4, 7, 2))
MIXERS = [MambaSpec(backend="reference"), AttentionSpec(backend="reference"), AttentionSpec(backend="sdpa")]


def make_batch(features: FeatureSpec = FEATURES, n_rows: int = 5, seed: int = 0) -> FeatureBatch:
    return random_batch(features, n_rows, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("features", [FEATURES, FeatureSpec(4), FeatureSpec(0, (3, 5))])
@pytest.mark.parametrize("cls_position", ["first", "last"])
@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_ft_transformer_equals_rtdl(features: FeatureSpec, cls_position: str, backend: str) -> None:
    rtdl = pytest.importorskip("rtdl_revisiting_models")
    torch.manual_seed(0)
    theirs = rtdl.FTTransformer(
        n_cont_features=features.n_numeric,
        cat_cardinalities=list(features.cardinalities),
        d_out=5,
        n_blocks=3,
        d_block=24,
        attention_n_heads=4,
        attention_dropout=0.0,
        ffn_d_hidden_multiplier=4 / 3,
        ffn_dropout=0.0,
        residual_dropout=0.0,
    ).double()
    for parameter in theirs.parameters():  # norms and biases start as ones and zeros, which would hide a swap
        torch.nn.init.normal_(parameter, std=0.5)
    mixer = AttentionSpec(n_heads=4, backend=backend)
    spec = EncoderSpec(mixer=mixer, d_model=24, n_layers=3, d_out=5, cls_position=cls_position)
    ours = FTEncoder(spec, features).double()
    ours.load_state_dict(from_rtdl(theirs.state_dict()))
    batch = make_batch(features).to("cpu", torch.float64)
    expected = theirs(
        batch.numeric if features.n_numeric else None, batch.categorical if features.cardinalities else None
    )
    torch.testing.assert_close(ours(batch), expected, rtol=1e-10, atol=1e-10)


RTDL_OPTIONS = {"n_cont_features": 2, "cat_cardinalities": [3], "d_out": 1, "n_blocks": 1, "d_block": 16}
RTDL_OPTIONS |= {"attention_dropout": 0, "ffn_d_hidden_multiplier": 4 / 3, "ffn_dropout": 0, "residual_dropout": 0}
LINFORMER = {"linformer_kv_compression_ratio": 0.5, "linformer_kv_compression_sharing": "headwise"}


@pytest.mark.parametrize(
    ("options", "prefix", "words"),
    [
        ({"attention_n_heads": 1}, "", "a single head has no output projection"),
        ({"attention_n_heads": 4, **LINFORMER}, "", "key_compression.weight: Linformer compression is not supported"),
        ({"attention_n_heads": 4}, "module.", "module.cls_embedding.weight: no weight of such a model"),
        (None, "", "no cls_embedding.weight"),
    ],
)
def test_rtdl_weights_that_compute_something_else_are_refused(
    options: dict[str, object] | None, prefix: str, words: str
) -> None:
    rtdl = pytest.importorskip("rtdl_revisiting_models")
    state = {} if options is None else rtdl.FTTransformer(**RTDL_OPTIONS, **options).state_dict()
    with pytest.raises(ValueError, match=words):
        from_rtdl({f"{prefix}{key}": value for key, value in state.items()})


def test_mamba_mixer_equals_hugging_face() -> None:
    modeling = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    from ftmamba.mixers.mamba.layer import MambaMixer

    torch.manual_seed(0)
    config = modeling.MambaConfig(hidden_size=32, state_size=8, conv_kernel=3, expand=2, num_hidden_layers=1)
    config.use_mambapy = False
    theirs = modeling.MambaMixer(config, 0)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = MambaMixer(MambaSpec(d_state=8, d_conv=3, backend="reference"), 32)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 19, 32)
    # Hugging Face keeps A and the state in float32 whatever the model's dtype; so the comparison is in float32.
    torch.testing.assert_close(ours(x), theirs(x), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_last_layer_readout_equals_full(mixer: MambaSpec | AttentionSpec) -> None:
    torch.manual_seed(0)
    readout = FTEncoder(EncoderSpec(mixer=mixer, d_model=16, n_layers=2), FEATURES).double()
    full = FTEncoder(EncoderSpec(mixer=mixer, d_model=16, n_layers=2, last_layer="full"), FEATURES).double()
    full.load_state_dict(readout.state_dict())
    batch = make_batch().to("cpu", torch.float64)
    torch.testing.assert_close(readout(batch), full(batch), rtol=1e-12, atol=1e-12)
    readout(batch).square().sum().backward()
    full(batch).square().sum().backward()
    for (name, a), (_, b) in zip(readout.named_parameters(), full.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("last_layer", ["readout", "full"])
@pytest.mark.parametrize("cls_position", ["first", "last"])
@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_readout_sees_every_token(mixer: MambaSpec | AttentionSpec, cls_position: str, last_layer: str) -> None:
    options = {"mixer": mixer, "d_model": 16, "n_layers": 2, "cls_position": cls_position, "last_layer": last_layer}
    if mixer.causal and cls_position == "first":
        with pytest.raises(ValueError, match="sees no feature"):
            EncoderSpec(**options)
        return
    torch.manual_seed(0)
    tower = FTEncoder(EncoderSpec(**options), FEATURES)
    tower(make_batch()).square().sum().backward()
    tokenizer = tower.tokenizer
    assert tokenizer.numeric_bias.grad.abs().sum(1).min() > 0
    assert tokenizer.categorical_bias.grad.abs().sum(1).min() > 0
    assert tokenizer.cls.grad.abs().sum() > 0


@pytest.mark.parametrize("d_model", [24, 32, 512])
@pytest.mark.parametrize("mixer", [MambaSpec(), *MIXERS], ids=repr)
def test_an_empty_batch_gives_no_rows_and_no_gradient(mixer: MambaSpec | AttentionSpec, d_model: int) -> None:
    tower = FTEncoder(EncoderSpec(mixer=mixer, d_model=d_model, n_layers=2), FEATURES)
    scores = TwoTower(tower, tower)(make_batch(n_rows=0), make_batch(n_rows=0))
    assert scores.shape == (0,)
    scores.sum().backward()
    assert not any(parameter.grad.any() for parameter in tower.parameters())
    with torch.no_grad():
        assert tower(make_batch(n_rows=0)).shape == (0, d_model)


@pytest.mark.parametrize("mixer", MIXERS, ids=repr)
def test_the_last_of_no_tokens_is_refused(mixer: MambaSpec | AttentionSpec) -> None:
    with pytest.raises((ValueError, IndexError), match=r"at least one token|out of range"):
        build_mixer(mixer, 16)(torch.randn(2, 0, 16), -1)


def test_tokens_by_hand() -> None:
    tower = FTEncoder(EncoderSpec(mixer=AttentionSpec(n_heads=1), d_model=2, n_layers=1), FeatureSpec(1, (2, 3)))
    tokenizer = tower.tokenizer
    with torch.no_grad():
        tokenizer.cls.copy_(torch.tensor([9.0, 8.0]))
        tokenizer.numeric_weight.copy_(torch.tensor([[2.0, 3.0]]))
        tokenizer.numeric_bias.copy_(torch.tensor([[0.5, -0.5]]))
        tokenizer.categorical_table.copy_(torch.arange(10.0).view(5, 2))
        tokenizer.categorical_bias.copy_(torch.tensor([[0.0, 0.25], [1.0, 0.0]]))
    tokens = tokenizer(FeatureBatch(torch.tensor([[10.0]]), torch.tensor([[1, 2]])))
    expected = [[20.5, 29.5], [2.0, 3.25], [9.0, 9.0], [9.0, 8.0]]
    assert tokens.tolist() == [expected]


@pytest.mark.parametrize("runs", ["eager", "compiled", "exported"])
def test_a_category_outside_of_its_column_is_refused(runs: str) -> None:
    """Also where a neighbouring column's table has the row: 4 is row 0 of the second column, -1 row 2 of the fourth."""
    tower = FTEncoder(EncoderSpec(mixer=AttentionSpec(), d_model=16, n_layers=1), FeatureSpec(1, (4, 7, 2, 3)))
    batch = FeatureBatch(torch.zeros(2, 1), torch.tensor([[0, 0, 0, 0], [3, 6, 1, 2]]))
    if runs == "compiled":
        torch._dynamo.reset()
        run = torch.compile(tower, fullgraph=True, backend="aot_eager")
    else:
        run = tower if runs == "eager" else torch.export.export(tower, (batch,)).module()
    run(batch)
    for column, category in ((0, 4), (0, -1), (1, 7), (1, -1), (2, -1), (3, 3), (2, 2**62), (1, -(2**63))):
        categorical = batch.categorical.clone()
        categorical[1, column] = category
        words = f"row 1, categorical column {column}: category {category} is outside of 0 to {(3, 6, 1, 2)[column]}"
        with pytest.raises(IndexError, match=words if runs == "eager" else "out of range"):
            run(batch._replace(categorical=categorical))


def test_rows_are_tokenised_under_vmap_as_in_a_batch() -> None:
    tokenizer = FeatureTokenizer(FeatureSpec(1, (4, 7)), d_model=8)
    batch = FeatureBatch(torch.randn(3, 1), torch.tensor([[0, 6], [3, 0], [2, 5]]))
    one_by_one = torch.vmap(lambda numeric, categorical: tokenizer(FeatureBatch(numeric[None], categorical[None]))[0])
    torch.testing.assert_close(one_by_one(*batch), tokenizer(batch))


@pytest.mark.parametrize(("n_numeric", "n_categorical"), [(1, 3), (3, 1), (4, 3), (0, 3), (3, 0)])
def test_columns_are_not_broadcast(n_numeric: int, n_categorical: int) -> None:
    tower = FTEncoder(EncoderSpec(mixer=AttentionSpec(), d_model=16, n_layers=1), FEATURES)
    batch = FeatureBatch(torch.zeros(2, n_numeric), torch.zeros(2, n_categorical, dtype=torch.int64))
    with pytest.raises(ValueError, match=f"{n_numeric} numeric and {n_categorical} categorical columns for"):
        tower(batch)


def test_reading_a_causal_mixer_before_the_end_is_refused() -> None:
    from ftmamba.mixers.mamba.layer import MambaMixer

    with pytest.raises(ValueError, match="only at the last token"):
        MambaMixer(MambaSpec(backend="reference"), 16)(torch.randn(1, 4, 16), read=1)


def test_two_tower_scores_pairs() -> None:
    torch.manual_seed(0)
    user = FTEncoder(EncoderSpec(mixer=MIXERS[0], d_model=16, n_layers=1, d_out=8), FEATURES)
    content = FTEncoder(EncoderSpec(mixer=MIXERS[1], d_model=24, n_layers=1, d_out=8), FeatureSpec(2))
    users, contents = make_batch(), make_batch(FeatureSpec(2))
    scores = TwoTower(user, content)(users, contents)
    expected = torch.einsum("bd,bd->b", user(users), content(contents))
    torch.testing.assert_close(scores, expected)
    with pytest.raises(ValueError, match="8 and 16"):
        TwoTower(user, FTEncoder(EncoderSpec(mixer=MIXERS[1], d_model=16, n_layers=1), FEATURES))


@pytest.mark.parametrize(("name", "count"), [("paper-mamba", 479_232), ("paper-transformer", 1_186_048)])
def test_paper_presets_have_the_paper_s_parameter_counts(name: str, count: int) -> None:
    spec = PRESETS[name]
    spec = dataclasses.replace(spec, mixer=dataclasses.replace(spec.mixer, backend="reference"))
    assert sum(p.numel() for p in FTEncoder(spec, FEATURES).blocks.parameters()) == count


@pytest.mark.parametrize("mixer", [MambaSpec(), AttentionSpec()], ids=repr)
def test_compile_sees_no_graph_break(mixer: MambaSpec | AttentionSpec) -> None:
    torch._dynamo.reset()
    tower = FTEncoder(EncoderSpec(mixer=mixer, d_model=16, n_layers=2), FEATURES)
    batch = make_batch()
    compiled = torch.compile(tower, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(batch), tower(batch), rtol=1e-5, atol=1e-5)
    compiled(batch).sum().backward()


def test_impossible_specs_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of n_heads"):
        EncoderSpec(mixer=AttentionSpec(n_heads=7), d_model=64)
    with pytest.raises(ValueError, match="must be positive"):
        EncoderSpec(mixer=MambaSpec(), n_layers=0)
    with pytest.raises(ValueError, match="at least one column"):
        FeatureSpec(0)


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize("read", [None, -1])
@pytest.mark.parametrize("stretch", [1, 2, 7, 16])
@pytest.mark.parametrize("batch", [1, 5])
def test_inference_by_stretches_of_tokens_gives_the_same(
    backend: str, read: int | None, stretch: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    mixer = build_mixer(MambaSpec(backend=backend), 16)
    x = torch.randn(batch, 23, 16)
    whole = mixer(x, read)  # with gradients all tokens go at once
    lengths = []
    module = selective_scan.BACKENDS.load(backend)
    scan = module.selective_scan
    monkeypatch.setattr(module, "selective_scan", lambda s, **k: lengths.append(s.x.shape[1]) or scan(s, **k))
    monkeypatch.setattr("ftmamba.ops.mamba_layer.numba.pays", lambda *_: False)
    monkeypatch.setattr("ftmamba.mixers.mamba.layer.STRETCH_NUMBERS", 32 * stretch * min(batch, 2))
    monkeypatch.setattr("ftmamba.mixers.mamba.layer.STRETCH_TOKENS", stretch)
    with torch.no_grad():
        torch.testing.assert_close(mixer(x, read), whole, rtol=1e-5, atol=1e-5)
    assert sum(lengths) == 23 * (1 if batch == 1 else 3)  # two rows at a time
    assert max(lengths) == stretch
