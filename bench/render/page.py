"""Runs become one self-contained HTML page: no network, no outside font, script or picture."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.analysis.profile import profiles_of
from bench.records.store import Run
from bench.render import svg, words
from bench.render.blocks import Figure, Section
from bench.render.findings import Findings
from bench.render.sections import in_order
from bench.render.sections.answer import ranking_sentences, sentences
from bench.render.styles import COLOURS
from ftmamba import mixers

# A name or a reason may be of any length; a reader needs no more of it than this. Sentences of ours may be longer.
MOST_CHARACTERS = 600
LONGEST_TEXT = 8000
MOST_TABLE_CELLS = 10_000  # of one table
_POWER = re.compile(rf"L\^({words.MINUS}?\d+(?:\.\d+)?)")
_SQUARE = re.compile(r"(L|token)\^2")


def write_report(runs: Sequence[Run], path: Path) -> Path:
    """Write the page of ``runs`` to ``path``, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(path, render(Findings.of(runs)))


def render(findings: Findings) -> str:
    """The page as text: the same findings give the same bytes."""
    return document(title(findings), subtitle(findings), summary_line(findings), sections(findings))


def document(heading: str, below: str, description: str, parts: Sequence[Section]) -> str:
    """Any sections as a page: its title, the line below that, and the answer in a line."""
    templates = environment()
    script = templates.get_template("script.js").render()
    return templates.get_template("page.html").render(
        title=heading, subtitle=below, description=description, sections=parts, colours=COLOURS,
        style=Markup(templates.get_template("style.css").render()), script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


def sections(findings: Findings, *, terminal: bool = False) -> list[Section]:
    """Those sections that have data, in reading order; all of them, or those that a terminal shows."""
    wanted = (each for each in in_order() if not terminal or getattr(each, "TERMINAL", False))
    return [section for each in wanted if (section := each.build(findings))]


def title(findings: Findings) -> str:
    """The question that the page answers."""
    named = {str(cell.cell.get("mixer", "?")) for cell in findings.summary.cells}
    named |= {model.name for model in findings.quality.models if model.trained}
    profiled = {str(profile.cell.get("mixer", "?")) for profile in profiles_of(findings.runs)}
    known = {name: i for i, name in enumerate(mixers.NAMES)}
    names = sorted(named or profiled, key=lambda name: (name not in known, known.get(name, 0), name))
    if not names and findings.histories:
        return "How long a history?"
    if not names:
        return "What must a model beat?" if findings.quality.models else "Results"
    if not named:
        return f"Where does a step of {' and of '.join(names)} spend its time?"
    if len(names) < 2:
        return f"What does {names[0]} cost?"
    if len(names) > 2 * words.MOST_NAMED:
        return f"Which of {len(names)} mixers?"
    return f"{', '.join(names[:-1])} or {names[-1]}?".capitalize()


def subtitle(findings: Findings) -> str:
    """Which runs, when, on what."""
    parts = []
    for run in findings.runs:
        machine = run.meta.get("machine")
        started = str(run.meta.get("started_at") or "")[:10]
        parts.append(", ".join(part for part in (run.name, started, _machine(machine, findings)) if part))
    return "; ".join(parts)


def summary_line(findings: Findings) -> str:
    """The answer in a line, for lists of reports."""
    first = next(iter(findings.settings.values()), [])
    return " ".join([*sentences(findings, first), *ranking_sentences(findings.quality)]) or title(findings)


def write_atomically(path: Path, text: str) -> Path:
    """A reader of ``path`` sees the old text or the new one, never a part."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _machine(machine: object, findings: Findings) -> str:
    if not isinstance(machine, dict):
        return ""
    devices = [cell.cell.get("device") for cell in findings.summary.cells]
    gpus = machine.get("gpus")
    if "cuda" in devices and isinstance(gpus, list) and gpus and isinstance(gpus[0], dict):
        return str(gpus[0].get("name", ""))
    cpu = machine.get("cpu")
    if not isinstance(cpu, dict):
        return ""
    cores = cpu.get("usable_cores") or cpu.get("cores")
    return f"{cpu.get('model', 'CPU')}" + (f", {words.count(cores, 'core')}" if cores else "")


def environment() -> Environment:
    """The templates, with all that they call."""
    found = Environment(
        loader=PackageLoader("bench.render"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    counter = iter(range(10**9))

    def inline(figure: Figure) -> Markup:
        return Markup(svg.inline(figure, f"f{next(counter)}-"))

    found.filters.update(inline=inline, shown=_shown)
    found.globals.update(most_table_cells=MOST_TABLE_CELLS, most_characters=MOST_CHARACTERS)
    return found


def _shown(text: object, most: int = LONGEST_TEXT) -> Markup:
    """Text for the page: cut where endless, without what HTML cannot hold, powers raised."""
    raw = words.printable(str(text))
    if len(raw) > most:
        raw = f"{raw[:most]}… ({len(raw):,} characters)"
    safe = str(escape(raw))
    if "^" not in safe:
        return Markup(safe)
    return Markup(_SQUARE.sub(r"\1<sup>2</sup>", _POWER.sub(r"L<sup>\1</sup>", safe)))
