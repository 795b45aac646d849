"""Histories: a user's events become tokens, oldest first, and a tower reads them."""

from __future__ import annotations

import inspect
import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmamba.blocks import build_block
from ftmamba.encoder import Head
from ftmamba.features import FeatureBatch
from ftmamba.ragged import groups, last, without_pads
from ftmamba.spec import EncoderSpec, EventSpec, FeatureSpec
from ftmamba.tokenizer import FeatureTokenizer, look_up, offsets

DAY_S = 86_400
# A split of a batch's rows by length must spare so many pads on a CPU: about what the start of a group's work costs.
WORTH_TOKENS = 1024


class HistoryBatch(NamedTuple):
    """Events of some users, oldest first, left-aligned; what stands behind a length is never read.

    Attributes:
        item: row of the table of items, (batch, n_events), int64.
        numeric: standardised numbers, (batch, n_events, n_numeric), floating.
        categorical: row of each column's own lookup table, (batch, n_events, n_categorical), int64.
        time: seconds since any moment, not falling within a row, (batch, n_events), int64.
        lengths: events of each row, (batch,), int64; 0 is an empty history.

    Examples:
        >>> import torch
        >>> from ftmamba import HistoryBatch
        >>> none, time = torch.empty(2, 5, 0), torch.arange(5).expand(2, 5)
        >>> history = HistoryBatch(torch.randint(100, (2, 5)), none, none.long(), time, torch.tensor([5, 3]))
        >>> history.rows(slice(1, 2)).item.shape
        torch.Size([1, 3])
    """

    item: Tensor
    numeric: Tensor
    categorical: Tensor
    time: Tensor
    lengths: Tensor

    @property
    def n_rows(self) -> int:
        return self.item.shape[0]

    def rows(self, index: Tensor | slice) -> HistoryBatch:
        """The rows at ``index``, cut to the longest of them."""
        lengths = self.lengths[index]
        longest = int(lengths.max()) if len(lengths) else 0
        item, numeric, categorical, time = (each[:, :longest][index] for each in self[:-1])
        return HistoryBatch(item, numeric, categorical, time, lengths)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> HistoryBatch:
        """On ``device``, the numbers in ``dtype``."""
        moved = HistoryBatch._make(each.to(device) for each in self)
        return moved._replace(numeric=moved.numeric.to(dtype))


