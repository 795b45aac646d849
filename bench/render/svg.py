"""A matplotlib drawing as SVG that lives inside a page: its ids are its own, its colours are the page's,
its letters are text, and each marker says what it stands for."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.text import Text

from bench.render.blocks import Figure
from bench.render.styles import COLOURS
from bench.render.words import printable

COLUMN = 3.35  # inches, of a page with two
LARGEST = 1.5  # pixels a point, at which letters of a drawing are no smaller than the page's
SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "ftmamba",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.unicode_minus": True,
    "text.parse_math": False,
    "path.simplify": False,
}
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"font(?:-family)?:[^;]*;?")


@contextmanager
def drawing() -> Iterator[None]:
    """Settings under which every drawing is made and saved: no time stamp, no random id, no mathematics in text."""
    with mpl.rc_context(_STYLE):
        yield


def export(canvas: Canvas, kind: str) -> bytes:
    """The drawing alone as ``svg``, ``png`` or ``pdf``, for papers and slides."""
    buffer = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with drawing(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's fonts decide, not this machine's
        canvas.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()


def fit_column(canvas: Canvas) -> None:
    """Make a drawing, and all in it, as much smaller as one column of a paper is."""
    width, height = canvas.get_size_inches()
    scale = COLUMN / width
    canvas.set_size_inches(COLUMN, height * scale)
    for text in canvas.findobj(Text):
        text.set_fontsize(text.get_fontsize() * scale)
    for line in canvas.findobj(Line2D):
        line.set_linewidth(line.get_linewidth() * scale)
        line.set_markersize(line.get_markersize() * scale)
    for marks in canvas.findobj(PathCollection):
        marks.set_sizes(marks.get_sizes() * scale**2)


def inline(figure: Figure, prefix: str) -> str:
    """The drawing as an ``<svg>`` element for a page.

    Args:
        prefix: put before every id, so that two drawings on one page never share one.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(export(figure.canvas, "svg"))
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    _name_markers(root, figure.hints)
    for element in root.iter():
        _adapt(element, prefix)
        element.tail = None
        element.text = element.text and element.text.strip()
    width = float(root.attrib["width"].removesuffix("pt"))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("style", f"max-width:{LARGEST * width:.0f}px")
    root.set("role", "group" if figure.hints else "img")  # what is in a picture of role img is read to nobody
    root.set("aria-label", printable(figure.alt))
    return ElementTree.tostring(root, encoding="unicode")


def _name_markers(root: ElementTree.Element, hints: dict[str, list[str]]) -> None:
    for group in root.iter(f"{{{SVG}}}g"):
        texts = hints.get(group.get("id", ""))
        if not texts:
            continue
        for marker, text in zip(group.iter(f"{{{SVG}}}use"), texts, strict=False):
            marker.set("aria-label", printable(text))
            marker.set("class", "point")
            marker.set("role", "img")


def _adapt(element: ElementTree.Element, prefix: str) -> None:
    if "id" in element.attrib:
        element.set("id", prefix + element.attrib["id"])
    href = element.get(f"{{{XLINK}}}href")
    if href and href.startswith("#"):
        del element.attrib[f"{{{XLINK}}}href"]
        element.set("href", f"#{prefix}{href[1:]}")
    for name, value in list(element.attrib.items()):
        if name in ("style", "clip-path"):
            element.set(name, _REFERENCE.sub(rf"url(#{prefix}\1)", value))
    style = element.get("style")
    if style:
        if element.tag == f"{{{SVG}}}text":
            size = re.search(r"([\d.]+)px", style)
            style = _FONT.sub("", style).strip() + (f"; font-size: {size[1]}px" if size else "")
        for name, (light, _) in COLOURS.items():
            style = style.replace(light, f"var(--{name}, {light})")
        element.set("style", style.strip("; "))
