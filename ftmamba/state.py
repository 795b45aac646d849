"""What a causal mixer keeps of a row's tokens to take the next one, and how it is kept for many rows.

A state is a tuple of tensors whose first axis is the batch. A step uses up the state that it is given: what it returns
takes its place. A peek leaves the state as it is, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmamba.mixers import stepping

if TYPE_CHECKING:
    from ftmamba.spec import MixerSpec

AnyState = TypeVar("AnyState", bound=tuple[Any, ...])
ROOM = 16  # tokens of a cache that nobody gave a size


class Recurrent(NamedTuple):
    """State of a recurrence behind a short convolution.

    Attributes:
        conv: the convolution's last inputs, (batch, d_conv - 1, width); zeros before the first token.
        state: (batch, ...).
    """

    conv: Tensor
    state: Tensor


class Sums(NamedTuple):
    """State of linear attention: sums over tokens of keys' features times values and 1.

    Shape:
        (batch, n_heads, n_features, d_head + 1).
    """

    state: Tensor

    @classmethod
    def zeros(cls, like: Tensor, batch: int, n_heads: int, n_features: int, d_head: int) -> Sums:
        """Of no token. Nothing fades, so that float32 loses ever more of each: 1e-5 after 100,000."""
        return cls(like.new_zeros(batch, n_heads, n_features, d_head + 1, dtype=torch.float64))

    def step(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Sums]:
        """One token's features, (batch, 1, n_heads, features), and values: (batch, 1, d_model) and the sums with it."""
        sums = self.state + k[:, 0].unsqueeze(-1) * F.pad(v[:, 0], (0, 1), value=1.0).unsqueeze(-2)
        y = torch.einsum("bhf,bhfd->bhd", q[:, 0].to(sums.dtype), sums)
        return (y[..., :-1] / y[..., -1:]).flatten(1).unsqueeze(1).to(v.dtype), Sums(sums)


class Cache(NamedTuple):
    """Keys and values of earlier tokens: all of them, or of a window, in which a new one takes the oldest one's place.

    Attributes:
        k, v: (batch, room, n_heads, d_head); zeros where no token is.
        n_seen: tokens that each row has had, (batch,), int64.
    """

    k: Tensor
    v: Tensor
    n_seen: Tensor

    def lengths(self) -> Tensor:
        """Keys of each row, (batch,)."""
        return self.n_seen.clamp(max=self.k.shape[1])

    def place(self) -> tuple[Tensor, Tensor]:
        """Where the next token's key and value go."""
        return torch.arange(len(self.n_seen), device=self.n_seen.device), self.n_seen % self.k.shape[1]

    def add(self, k: Tensor, v: Tensor, *, grows: bool) -> Cache:
        """With one more token, (batch, 1, n_heads, d_head) each; where ``grows`` a full cache gets twice the room."""
        cache, room = self, self.k.shape[1]
        if grows and len(self.n_seen) and int(self.n_seen.max()) >= room:
            cache = fit(self, 2 * room)
        at = cache.place()
        cache.k[at], cache.v[at] = k[:, 0], v[:, 0]
        return cache._replace(n_seen=self.n_seen + 1)

    def used(self) -> tuple[Tensor, Tensor]:
        """Keys and values as far as the longest row has any."""
        n = int(self.n_seen.max()) if len(self.n_seen) else 0
        return self.k[:, :n], self.v[:, :n]


