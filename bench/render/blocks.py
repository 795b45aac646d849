"""What a section is made of. Sections hold data and words; templates alone hold markup."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from matplotlib.figure import Figure as Canvas


@dataclass(frozen=True)
class Prose:
    """One paragraph; a ``lead`` is the sentence a reader must not miss, a ``note`` is small print."""

    text: str
    kind: Literal["lead", "text", "note"] = "text"
    template = "prose"


@dataclass(frozen=True)
class Bullets:
    items: Sequence[str]
    kind: Literal["lead", "text"] = "text"
    template = "bullets"


@dataclass(frozen=True)
class Code:
    """Something to type."""

    text: str
    template = "code"


@dataclass(frozen=True)
class Facts:
    """Pairs of a term and what it is, under a heading."""

    title: str
    pairs: Sequence[tuple[str, str]]
    template = "facts"


@dataclass(frozen=True)
class TableCell:
    """One cell of a table.

    Attributes:
        text: what is shown.
        sort: what the column is sorted by; the text where None.
        tint: name of a colour variable, or empty.
        hint: shown on hover and focus.
        low, high: ends of the 95 % interval of ``sort``.
        unit: of these three numbers, such as ``s``; empty where the text is all there is.
    """

    text: str
    sort: float | None = None
    tint: str = ""
    hint: str = ""
    low: float = math.nan
    high: float = math.nan
    unit: str = ""

    @property
    def key(self) -> str:
        """What it is sorted by, where the text does not say that by itself."""
        key = "" if self.sort is None else f"{self.sort:.7g}"
        return "" if key == self.text.replace(",", "") else key


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: its heading.
        entry: what stands in it for an item of the table.
        numeric: set flush right.
        page_only: left out on a terminal, which has no room for it.
        stacked: on the page what is in brackets stands below the rest, so that many columns fit side by side.
    """

    name: str
    entry: Callable[[Any], TableCell | str]
    numeric: bool = False
    page_only: bool = False
    stacked: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first column heads the rows.

    Attributes:
        name: of its file when tables are written beside the report.
        items: one a row.
        by: how many columns name a group of rows; on a terminal each group is a table under their texts.
        head: how many columns after these name a row.
        most: rows on a terminal.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    items: Sequence[Any]
    by: int = 0
    head: int = 1
    most: int | None = None
    template = "table"

    @cached_property
    def rows(self) -> list[list[TableCell]]:
        """What stands in the table."""
        entries = ([column.entry(item) for column in self.columns] for item in self.items)
        return [[each if isinstance(each, TableCell) else TableCell(each) for each in row] for row in entries]


@dataclass(frozen=True)
class Figure:
    """One picture.

    Attributes:
        name: of its file when pictures are written beside the report.
        title: heading above it, for people.
        alt: what it shows, for those who cannot see it.
        canvas: the drawing.
        hints: for each group id of markers in the drawing, one text a marker, in their order.
    """

    name: str
    title: str
    alt: str
    canvas: Canvas
    hints: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """Pictures side by side under one caption, drawn when they are asked for: a terminal never does.

    Attributes:
        caption: below them.
        drawings: each draws one, or None where there is nothing to draw.
    """

    caption: str
    drawings: Sequence[Callable[[], Figure | None]]
    template = "figures"

    @cached_property
    def figures(self) -> list[Figure]:
        return [figure for draw in self.drawings if (figure := draw())]


@dataclass(frozen=True)
class Folded:
    """Blocks that open on demand; a terminal shows them, but for what is on the page alone."""

    title: str
    blocks: Sequence[Block]
    page_only: bool = False
    template = "folded"


Block = Prose | Bullets | Code | Facts | Table | Figures | Folded


@dataclass(frozen=True)
class Section:
    """One section of the page; ``name`` is its anchor."""

    name: str
    title: str
    blocks: Sequence[Block]


def fold_if_long(table: Table, most: int = 40) -> Block:
    """The table itself, or folded under its caption where it would fill several screens."""
    return table if len(table.items) <= most else Folded(f"{table.caption} ({len(table.items):,} rows)", [table])
