"""Our mixers against independent implementations with the same weights: outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ftmamba.mixers import build_mixer, find

D = 16
LENGTHS = (1, 2, 3, 9, 70)
Tensors = list[Tensor]


def ours(name: str, n_tokens: int = 64, **params: object) -> nn.Module:
    """With weights that hide no swap."""
    torch.manual_seed(0)
    mixer = build_mixer(find(name)(**params), D, n_tokens).double()
    for each in mixer.parameters():
        nn.init.normal_(each, std=0.3)
    return mixer


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def assert_same(a: Callable[[], Tensor], b: Callable[[], Tensor], wanted: Iterable[Tensor], error: float) -> None:
    """Outputs and their gradients to ``wanted``."""
    wanted, found = list(wanted), []
    for each in (a, b):
        y = each().double()
        grads = torch.autograd.grad(y, wanted, torch.linspace(-1, 2, y.shape[-1]).double().expand_as(y))
        found.append([y, *grads])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=error, atol=error)


@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_linear_attention(n_tokens: int) -> None:
    performer = pytest.importorskip("performer_pytorch.performer_pytorch")
    q, k, v = (draw(2, n_tokens, 2, 8, seed=seed) for seed in range(3))
    mixer = ours("linear_attention", n_heads=2)
    features = [(nn.functional.elu(each) + 1).transpose(1, 2) for each in (q, k)]
    theirs = lambda: performer.linear_attention(*features, v.transpose(1, 2)).transpose(1, 2)  # noqa: E731
    kept = lambda: mixer.mix(q, k, v)  # noqa: E731
    for a, b in zip((kept(),), (theirs(),), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    causal = ours("linear_attention", n_heads=2, causal=True)
    for t in range(n_tokens):  # a causal token is the last of the bidirectional row that ends with it
        row = performer.linear_attention(*(each[:, :, : t + 1] for each in features), v.transpose(1, 2)[:, :, : t + 1])
        torch.testing.assert_close(causal.mix(q, k, v)[:, t], row[:, :, -1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_performer(n_tokens: int) -> None:
    performer = pytest.importorskip("performer_pytorch.performer_pytorch")
    mixer, theirs = ours("performer", n_heads=2), performer.FastAttention(8)
    assert mixer.projection.shape == theirs.projection_matrix.shape
    theirs.projection_matrix = mixer.projection
    q, k, v = (draw(2, n_tokens, 2, 8, seed=seed) for seed in range(3))
    assert_same(
        lambda: mixer.mix(q, k, v),
        lambda: theirs(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2),
        (q, k, v),
        1e-8,
    )


@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_causal_performer(n_tokens: int) -> None:
    """The paper's features written out, mixed by the package."""
    performer = pytest.importorskip("performer_pytorch.performer_pytorch")
    mixer = ours("performer", n_heads=2, causal=True).eval()
    q, k, v = (draw(2, n_tokens, 2, 8, seed=seed) for seed in range(3))

    def features(x: Tensor, divided: bool) -> Tensor:
        x = x * 8**-0.25
        logits = x @ mixer.projection.double().T
        top = logits.detach().amax(-1, keepdim=True) if divided else 0
        return (torch.exp(logits - x.square().sum(-1, keepdim=True) / 2 - top) + 1e-4).transpose(1, 2)

    def theirs() -> Tensor:
        mixed = features(q, True), features(k, False), v.transpose(1, 2)
        return performer.causal_linear_attention_noncuda(*mixed, eps=0).transpose(1, 2)

    assert_same(lambda: mixer.mix(q, k, v), theirs, (q, k, v), 1e-8)