def new_cache(like: Tensor, batch: int, room: int | None, n_heads: int, window: int | None) -> Cache:
    """An empty cache in the device and dtype of ``like``, (d_model, ...)."""
    rooms = (room or ROOM) if window is None else window + 1
    k, v = (like.new_zeros(batch, rooms, n_heads, like.shape[0] // n_heads) for _ in range(2))
    return Cache(k, v, torch.zeros(batch, dtype=torch.int64, device=like.device))


class Steps:
    """Part of a mixer's module that has ``spec``, ``_start`` and ``step``: what comes with them."""

    @torch.no_grad()
    def start(self, batch: int, room: int | None = None) -> Any:
        """The state before the first token.

        Args:
            batch: rows.
            room: tokens for which a cache has memory from the start; it grows.

        Raises:
            ValueError: the mixer looks ahead.
        """
        check_steps(self.spec, self)  # type: ignore[attr-defined]
        return self._start(batch, room)  # type: ignore[attr-defined]

    @torch.no_grad()
    def prefill(self, x: Tensor, lengths: Tensor, room: int | None) -> tuple[Tensor, Any]:
        """Outputs of ragged rows, (batch, n_tokens, d_model), and the state behind each.

        What stands behind a length is zeros, or with its outputs any number. A mixer whose forward pass can give its
        state overrides these steps.
        """
        state, y = self.start(len(x), room), torch.zeros_like(x)
        for t in range(x.shape[1]):
            there = (lengths > t).nonzero().squeeze(1)
            out, some = self.step(x[there, t : t + 1], rows(state, there))  # type: ignore[attr-defined]
            y[there, t], state = out[:, 0], put(state, there, some)
        return y, state

    @torch.no_grad()
    def peek(self, x: Tensor, state: Any) -> Tensor:
        """What ``step`` would give for x, (batch, 1, d_model), of a state that stays as it is."""
        if not isinstance(state, Cache):
            return self.step(x, state)[0]  # type: ignore[attr-defined, no-any-return]
        at = state.place()
        kept = state.k[at], state.v[at]
        y: Tensor = self.step(x, state)[0]  # type: ignore[attr-defined]
        state.k[at], state.v[at] = kept
        return y


def check_steps(spec: MixerSpec, mixer: object) -> None:
    """Raise ValueError where a mixer cannot take one token more."""
    if not spec.causal:
        reason = "looks ahead, so that a new token changes all earlier ones"
    elif not hasattr(mixer, "start"):
        reason = "keeps no state"
    else:
        return
    raise ValueError(f"{type(spec).name} {reason}; mixers that take one token more: {', '.join(stepping())}")


def check_users(users: Tensor, n_users: int, *, once: bool) -> None:
    """Raise IndexError for a user whom a state does not hold, with ``once`` ValueError for one who comes twice."""
    found, counts = torch.unique(users, return_counts=True)
    if (wrong := found[(found < 0) | (found >= n_users)]).numel():
        raise IndexError(f"user {wrong[0]} is outside of 0 to {n_users - 1}")
    if once and (twice := found[counts > 1]).numel():
        raise ValueError(f"user {twice[0]} has more than one event in a step; step them one after another")


def fit(cache: Cache, room: int) -> Cache:
    """A cache with at least this much room, the same one where it has that."""
    if cache.k.shape[1] >= room:
        return cache
    k, v = (F.pad(each, (0, 0, 0, 0, 0, room - each.shape[1])) for each in cache[:2])
    return Cache(k, v, cache.n_seen)


def tensors(state: Any) -> list[Tensor]:
    """The tensors of a state, in order."""
    return [state] if isinstance(state, Tensor) else [tensor for each in state for tensor in tensors(each)]


def n_bytes(state: Any) -> int:
    """Memory of a state's tensors, in bytes."""
    return sum(each.nbytes for each in tensors(state))


def rows(state: AnyState, index: Tensor) -> AnyState:
    """A state of its own of some rows, such as of those users of a pool that have an event."""
    return each_tensor(lambda tensor: tensor[index], state)  # type: ignore[no-any-return]


def put(pool: AnyState, index: Tensor, part: AnyState) -> AnyState:
    """The pool with a state's rows at ``index``; its caches grow where those of the rows have more room."""

    def write(kept: Any, new: Any) -> Any:
        if isinstance(kept, Cache):
            room = max(kept.k.shape[1], new.k.shape[1])
            kept, new = fit(kept, room), fit(new, room)
        for each, values in zip(tensors(kept), tensors(new), strict=True):
            each[index] = values
        return kept

    return each_tensor(write, pool, part, whole=(Tensor, Cache))  # type: ignore[no-any-return]


def each_tensor(function: Callable[..., Any], *states: Any, whole: tuple[type, ...] = (Tensor,)) -> Any:
    """What a function makes of the tensors of states, or of what is ``whole``, in the same structure."""
    if isinstance(states[0], whole):
        return function(*states)
    parts = [each_tensor(function, *each, whole=whole) for each in zip(*states, strict=True)]
    return type(states[0])(*parts) if hasattr(states[0], "_fields") else tuple(parts)
