"""A tower of histories that takes one event at a time: users' states instead of their histories."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ftmamba.checkpoint import KEY, write
from ftmamba.features import FeatureBatch
from ftmamba.history import HistoryBatch, HistoryEncoder
from ftmamba.plain import to_dict
from ftmamba.state import Cache, check_steps, check_users, each_tensor, fit, put, rows, tensors

if TYPE_CHECKING:
    from ftmamba.tower_step import TowerStep

VERSION = 1  # of what is written


class TowerState(NamedTuple):
    """What a tower keeps of some users; see ``ftmamba.state`` for what can be done with it.

    Attributes:
        layers: a mixer's state each.
        n_events: events that each user has had, (batch,), int64.
        time: seconds of the last one, (batch,), int64.
    """

    layers: tuple[Any, ...]
    n_events: Tensor
    time: Tensor


class Stream:
    """Steps of a causal tower; its outputs are those of the tower's forward pass over the whole histories.

    States belong to the weights that they were made with: after a change of these they have to be made anew.

    A float32 tower of Mamba and attention layers on a CPU is one kernel (``ftmamba.tower_step``). It sees changes of
    the weights by torch, but those behind ``.data`` and new modules only at the next ``start``.

    Args:
        tower: of histories; it is put in evaluation mode.

    Raises:
        ValueError: a mixer of the tower looks ahead, or keeps no state.

    Examples:
        >>> import torch
        >>> from ftmamba import EncoderSpec, EventSpec, HistoryBatch, HistoryEncoder, MambaSpec, Stream
        >>> stream = Stream(HistoryEncoder(EncoderSpec(mixer=MambaSpec(), d_model=16, n_layers=1), EventSpec(100)))
        >>> none, one = torch.empty(2, 1, 0), torch.ones(2, dtype=torch.int64)
        >>> event = HistoryBatch(torch.tensor([[7], [3]]), none, none.long(), torch.zeros(2, 1).long(), one)
        >>> y, state = stream.step(event, stream.start(2))
        >>> y.shape, stream.peek(state).shape, state.n_events
        (torch.Size([2, 16]), torch.Size([2, 16]), tensor([1, 1]))
    """

    def __init__(self, tower: HistoryEncoder) -> None:
        self.tower, spec = tower.eval(), tower.spec
        for layer, block in enumerate(tower.blocks):
            check_steps(spec.mixer_of(layer), getattr(block, "mixer", block))
        self._kernel = _kernel(tower)

    def __reduce__(self) -> tuple[type[Stream], tuple[HistoryEncoder]]:
        return Stream, (self.tower,)  # the kernel knows the weights by their addresses

    @torch.no_grad()
    def start(self, batch: int, static: FeatureBatch | None = None, room: int | None = None) -> TowerState:
        """States before the first event.

        Args:
            batch: users.
            static: their static columns, where the tower has them.
            room: tokens, static columns among them, for which caches have memory from the start.

        Raises:
            ValueError: static columns missing, not wanted, or of another number of users.
        """
        if (static is None) != (self.tower.static is None) or (static is not None and static.n_rows != batch):
            raise ValueError(f"static columns of {batch} users are given where the tower has them, and only there")
        self._kernel = _kernel(self.tower)
        layers = tuple(block.mixer.start(batch, room) for block in self.tower.blocks)  # type: ignore[operator, union-attr]
        n_events, time = (torch.zeros(batch, dtype=torch.int64, device=self._cls().device) for _ in range(2))
        if self.tower.static is not None:
            for column in self.tower.static(static)[:, :-1].split(1, dim=1):
                _, layers = self._blocks(column, layers)
        return self._tidy(TowerState(layers, n_events, time))

    def step(self, event: HistoryBatch, state: TowerState, users: Tensor | None = None) -> tuple[Tensor, TowerState]:
        """What one more event of each user has, (batch, d_out), as ``forward(at="all")``; and the states behind it.

        The states that are given are used up.

        Args:
            event: of each user.
            state: of all users.
            users: rows of the state that have an event, each once, (batch,); None means all.

        Raises:
            ValueError: not one event a user, other columns, more events than the tower has places for, or a user twice.
            IndexError: an item or a category outside of its table, or a user outside of the state.
        """
        if self._ready():
            y, verdict = self._kernel(state, event, users)
            if verdict == self._kernel.FULL:
                layers = (fit(each, 2 * each.k.shape[1]) if isinstance(each, Cache) else each for each in state.layers)
                state = state._replace(layers=tuple(layers))
                y, _ = self._kernel(state, event, users)
            if y is not None:
                return y, state
        return self._step(event, state, users)

    def peek(self, state: TowerState, users: Tensor | None = None) -> Tensor:
        """What [CLS] reads behind the events so far, (batch, d_out), as ``forward``; the states stay as they are.

        Args:
            state: of all users.
            users: those who are read, (batch,); None means all.
        """
        y = self._kernel(state, None, users)[0] if self._ready() else None
        return self._peek(state, users) if y is None else y

    @torch.no_grad()
    def _step(self, event: HistoryBatch, pool: TowerState, users: Tensor | None) -> tuple[Tensor, TowerState]:
        state = pool
        if users is not None:
            check_users(users, len(pool.n_events))
            state = rows(pool, users)
        token = self.tower.tokenizer.next(event, state.n_events, state.time)
        x, layers = self._blocks(token, state.layers)
        behind = TowerState(layers, state.n_events + 1, event.time[:, 0].clone())
        return self.tower.head(x.squeeze(1)), self._tidy(behind if users is None else put(pool, users, behind))

    @torch.no_grad()
    def _peek(self, state: TowerState, users: Tensor | None) -> Tensor:
        if users is not None:
            state = rows(state, users)
        x = self._cls().expand(len(state.n_events), 1, -1)
        for block, layer in zip(self.tower.blocks, state.layers, strict=True):
            x = block.peek(x, layer)  # type: ignore[operator]
        return self.tower.head(x.squeeze(1))  # type: ignore[no-any-return]

    def save(self, path: str | Path, state: TowerState) -> None:
        """Write states to a safetensors file, whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        named = {
            f"{i:04}": each.cpu().clone(memory_format=torch.contiguous_format) for i, each in enumerate(tensors(state))
        }
        write(Path(path), named, {"states": VERSION, "model": self._digest()})

    def load(self, path: str | Path) -> TowerState:
        """The states that ``save`` wrote, on the tower's device.

        Raises:
            ValueError: in one line, another kind of file, or states of another model, other weights or a newer version.
            OSError: the file cannot be read.
        """
        try:
            with safe_open(path, "pt", device=str(self._cls().device)) as file:
                about = json.loads((file.metadata() or {}).get(KEY, "{}"))
                if "states" not in about:
                    raise ValueError("it holds no states")
                if about["states"] > VERSION:
                    raise ValueError(
                        f"a newer ftmamba wrote it, in version {about['states']}; this one knows {VERSION}"
                    )
                if about["model"] != self._digest():
                    raise ValueError("its states are of another model or of other weights; replay the histories")
                found = iter([file.get_tensor(name).clone() for name in sorted(file.keys())])
            state: TowerState = each_tensor(lambda _: next(found), self._empty())
            return state
        except (SafetensorError, TypeError, ValueError) as error:
            raise ValueError(f"{path} cannot be loaded: {' '.join(str(error).split())}") from None

    def _ready(self) -> bool:
        """Whether there is a kernel; its weights are packed anew where they have changed."""
        if self._kernel is not None and not self._kernel.is_current():
            self._kernel = _kernel(self.tower)
        return self._kernel is not None

    def _tidy(self, state: TowerState) -> TowerState:
        return state if self._kernel is None else each_tensor(Tensor.contiguous, state)  # type: ignore[no-any-return]

    def _empty(self) -> TowerState:
        """States of no user, for their structure."""
        layers = tuple(block.mixer.start(0) for block in self.tower.blocks)  # type: ignore[operator, union-attr]
        return TowerState(layers, *torch.zeros(2, 0, dtype=torch.int64))

    def _blocks(self, x: Tensor, layers: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        behind = []
        for block, layer in zip(self.tower.blocks, layers, strict=True):
            x, layer = block.step(x, layer)  # type: ignore[operator]
            behind.append(layer)
        return x, tuple(behind)

    def _cls(self) -> Tensor:
        return self.tower.cls if self.tower.static is None else self.tower.static.cls

    def _digest(self) -> str:
        """Of the tower's specs and weights."""
        tower, static = self.tower, self.tower.static
        about = [to_dict(tower.spec), asdict(tower.tokenizer.events), static and asdict(static.features)]
        digest = hashlib.sha256(json.dumps(about).encode())
        for name, weight in tower.state_dict().items():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _kernel(tower: HistoryEncoder) -> TowerStep | None:
    """The tower's step as one kernel, or None where the kernel does not take it."""
    try:
        from ftmamba.tower_step import TowerStep

        return TowerStep(tower)
    except (ImportError, ValueError):  # without numba, or a part that it does not know
        return None