class EventTokenizer(nn.Module):
    """An event to one token: the sum of its item's vector, its columns' and that of the time since the one before.

    The time gap is a number, the logarithm of 1 + seconds, 1 for a day; the first event has none. With ``n_positions``
    each event gets the vector of its place in the row too, as in SASRec (Kang and McAuley, arXiv 1808.09781, 3.1).

    Args:
        events: the columns.
        d_model: width of a token.
        n_positions: places that have a vector; 0 gives none.
        items: tokenizer of a content tower, one of whose categorical columns is the item: then its rows are the items'
            vectors here too.
        item_column: which of its categorical columns.

    Shape:
        HistoryBatches of B rows of L events each -> (B, L, d_model) of each; behind a row's length are numbers. Several
        are looked up at once, since a gradient of the table of items is as large as that.

    Raises:
        ValueError: columns or lengths that are not those of the spec.
        IndexError: an item or a category outside of its table; on CUDA an assertion of the device, as torch's own.
    """

    first_rows: Tensor
    last_rows: Tensor

    def __init__(
        self,
        events: EventSpec,
        d_model: int,
        n_positions: int = 0,
        items: FeatureTokenizer | None = None,
        item_column: int = 0,
    ) -> None:
        super().__init__()
        self.events, self.items, self.first_item = events, items, 0
        if items is not None:
            cardinalities = items.features.cardinalities
            if not 0 <= item_column < len(cardinalities) or cardinalities[item_column] != events.n_items:
                raise ValueError(
                    f"column {item_column} of the tokenizer to share has not the {events.n_items} items of the events: "
                    f"its categorical columns have {cardinalities} rows"
                )
            self.first_item = sum(cardinalities[:item_column])
        else:
            self.item_table = nn.Parameter(torch.empty(events.n_items, d_model))
        self.numeric = nn.Linear(1 + events.n_numeric, d_model)
        self.categorical_table = nn.Parameter(torch.empty(sum(events.cardinalities), d_model))
        for name, rows in zip(("first_rows", "last_rows"), offsets(events.cardinalities), strict=True):
            self.register_buffer(name, rows, persistent=False)
        self.position_table = nn.Parameter(torch.empty(n_positions, d_model))
        for parameter in self.parameters(recurse=False):
            nn.init.uniform_(parameter, -(d_model**-0.5), d_model**-0.5)

    def forward(self, *parts: HistoryBatch) -> list[Tensor]:
        numbers, items, categories = zip(*map(self._flat, parts), strict=True)
        tokens = self._sum(torch.cat(numbers), torch.cat(items), torch.cat(categories))
        shapes = [part.item.shape for part in parts]
        each = [
            torch.unflatten(own, 0, shape)
            for own, shape in zip(torch.split(tokens, [shape.numel() for shape in shapes]), shapes, strict=True)
        ]
        if len(self.position_table):
            each = [own + self.position_table[: own.shape[1]] for own in each]
        return each

    def next(self, event: HistoryBatch, n_events: Tensor, time: Tensor) -> Tensor:
        """The token of one more event of each row, (batch, 1, d_model), behind so many, the last of them at ``time``.

        Raises:
            ValueError, IndexError: as above, or not one event a row.
        """
        if event.item.shape != (len(n_events), 1):
            raise ValueError(f"one event a row of {len(n_events)} is taken, got {tuple(event.item.shape)}")
        seconds = (event.time[:, 0] - time).where(n_events > 0, 0)
        numbers = self._numbers(seconds.unsqueeze(1), event, int(n_events.max()) + 1 if len(n_events) else 0)
        tokens = self._sum(numbers, event.item[:, 0], event.categorical[:, 0])
        if len(self.position_table):
            tokens = tokens + self.position_table[n_events]
        return tokens.unsqueeze(1)

    def _sum(self, numbers: Tensor, item: Tensor, categories: Tensor) -> Tensor:
        tokens: Tensor = self.numeric(numbers) + self.item_vectors(item)
        if self.events.cardinalities:
            found = look_up(categories, self.first_rows, self.last_rows, self.categorical_table, "event")
            tokens = tokens + found.sum(-2)
        return tokens

    def _flat(self, history: HistoryBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Time gaps and numbers, items, and categories of all events of all rows, one after another."""
        *events, lengths = history
        history = HistoryBatch(*[without_pads(each, lengths) for each in events], lengths)
        time, n_events = history.time, history.item.shape[1]
        seconds = F.pad(time[:, 1:] - time[:, :-1], (1, 0))[:, :n_events]
        return self._numbers(seconds, history, n_events), history.item.flatten(), history.categorical.flatten(0, 1)

    def _numbers(self, seconds: Tensor, history: HistoryBatch, n_events: int) -> Tensor:
        """What the linear layer takes of all events; the longest history has so many."""
        n_positions = len(self.position_table)
        widths = (history.numeric.shape[-1], history.categorical.shape[-1])
        if widths != (self.events.n_numeric, len(self.events.cardinalities)):
            raise ValueError(f"events of {widths[0]} numeric and {widths[1]} categorical columns for {self.events}")
        if n_events > n_positions > 0:
            raise ValueError(f"a history of {n_events} events for a tower of at most {n_positions}")
        dtype = self.numeric.weight.dtype
        gaps = seconds.clamp(min=0).to(dtype).log1p() / math.log1p(DAY_S)
        return torch.cat([gaps.unsqueeze(-1), history.numeric.to(dtype)], dim=-1).flatten(0, 1)

    def item_vectors(self, item: Tensor) -> Tensor:
        """The items' vectors, (..., d_model)."""
        known = (item >= 0) & (item < self.events.n_items)
        table = self.item_table if self.items is None else self.items.categorical_table
        try:
            return F.embedding((item + self.first_item).where(known, len(table)), table)
        except IndexError:
            raise IndexError(f"item {item[~known][0]} is outside of 0 to {self.events.n_items - 1}") from None


class HistoryEncoder(nn.Module):
    """Tokens [static columns][events, oldest first][CLS], blocks, readout, head: a tower that reads histories.

    On a CPU, rows of like length are taken together, so that pads cost little whatever the mixer.

    Args:
        spec: the tower.
        events: the columns of an event.
        static: further columns of a user, each a token before the events.
        max_events: of a history; whatever has weights for places or for a number of tokens needs it.
        positions: whether each event gets a vector of its place in the row, without which attention sees the order by
            its masks and time gaps alone; at most ``max_events`` then.
        items, item_column: see ``EventTokenizer``.

    Raises:
        ValueError: a tower that cannot read histories.

    Examples:
        >>> import torch
        >>> from ftmamba import EncoderSpec, EventSpec, HistoryBatch, HistoryEncoder, MambaSpec
        >>> tower = HistoryEncoder(EncoderSpec(mixer=MambaSpec(), d_model=16, n_layers=1), EventSpec(100))
        >>> none = torch.empty(2, 5, 0)
        >>> item, time = torch.randint(100, (2, 5)), torch.arange(5).expand(2, 5)
        >>> history = HistoryBatch(item, none, none.long(), time, torch.tensor([5, 3]))
        >>> tower(history).shape, tower(history, at="all").shape
        (torch.Size([2, 16]), torch.Size([2, 5, 16]))
    """

    def __init__(
        self,
        spec: EncoderSpec,
        events: EventSpec,
        static: FeatureSpec | None = None,
        *,
        max_events: int | None = None,
        positions: bool = False,
        items: FeatureTokenizer | None = None,
        item_column: int = 0,
    ) -> None:
        super().__init__()
        mixers = [spec.mixer_of(layer) for layer in range(spec.n_layers)]
        if max_events is None and (positions or any(each.sized for each in mixers)):
            raise ValueError(f"positions and {spec.mixer.name}'s weights belong to a number of events: give max_events")
        if spec.cls_position != "last":
            raise ValueError("[CLS] stands last in a history; use cls_position='last'")
        self.spec, self.causal = spec, all(each.causal for each in mixers)
        self.static = None if static is None else FeatureTokenizer(static, spec.d_model)
        n_static = 0 if static is None else static.n_columns
        self.tokenizer = EventTokenizer(
            events, spec.d_model, max_events or 0 if positions else 0, items=items, item_column=item_column
        )
        if static is None:
            self.cls = nn.Parameter(torch.empty(spec.d_model).uniform_(-(spec.d_model**-0.5), spec.d_model**-0.5))
        self.blocks = nn.ModuleList(
            build_block(each, spec.d_model, n_static + (max_events or 0) + 1, first=i == 0, dropout=spec.dropout)
            for i, each in enumerate(mixers)
        )
        for each, block in zip(mixers, self.blocks, strict=True):
            if "lengths" not in inspect.signature(getattr(block, "mixer", block).forward).parameters:
                raise ValueError(f"{each.name} takes no rows of different lengths: its forward has no argument lengths")
        self.head = Head(spec)

    def forward(
        self, history: HistoryBatch, static: FeatureBatch | None = None, *, at: Literal["last", "all"] = "last"
    ) -> Tensor:
        """What [CLS] has read, (batch, d_out); or, with ``at="all"``, what every event has, (batch, n_events, d_out).

        Raises:
            ValueError: static columns missing or not wanted, or all events of a mixer that looks ahead.
        """
        if (static is None) != (self.static is None):
            raise ValueError("static columns are given where the tower has them, and only there")
        if at == "all" and not self.causal:
            raise ValueError(f"{self.spec.mixer.name} looks ahead: only at='last' keeps a target out of what is read")
        if not history.item.is_cpu or torch.compiler.is_compiling() or history.n_rows == 0:
            y = self._read(self.tokenizer(history)[0], history, static, at)
            return self.head(y) if at == "last" else y
        order = groups(history.lengths, WORTH_TOKENS)
        parts = [history.rows(index) for index in order]
        outputs = [
            self._read(events, part, None if static is None else static.rows(index), at)
            for events, part, index in zip(self.tokenizer(*parts), parts, order, strict=True)
        ]
        back = torch.cat(order).argsort()
        if at == "last":
            return self.head(torch.cat(outputs)[back])  # type: ignore[no-any-return]
        n_events = history.item.shape[1]
        return torch.cat([F.pad(each, (0, 0, 0, n_events - each.shape[1])) for each in outputs])[back]

    def _read(self, events: Tensor, history: HistoryBatch, static: FeatureBatch | None, at: str) -> Tensor:
        """[CLS] before the head, or every event behind it."""
        tokens, lengths = [events], history.lengths
        if self.static is None:
            cls = self.cls.expand(history.n_rows, 1, -1)
        else:
            columns, cls = self.static(static).tensor_split([-1], dim=1)
            tokens.insert(0, columns)
            lengths = lengths + columns.shape[1]
        x = torch.cat(tokens if at == "all" else [*tokens, cls], dim=1)
        if at == "last":
            end = torch.arange(x.shape[1], device=x.device) == lengths[:, None]
            x, lengths = torch.where(end.unsqueeze(-1), cls, x), lengths + 1
        lengths = lengths.clamp(min=1)  # an empty row's first token is a pad, which holds a number
        alone = at == "last" and self.spec.last_layer == "readout"
        for i, block in enumerate(self.blocks, 1):
            x = block(x, -1 if alone and i == len(self.blocks) else None, lengths)
        if at == "last":
            return (x if alone else last(x, lengths)).squeeze(1)
        return without_pads(self.head(x[:, x.shape[1] - history.item.shape[1] :]), history.lengths)
