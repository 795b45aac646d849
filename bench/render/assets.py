"""Every picture of a page as SVG, PNG and PDF, every table as CSV with plain numbers and as LaTeX, for papers."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.render import svg
from bench.render.blocks import Block, Figures, Folded, Section, Table, TableCell
from bench.render.words import printable

_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--", "\N{ALMOST EQUAL TO}": r"$\approx$", "\N{INFINITY}": r"$\infty$", "\N{DAGGER}": r"\dag{}",
    "\N{MICRO SIGN}": r"\textmu{}", "\N{SUPERSCRIPT TWO}": "$^2$", "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    **{each: f"\\{each}" for each in "&%$#_{}"},
}  # fmt: skip


def write_assets(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write two files a table and three a picture into ``folder``, and say which.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for block in (block for section in sections for block in _all(section.blocks)):
        if isinstance(block, Table):
            path = folder / f"{_file_name(block.name, written)}.csv"
            with path.open("w", encoding="utf-8", errors="replace", newline="") as file:
                csv.writer(file).writerows(numbers_of(block))
            path.with_suffix(".tex").write_text(tex(block), encoding="utf-8", errors="replace")
            written += [path, path.with_suffix(".tex")]
        elif isinstance(block, Figures):
            for figure in block.figures:
                name = _file_name(figure.name, written)
                for kind in ("svg", "png", "pdf"):
                    if kind == "pdf":
                        svg.fit_column(figure.canvas)  # the others are as on the page
                    path = folder / f"{name}.{kind}"
                    path.write_bytes(svg.export(figure.canvas, kind))
                    written.append(path)
    return written


def numbers_of(table: Table) -> Iterator[list[str]]:
    """Rows of a CSV: a measured column becomes value, low, high and unit, and counts lose their separators."""
    measured = [any(row[i].unit for row in table.rows) for i in range(len(table.columns))]
    pairs = list(zip((column.name for column in table.columns), measured, strict=True))
    yield [
        name + end for name, many in pairs for end in (("", " low", " high", " unit") if many else ("",))
    ]  # fmt: skip
    for row in table.rows:
        yield [text for cell, many in zip(row, measured, strict=True) for text in _numbers(cell, many=many)]


def _numbers(cell: TableCell, *, many: bool) -> list[str]:
    if not many:
        plain = cell.text.replace(",", "").replace("\N{MINUS SIGN}", "-")
        return [plain if re.fullmatch(r"-?\d+(\.\d+)?", plain) else _words(cell.text)]
    if not cell.unit:
        return [_words(cell.text), "", "", ""]  # what it ended in
    return [*("" if x is None or math.isnan(x) else f"{x:.9g}" for x in (cell.sort, cell.low, cell.high)), cell.unit]


def tex(table: Table) -> str:
    """A table for LaTeX with the package booktabs, its caption as a comment."""
    sides = "".join("r" if column.numeric else "l" for column in table.columns)
    rows = [[column.name for column in table.columns], *([cell.text for cell in row] for row in table.rows)]
    head, *body = (" & ".join(map(_escaped, row)) + r" \\" for row in rows)
    caption = " ".join(printable(table.caption).split())
    lines = [f"% {caption}", rf"\begin{{tabular}}{{{sides}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", ""])


def _escaped(text: str) -> str:
    return "".join(_TEX.get(each, each) for each in _words(text))


def _words(text: str) -> str:
    """A text without the signs of mixers, which are of the page."""
    return " ".join("".join(each for each in printable(text) if not "\u2500" <= each <= "\u2bff").split())


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
