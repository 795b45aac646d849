"""A list of the pages in a folder, each with its headline and its first picture."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path

from markupsafe import Markup

from bench.render.page import environment, write_atomically
from bench.render.styles import COLOURS

INDEX = "index.html"
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_DESCRIPTION = re.compile(r'<meta name="description" content="([^"]*)">')
_SUBTITLE = re.compile(r'<p class="subtitle">(.*?)</p>', re.DOTALL)
_PICTURE = re.compile(r"<svg .*?</svg>", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """What the list tells of one page. Texts are plain; the picture is a ``data:`` address, or empty."""

    file: str
    title: str
    subtitle: str
    description: str
    picture: str


def write_index(folder: Path) -> Path:
    """Write ``index.html`` of the pages in ``folder``.

    Raises:
        OSError: a page cannot be read, or the list not be written.
    """
    pages = sorted(path for path in folder.glob("*.html") if path.name != INDEX)
    template = environment().get_template("index.html")
    style = Markup(environment().get_template("style.css").render())
    return write_atomically(
        folder / INDEX, template.render(entries=[read_entry(path) for path in pages], colours=COLOURS, style=style)
    )


def read_entry(path: Path) -> Entry:
    """What a page says of itself."""
    text = path.read_text(encoding="utf-8", errors="replace")
    title, subtitle, description = (
        unescape(Markup(found[1]).striptags()) if (found := pattern.search(text)) else ""
        for pattern in (_TITLE, _SUBTITLE, _DESCRIPTION)
    )
    picture = found[0] if (found := _PICTURE.search(text)) else ""
    encoded = base64.b64encode(picture.encode()).decode()
    return Entry(
        path.name, title or path.stem, subtitle, description, f"data:image/svg+xml;base64,{encoded}" if picture else ""
    )
