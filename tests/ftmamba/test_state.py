"""A step gives what the whole row gives there; a peek leaves no trace; states are counted, taken out and put back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ftmamba import AttentionSpec, MambaSpec
from ftmamba.mixers import NAMES, build_mixer, find, stepping
from ftmamba.spec import MixerSpec
from ftmamba.state import check_steps, n_bytes, put, rows, tensors

D, N = 16, 37
WINDOW = AttentionSpec(causal=True, n_heads=2, window=5)
SPECS: list[MixerSpec] = [
    MambaSpec(),
    MambaSpec(backend="reference", d_conv=1, d_state=3),
    *(AttentionSpec(causal=True, n_heads=2, backend=each) for each in ("auto", "sdpa_math", "reference")),
    WINDOW,
    AttentionSpec(causal=True, n_heads=4, window=0),
    *(find("mamba2")(d_head=8, d_state=4, chunk=8, backend=each) for each in ("chunked", "reference")),
    *(find("gated_deltanet")(chunk=8, backend=each) for each in ("chunked", "reference")),
    *(find("linear_attention")(causal=True, n_heads=2, backend=each) for each in ("chunked", "reference")),
    *(find("performer")(causal=True, n_heads=2, backend=each) for each in ("chunked", "reference")),
    *(find("hstu")(backend=each) for each in ("blocks", "reference")),
]


def build(spec: MixerSpec) -> Any:
    torch.manual_seed(0)
    mixer = build_mixer(spec, D).double()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mixer


def draw(batch: int, n_tokens: int) -> Tensor:
    return torch.randn(batch, n_tokens, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def run(mixer: Any, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    outputs = []
    for x_t in x.split(1, dim=1):
        y, state = mixer.step(x_t, state)
        outputs.append(y)
    return torch.cat(outputs, 1), state


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_step_is_the_forward_pass_at_every_place(spec: MixerSpec) -> None:
    mixer, x = build(spec), draw(3, N)
    y, state = run(mixer, x, mixer.start(3, 4))
    torch.testing.assert_close(y, mixer(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(y[:, -1:], mixer(x, -1), rtol=1e-12, atol=1e-12)
    assert not y.requires_grad
    assert all(len(each) == 3 for each in tensors(state))


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_rows_of_different_lengths_step_together(spec: MixerSpec) -> None:
    """Users of a pool have had 0, 3, 9 and 21 tokens; those with an event are taken out, stepped and put back."""
    mixer, x, lengths = build(spec), draw(4, N), [0, 3, 9, 21]
    pool = mixer.start(4)
    for row, length in enumerate(lengths):
        if length:
            pool = put(pool, torch.tensor([row]), run(mixer, x[row : row + 1, :length], mixer.start(1, 2))[1])
    before = [each.clone() for each in tensors(pool)]
    who = torch.tensor([3, 0, 2])
    some = rows(pool, who)
    y, some = mixer.step(torch.stack([x[row, lengths[row]] for row in who.tolist()]).unsqueeze(1), some)
    lies_at = [each.data_ptr() for each in tensors(pool)]
    pool = put(pool, who, some)
    assert [each.data_ptr() for each in tensors(pool)] == lies_at  # a pool with room is not copied
    for row, given in zip(who.tolist(), y, strict=True):
        expected = mixer(x[row : row + 1, : lengths[row] + 1], -1)[0]
        torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)
    for old, new in zip(before, tensors(pool), strict=True):
        assert torch.equal(old[1], new[1])
    y, _ = mixer.step(torch.stack([x[i, n + (i != 1)] for i, n in enumerate(lengths)]).unsqueeze(1), pool)
    for row, length in enumerate(lengths):
        expected = mixer(x[row : row + 1, : length + (row != 1) + 1], -1)[0]
        torch.testing.assert_close(y[row], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("room", [4, 16, 64])
@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_peek_leaves_no_trace(spec: MixerSpec, room: int) -> None:
    mixer, x = build(spec), draw(2, 17)
    _, state = run(mixer, x[:, :16], mixer.start(2, room))
    before = [each.clone() for each in tensors(state)]
    y = mixer.peek(x[:, 16:], state)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(state), strict=True))
    torch.testing.assert_close(y, mixer(x, -1), rtol=1e-12, atol=1e-12)
    assert torch.equal(y, mixer.step(x[:, 16:], state)[0])


def test_a_cache_that_forgets_is_a_band_and_not_the_last_tokens_computed_anew() -> None:
    """Two layers: what the window's oldest token has is of tokens that are gone."""
    first, second, x = build(WINDOW), build(WINDOW), draw(1, N)
    y, _ = run(second, run(first, x, first.start(1))[0], second.start(1))
    band = (torch.arange(N)[:, None] - torch.arange(N)).float()
    hidden = ~((band >= 0) & (band <= 5))

    def banded(mixer: Any, x: Tensor) -> Tensor:
        q, k, v = (each.transpose(1, 2) for each in mixer.project(x, x))
        logits = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf)
        return mixer.out_proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    torch.testing.assert_close(y, banded(second, banded(first, x)), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(second(first(x[:, -6:]), -1), y[:, -1:], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_bytes_are_those_that_the_formula_gives(spec: MixerSpec) -> None:
    mixer = build(spec)
    for n_tokens in (1, 5, 6, 30):
        _, state = run(mixer, draw(1, n_tokens), mixer.start(1, n_tokens))
        used = n_bytes(state)
        if type(spec).name == "attention" and spec.window is not None:  # has its memory from the start
            used -= 2 * max(spec.window + 1 - n_tokens, 0) * D * 8
        assert used == spec.state_bytes(D, n_tokens, 8), n_tokens


def test_bytes_by_hand() -> None:
    assert MambaSpec().state_bytes(64, 1000) == 4 * 128 * (16 + 3)
    assert AttentionSpec(causal=True).state_bytes(64, 1000) == 4 * 1000 * 128 + 8
    assert AttentionSpec(causal=True, window=9).state_bytes(64, 1000) == 4 * 10 * 128 + 8
    assert AttentionSpec().state_bytes(64, 1000) is None


@pytest.mark.parametrize("name", NAMES)
def test_what_looks_ahead_is_refused_with_what_does_not(name: str) -> None:
    spec = find(name)()
    if name in stepping():
        assert hasattr(build_mixer(spec, 64), "start")
        return
    with pytest.raises(ValueError, match=r"^" + name + r" (looks ahead|keeps no state).*mamba2") as refusal:
        check_steps(spec, object())
    assert "\n" not in str(refusal.value)
    if f"{name}:causal=true" in stepping():
        with pytest.raises(ValueError, match="attention:causal=true"):
            build_mixer(spec, 64).start(1)


@pytest.mark.parametrize("spec", [MambaSpec(), WINDOW], ids=repr)
def test_thousands_of_steps_do_not_drift(spec: MixerSpec) -> None:
    """In float32, against the same steps in float64."""
    exact, x = build(spec), draw(1, 250)
    single = build(spec).float()
    states = [exact.start(1), single.start(1)]
    with torch.no_grad():
        for i in range(2000):
            x_t = x[:, i % 250, None] * (1 + i / 2000)
            y, states[0] = exact.step(x_t, states[0])
            z, states[1] = single.step(x_t.float(), states[1])
    torch.testing.assert_close(z.double(), y, rtol=1e-4, atol=1e-4)


def test_sums_that_never_fade_lose_no_token() -> None:
    """Beside 1e8, float32 would round every new token away."""
    mixer, x = build(find("linear_attention")(causal=True, n_heads=2)).float(), draw(1, 100).float()
    fresh, old = mixer.start(1), mixer.start(1)
    old.state.fill_(1e8)
    _, fresh = run(mixer, x, fresh)
    y, old = run(mixer, x, old)
    assert y.dtype == torch.float32
    torch.testing.assert_close(old.state - 1e8, fresh.state, rtol=1e-6, atol=1e-5)
