"""Twelve mixers that can be told apart, also by the colour-blind, and colours that can be read."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.render.styles import BASELINE, COLOURS, STYLES, cast
from ftmamba import mixers

Floats = NDArray[np.float64]
PAGES = {"light": "#ffffff", "dark": "#14181d"}
# Machado, Oliveira, Fernandes (IEEE TVCG 2009): what is seen without one kind of cone; and the least OKLab distance.
SIGHT = {
    "all": (np.eye(3), 0.08),
    "no red": (
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        0.05,
    ),
    "no green": (
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        0.05,
    ),
}


def srgb(colour: str) -> Floats:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def linear(colour: Floats) -> Floats:
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def contrast(one: Floats, other: Floats) -> float:
    """WCAG 2.2's ratio."""
    low, high = sorted(float(linear(each) @ [0.2126, 0.7152, 0.0722]) for each in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(light: Floats) -> Floats:
    """Ottosson 2020."""
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
             [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    axes = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.asarray(axes) @ np.cbrt(np.asarray(cones) @ light)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("style", [*STYLES, BASELINE], ids=lambda style: style.name)
def test_marks_and_text_can_be_read(style, page):
    colour, paper = srgb(getattr(style, page)), srgb(PAGES[page])
    ink = srgb(COLOURS["ink"][0 if page == "light" else 1])
    assert contrast(colour, paper) >= 3
    tint, text = 0.14 * colour + 0.86 * paper, 0.6 * colour + 0.4 * ink  # as the page's style sheet mixes them
    assert contrast(text, tint) >= 4.5


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("page", PAGES)
def test_no_two_colours_look_alike(page, sight):
    matrix, least = SIGHT[sight]
    seen = [oklab(np.clip(np.asarray(matrix) @ linear(srgb(getattr(style, page))), 0, 1)) for style in STYLES]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= least


def test_each_has_a_marker_of_its_own():
    assert len(STYLES) == 12
    assert len({style.marker for style in (*STYLES, BASELINE)}) == len({s.sign for s in (*STYLES, BASELINE)}) == 13


def test_twelve_of_a_page_never_share_a_colour_whatever_they_are():
    rng = np.random.default_rng(0)
    names = [*mixers.NAMES, *(f"attention(n_heads={n})" for n in (1, 2, 4)), "mamba(d_state=32)", "a.b:C"]
    for _ in range(200):
        chosen = [str(name) for name in rng.permutation(names)[:12]]
        styles = cast(chosen)
        assert [*sorted(styles)] == sorted(chosen)
        assert len({style.name for style in styles.values()}) == 12
        assert styles == cast(reversed(chosen))
    assert len({(style.light, style.marker) for style in cast(names).values()}) == len(names) > 12


def test_a_mixer_keeps_its_style_where_it_can():
    assert cast(["mamba", "attention"])["attention"] == cast(["attention"])["attention"] == STYLES[1]
    assert cast(["mamba"])["mamba"] == cast(mixers.NAMES)["mamba"] == STYLES[0]
