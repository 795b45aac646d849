"""Every picture of a page as SVG and PNG, every table as CSV, for papers and slides."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.render import svg
from bench.render.blocks import Block, Figures, Folded, Section, Table


def write_assets(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write one file a table and two a picture into ``folder``, and say which.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for block in (block for section in sections for block in _all(section.blocks)):
        if isinstance(block, Table):
            path = folder / f"{_file_name(block.name, written)}.csv"
            with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(column.name for column in block.columns)
                writer.writerows([cell.text for cell in row] for row in block.rows)
            written.append(path)
        elif isinstance(block, Figures):
            for figure in block.figures:
                name = _file_name(figure.name, written)
                for kind in ("svg", "png"):
                    path = folder / f"{name}.{kind}"
                    path.write_bytes(svg.export(figure.canvas, kind))
                    written.append(path)
    return written


def _all(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        if isinstance(block, Folded):
            yield from _all(block.blocks)
        else:
            yield block


def _file_name(name: str, taken: Sequence[Path]) -> str:
    """A plain file name that is not taken, whatever a name may hold."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "table"
    names = {path.stem for path in taken}
    if plain not in names:
        return plain
    return next(f"{plain}-{i}" for i in range(2, len(taken) + 3) if f"{plain}-{i}" not in names)
