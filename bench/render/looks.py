"""Colours and markers. The same mixer always looks the same; hues stay apart for colour-blind readers
(after Okabe and Ito's palette), and a marker and a line style always say the same as the colour."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How one mixer is drawn.

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


LOOKS = (
    Look("look-0", "#0068a8", "#5cb3f2", "o", "●"),
    Look("look-1", "#c24e00", "#ff9657", "s", "■"),
    Look("look-2", "#00805a", "#3fcf9f", "^", "▲"),
    Look("look-3", "#a3457f", "#e597c4", "D", "◆"),
    Look("look-4", "#8a6a00", "#e3bd4d", "v", "▼"),
    Look("look-5", "#5b5ea6", "#a9acf0", "P", "✚"),
)
BASELINE = Look("look-baseline", "#6a7078", "#9aa3ad", "X", "✖")
_KNOWN: Mapping[str, Look] = {
    **dict(zip(("mamba", "attention", "mamba2", "performer", "longformer"), LOOKS, strict=False)),
    "random": BASELINE,
    "popularity": BASELINE,
}

# Colours of a drawing that are not a mixer's: its ink, its rules. The page swaps them for its own.
INK = "#1f2328"
FAINT = "#656d76"
RULE = "#d0d7de"
COLOURS = {
    "ink": (INK, "#e6e9ed"),
    "faint": (FAINT, "#9aa4af"),
    "rule": (RULE, "#39414a"),
    **{look.name: (look.light, look.dark) for look in (*LOOKS, BASELINE)},
}
LINES = ("-", "--", "-.", ":")


def look(mixer: object) -> Look:
    """The look of a mixer; a name not met before gets one that depends on nothing but the name."""
    name = str(mixer)
    if name in _KNOWN:
        return _KNOWN[name]
    free = LOOKS[len(_KNOWN) - 2 :] or LOOKS
    return free[hashlib.sha256(name.encode(errors="replace")).digest()[0] % len(free)]
