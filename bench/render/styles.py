"""Colours and markers. Twelve colours stay apart, for colour-blind readers too as far as twelve can, and can be read as
text on a light and on a dark page; a marker always says the same as the colour, a line style which backend it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ftmamba import mixers


@dataclass(frozen=True)
class Style:
    """How a mixer is drawn.

    Attributes:
        name: of its colour variable in the page's style sheet.
        light, dark: its colour on a light and on a dark page.
        marker: matplotlib's name.
        sign: the same marker as a character.
    """

    name: str
    light: str
    dark: str
    marker: str
    sign: str


_DRAWN = (
    ("#0068a8", "#5cb3f2", "o", "●"),
    ("#c24e00", "#ff9657", "s", "■"),
    ("#00805a", "#3fcf9f", "^", "▲"),
    ("#2003ae", "#678fff", "D", "◆"),
    ("#34a37e", "#60917b", "v", "▼"),
    ("#7f66fa", "#9d79c2", "P", "✚"),
    ("#949735", "#7d6300", "*", "★"),
    ("#1e5d5a", "#1f7361", "p", "⬟"),
    ("#dc66c7", "#dcaed0", "h", "⬢"),
    ("#6808e5", "#5d54ff", "<", "◀"),
    ("#5a1e6f", "#6f5ba0", ">", "▶"),
    ("#763f06", "#be7c10", "X", "✖"),
)
STYLES = tuple(Style(f"colour-{i}", *each) for i, each in enumerate(_DRAWN))
BASELINE = Style("colour-baseline", "#6a7078", "#9aa3ad", "d", "♦")

# Colours of a drawing that are not a mixer's: its ink, its rules. The page swaps them for its own.
INK = "#1f2328"
FAINT = "#656d76"
RULE = "#d0d7de"
COLOURS = {
    "ink": (INK, "#e6e9ed"),
    "faint": (FAINT, "#9aa4af"),
    "rule": (RULE, "#39414a"),
    **{style.name: (style.light, style.dark) for style in (*STYLES, BASELINE)},
}
Line = str | tuple[int, tuple[int, ...]]  # as matplotlib writes it
LINES: tuple[Line, ...] = ("-", "--", "-.", (0, (6, 1, 1, 1, 1, 1)))  # of the backends of a mixer
DOTTED = ":"  # a bound, never a reading
Styles = Mapping[str, Style]


def cast(names: Iterable[str]) -> dict[str, Style]:
    """A style for each mixer of a page: by its place among all mixers or, where another has that, the next free one.

    So a mixer keeps its style on most pages, and no two on one page look alike. From the thirteenth on colours come
    again, with another marker.

    Args:
        names: of mixers, with those parameters behind them that are not the usual ones.
    """
    known = {name: i for i, name in enumerate(mixers.NAMES)}
    wanted = {name: known.get(name.partition("(")[0], len(known)) for name in names}
    styles: dict[str, Style] = {}
    taken: set[int] = set()
    for name in sorted(wanted, key=lambda name: ("(" in name, wanted[name], name)):
        free = [i for i in range(len(STYLES) ** 2) if i not in taken]
        i = min(free, key=lambda i: (i // len(STYLES), (i - wanted[name]) % len(STYLES)))
        taken.add(i)
        colour, marker = STYLES[i % len(STYLES)], STYLES[(i + i // len(STYLES)) % len(STYLES)]
        styles[name] = replace(colour, marker=marker.marker, sign=marker.sign)
    return styles
