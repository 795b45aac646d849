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
from ftmamba.ragged import token
from ftmamba.state import check_steps, check_users, each_tensor, put, rows, tensors

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

    @property
    def by_kernel(self) -> bool:
        """Whether the step that gave these was one kernel's; op by op else, or no step's."""
        return False


class _Known(TowerState):
    """States that a kernel has looked up; copies and parts of them are not."""

    kernel: TowerStep | None = None
    found: Any = None

    @property
    def by_kernel(self) -> bool:
        return self.kernel is not None

    def __reduce__(self) -> tuple[type[TowerState], tuple[Any, ...]]:
        return TowerState, tuple(self)


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
    def start(
        self,
        batch: int,
        static: FeatureBatch | None = None,
        room: int | None = None,
        history: HistoryBatch | None = None,
    ) -> TowerState:
        """States before the first event, or behind whole histories, which one forward pass takes.

        Args:
            batch: users.
            static: their static columns, where the tower has them.
            room: tokens, static columns among them, for which caches have memory from the start.
            history: events that the users have had.

        Raises:
            ValueError: static columns missing, not wanted, or of another number of users, or histories of another one.
        """
        if (static is None) != (self.tower.static is None) or (static is not None and static.n_rows != batch):
            raise ValueError(f"static columns of {batch} users are given where the tower has them, and only there")
        if history is not None and history.n_rows != batch:
            raise ValueError(f"histories of {history.n_rows} users are given for {batch}")
        self._kernel = _kernel(self.tower)
        lengths, time = (torch.zeros(batch, dtype=torch.int64, device=self._cls().device) for _ in range(2))
        n_events, tokens = lengths, self._cls().new_empty(batch, 0, self.tower.spec.d_model)
        if history is not None and history.item.shape[1]:
            n_events = lengths = history.lengths.clone()
            time = token(history.time, (lengths - 1).clamp(min=0))[:, 0].where(lengths > 0, 0)
            tokens = self.tower.tokenizer(history)[0]
        if self.tower.static is not None:
            columns = self.tower.static(static)[:, :-1]
            tokens, lengths = torch.cat([columns, tokens], dim=1), lengths + columns.shape[1]
        layers = []
        for block in self.tower.blocks:
            tokens, layer = block.prefill(tokens, lengths, room)  # type: ignore[operator]
            layers.append(layer)
        return self._tidy(TowerState(tuple(layers), n_events, time))

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
        if (known := self._known(state)) is not None:
            if not (event.item.is_contiguous() and event.time.is_contiguous()):
                event = HistoryBatch._make(each.contiguous() for each in event)
            if (y := known.kernel(known.found, event, users)) is not None:
                return y, known
        return self._step(event, state, users)

    def peek(self, state: TowerState, users: Tensor | None = None) -> Tensor:
        """What [CLS] reads behind the events so far, (batch, d_out), as ``forward``; the states stay as they are.

        Args:
            state: of all users.
            users: those who are read, (batch,); None means all.
        """
        known = self._known(state)
        y = None if known is None else known.kernel(known.found, None, users)
        return self._peek(state, users) if y is None else y

    @torch.no_grad()
    def _step(self, event: HistoryBatch, pool: TowerState, users: Tensor | None) -> tuple[Tensor, TowerState]:
        state = pool
        if users is not None:
            check_users(users, len(pool.n_events), once=True)
            state = rows(pool, users)
        x, layers = self.tower.tokenizer.next(event, state.n_events, state.time), []
        for block, layer in zip(self.tower.blocks, state.layers, strict=True):
            x, layer = block.step(x, layer)  # type: ignore[operator]
            layers.append(layer)
        behind = TowerState(tuple(layers), state.n_events + 1, event.time[:, 0].clone())
        return self.tower.head(x.squeeze(1)), self._tidy(behind if users is None else put(pool, users, behind))

    @torch.no_grad()
    def _peek(self, state: TowerState, users: Tensor | None) -> Tensor:
        if users is not None:
            check_users(users, len(state.n_events), once=False)
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

    def _known(self, state: TowerState) -> Any:
        """The states with what the kernel needs to know, None where there is no kernel for them or it cannot read them.

        Weights that have changed are packed anew.
        """
        kernel = self._kernel
        if kernel is not None and not kernel.is_current():
            kernel = self._kernel = _kernel(self.tower)
        if kernel is None or (isinstance(state, _Known) and state.kernel is kernel):
            return None if kernel is None else state
        known = _Known(*state)
        known.kernel, known.found = kernel, kernel.look_up(state)
        return None if known.found is None else known

    def _tidy(self, state: TowerState) -> TowerState:
        return state if self._kernel is None else each_tensor(Tensor.contiguous, state)

    def _empty(self) -> TowerState:
        """States of no user, for their structure."""
        layers = tuple(block.mixer.start(0) for block in self.tower.blocks)  # type: ignore[operator, union-attr]
        return TowerState(layers, *torch.zeros(2, 0, dtype=torch.int64))

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
