"""Colours and markers. The same mixer is always drawn alike; hues stay apart for colour-blind readers
(after Okabe and Ito's palette), and a marker and a line style always say the same as the colour."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

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


STYLES = (
    Style("colour-0", "#0068a8", "#5cb3f2", "o", "●"),
    Style("colour-1", "#c24e00", "#ff9657", "s", "■"),
    Style("colour-2", "#00805a", "#3fcf9f", "^", "▲"),
    Style("colour-3", "#a3457f", "#e597c4", "D", "◆"),
    Style("colour-4", "#8a6a00", "#e3bd4d", "v", "▼"),
    Style("colour-5", "#5b5ea6", "#a9acf0", "P", "✚"),
)
BASELINE = Style("colour-baseline", "#6a7078", "#9aa3ad", "X", "✖")

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
LINES = ("-", "--", "-.", ":")


def style_of(mixer: str) -> Style:
    """The style of a mixer: by its place among all mixers, or by its name; other parameters give another one."""
    name, _, params = mixer.partition("(")
    place = mixers.NAMES.index(name) if name in mixers.NAMES else _number(name)
    return STYLES[(place + (1 + _number(params) % (len(STYLES) - 1) if params else 0)) % len(STYLES)]


def _number(text: str) -> int:
    return hashlib.sha256(text.encode(errors="replace")).digest()[0]