def test_performer_draws_in_training_alone_and_orthogonally() -> None:
    mixer, x = ours("performer", n_heads=2, redraw=3), draw(2, 5, D)
    first = mixer.projection.clone()
    block = nn.functional.normalize(first[:8], dim=1)
    torch.testing.assert_close(block @ block.T, torch.eye(8, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    kept = []
    for _ in range(3):
        mixer(x)
        kept.append(torch.equal(mixer.projection, first))
    assert kept == [True, True, False]
    second = mixer.projection.clone()
    mixer.eval()
    for _ in range(4):
        mixer(x)
    assert torch.equal(mixer.projection, second)


def test_performer_draws_between_two_passes_of_one_step() -> None:
    mixer, x = ours("performer", n_heads=2, redraw=2), draw(2, 5, D)
    x.requires_grad_()
    features, y = mixer.projection.clone(), mixer(x).sum()
    mixer(x)
    assert not torch.equal(mixer.projection, features)
    (found,) = torch.autograd.grad(y, [x])
    mixer.eval()
    mixer.projection = features
    (expected,) = torch.autograd.grad(mixer(x).sum(), [x])
    torch.testing.assert_close(found, expected)


def test_performer_estimates_softmax_attention() -> None:
    """Its mean over many draws comes near, and nearer with more features."""
    errors = []
    q, k, v = (0.5 * draw(1, 30, 2, 8, seed=seed) for seed in range(3))
    truth = nn.functional.scaled_dot_product_attention(*(each.transpose(1, 2) for each in (q, k, v))).transpose(1, 2)
    for n_features in (16, 4096):
        mixer = ours("performer", n_heads=2, n_features=n_features)
        errors.append((mixer.mix(q, k, v) - truth).abs().mean().item())
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 4


@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_linformer(n_tokens: int) -> None:
    package = pytest.importorskip("linformer.linformer")
    rank = min(5, n_tokens)
    mixer = ours("linformer", n_tokens, n_heads=2, rank=5)
    theirs = package.LinformerSelfAttention(D, n_tokens, k=rank, heads=2).double()
    nn.init.zeros_(mixer.q_proj.bias)  # the package has none
    nn.init.zeros_(mixer.kv_proj.bias)
    theirs.to_q.weight, theirs.to_out = mixer.q_proj.weight, mixer.out_proj
    keys, values = mixer.kv_proj.weight.detach().chunk(2)
    theirs.to_k.weight, theirs.to_v.weight = nn.Parameter(keys), nn.Parameter(values)
    theirs.proj_k, theirs.proj_v = mixer.sum_keys, mixer.sum_values
    x = draw(2, n_tokens, D)
    wanted = (x, mixer.q_proj.weight, mixer.sum_keys, mixer.sum_values)
    assert_same(lambda: mixer(x), lambda: theirs(x), wanted, 1e-9)
    with pytest.raises(ValueError, match=f"made for {n_tokens} tokens got {n_tokens + 1}"):
        mixer(draw(2, n_tokens + 1, D))


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_longformer(n_tokens: int, place: str) -> None:
    modeling = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    window = 4
    config = modeling.LongformerConfig(hidden_size=D, num_attention_heads=2, attention_window=[window])
    config.attention_probs_dropout_prob = 0.0
    theirs = modeling.LongformerSelfAttention(config, 0).double()
    mixer = ours("longformer", n_heads=2, window=window, global_token=place)
    mixer.out_proj = nn.Identity()  # theirs comes in the next module
    with torch.no_grad():
        for of_ours, of_theirs in (("", ""), ("_global", "_global")):
            keys_values = getattr(mixer, f"kv{of_ours}_proj")
            for kind in ("weight", "bias"):
                getattr(getattr(theirs, f"query{of_theirs}"), kind).copy_(
                    getattr(getattr(mixer, f"q{of_ours}_proj"), kind)
                )
                key, value = getattr(keys_values, kind).chunk(2)
                getattr(getattr(theirs, f"key{of_theirs}"), kind).copy_(key)
                getattr(getattr(theirs, f"value{of_theirs}"), kind).copy_(value)
    x = draw(2, n_tokens, D)

    def padded() -> Tensor:
        left_over = -n_tokens % window
        row = nn.functional.pad(x, (0, 0, 0, left_over))
        mask = torch.zeros(2, n_tokens + left_over)
        mask[:, n_tokens:] = -10000
        mask[:, 0 if place == "first" else n_tokens - 1] = 10000
        flags = {"is_index_masked": mask < 0, "is_index_global_attn": mask > 0, "is_global_attn": True}
        out = theirs(row, attention_mask=mask, **flags)[0]
        return out[:, :n_tokens]

    assert_same(lambda: mixer(x), padded, (x,), 1e-5)  # theirs takes its softmax in float32


@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_mamba2(n_tokens: int) -> None:
    modeling = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    config = modeling.Mamba2Config(
        hidden_size=D,
        state_size=8,
        num_heads=4,
        head_dim=8,
        n_groups=1,
        conv_kernel=3,
        chunk_size=4,
        num_hidden_layers=1,
    )
    theirs = modeling.Mamba2Mixer(config, 0)
    mixer = ours("mamba2", d_state=8, d_head=8, d_conv=3, chunk=4).float()
    theirs.load_state_dict(mixer.state_dict())
    x = draw(2, n_tokens, D)
    single = lambda module: lambda: module(x.float())  # noqa: E731
    assert_same(single(mixer), single(theirs), (x,), 1e-4)  # theirs computes in float32


@pytest.mark.parametrize("read", [None, -1])
def test_mamba2_takes_rows_in_parts(monkeypatch: pytest.MonkeyPatch, read: int | None) -> None:
    mixer, x = ours("mamba2", d_state=8, d_head=8, chunk=4), draw(5, 7, D)

    def in_parts(n_tokens: int) -> Tensor:
        monkeypatch.setattr("ftmamba.mixers.mamba2.layer.STRETCH_TOKENS", n_tokens)
        return mixer(x, read)

    assert_same(lambda: in_parts(15), lambda: in_parts(1000), (x, *mixer.parameters()), 1e-10)


@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_gated_deltanet(n_tokens: int) -> None:
    modeling = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    config = modeling.Qwen3NextConfig(
        hidden_size=D, linear_num_value_heads=2, linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
        linear_conv_kernel_dim=3, num_hidden_layers=1,
    )  # fmt: skip
    theirs = modeling.Qwen3NextGatedDeltaNet(config, 0)
    mixer = ours("gated_deltanet", n_heads=2, d_conv=3, chunk=4).float()
    nn.init.zeros_(mixer.conv1d.bias)  # theirs has none
    with torch.no_grad():
        q, k, v, rest = mixer.in_proj.weight.split([D, D, D, 4])
        by_head = [each.unflatten(0, (2, 8)) for each in (q, k, v, mixer.gate_proj.weight)]
        theirs.in_proj_qkvz.weight.copy_(torch.cat(by_head, 1).flatten(0, 1))
        theirs.in_proj_ba.weight.copy_(rest.unflatten(0, (2, 2)).transpose(0, 1).flatten(0, 1))
        theirs.conv1d.weight.copy_(mixer.conv1d.weight)
        theirs.norm.weight.copy_(mixer.norm.weight)
        theirs.out_proj.weight.copy_(mixer.out_proj.weight)
        theirs.dt_bias.copy_(mixer.dt_bias)
        theirs.A_log.copy_(mixer.A_log)
    x = draw(2, n_tokens, D)
    single = lambda module: lambda: module(x.float())  # noqa: E731
    assert_same(single(mixer), single(theirs), (x,), 1e-4)  # theirs computes in float32


@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_bimamba(n_tokens: int) -> None:
    modeling = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    config = modeling.MambaConfig(hidden_size=D, state_size=8, conv_kernel=3, expand=2, num_hidden_layers=1)
    config.use_mambapy = False
    forth, back = modeling.MambaMixer(config, 0), modeling.MambaMixer(config, 0)
    mixer = ours("bimamba", d_state=8, d_conv=3).float()
    forth.load_state_dict(mixer.forth.state_dict())
    back.load_state_dict(mixer.back.state_dict())
    x = draw(2, n_tokens, D)
    theirs = lambda: forth(x.float()) + back(x.float().flip(1)).flip(1)  # noqa: E731
    assert_same(lambda: mixer(x.float()), theirs, (x,), 1e-4)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_hstu(n_tokens: int, causal: bool) -> None:
    """The paper's equations, head by head and pair by pair."""
    mixer, x = ours("hstu", n_heads=2, causal=causal), draw(2, n_tokens, D)

    def written_out() -> Tensor:
        silu = nn.functional.silu
        k, v = silu(x @ mixer.kv_proj.weight.T).split(D, -1)
        u, q = silu(x @ mixer.uq_proj.weight.T).split(D, -1)
        rows = []
        for i in range(n_tokens):
            pairs = [
                silu((q[:, i, h] * k[:, j, h]).sum(-1, keepdim=True)) * v[:, j, h] / (i + 1 if causal else n_tokens)
                for h in (slice(0, 8), slice(8, 16))
                for j in range(i + 1 if causal else n_tokens)
            ]
            half = len(pairs) // 2
            rows.append(torch.cat([sum(pairs[:half]), sum(pairs[half:])], -1))
        return mixer.out_proj(u * mixer.norm(torch.stack(rows, 1)))

    assert_same(lambda: mixer(x), written_out, (x, *mixer.parameters()), 1e-9)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_hstu_by_rectools(n_tokens: int, causal: bool) -> None:
    """Theirs divides by all tokens, ours by those that one sees: a factor that the norm takes out again."""
    package = pytest.importorskip("rectools.models.nn.transformers.hstu")
    theirs = package.STULayer(D, 2, D // 2, D // 2, n_tokens, False, False, 0.0, 0.0, 0.0).double()
    mixer, x = ours("hstu", n_heads=2, causal=causal), draw(2, n_tokens, D)
    mixer.norm.eps = 0.0
    (u, q), (k, v) = (each.weight.detach().chunk(2) for each in (mixer.uq_proj, mixer.kv_proj))
    theirs.uvqk_proj = nn.Parameter(torch.cat([u, v, q, k]).T)
    theirs.output_mlp, theirs.norm_attn_output = mixer.out_proj, mixer.norm
    pairs, tokens = torch.ones(n_tokens, n_tokens).double(), torch.ones(2, n_tokens, 1).double()
    pairs = pairs.tril() if causal else pairs
    assert_same(
        lambda: mixer(theirs.norm_input(x)),
        lambda: theirs(x, {"x": x}, pairs, tokens, None) - x,
        (x, mixer.out_proj.weight, mixer.norm.weight),
        1e-8,
    )


@pytest.mark.parametrize("n_tokens", LENGTHS)
def test_fnet_and_mean(n_tokens: int) -> None:
    x = draw(2, n_tokens, D).detach()
    expected = np.fft.fft2(x.numpy()).real
    torch.testing.assert_close(ours("fnet")(x), torch.tensor(expected), rtol=1e-9, atol=1e-9)
    mean = ours("mean")
    expected = x.numpy().mean(1, keepdims=True) @ mean.out_proj.weight.detach().numpy().T
    expected = torch.tensor(expected) + mean.out_proj.bias
    torch.testing.assert_close(mean(x), expected.expand(-1, n_tokens, -1), rtol=1e-9, atol=1e-9)
    assert ours("mlp")(x).abs().max() == 0
