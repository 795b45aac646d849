"""What was run, on what: machine, software, threads, code, times, as the run itself wrote them down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.analysis.cells import MEMORY, number
from bench.analysis.load import load_of
from bench.records.store import Run
from bench.render import words
from bench.render.blocks import Block, Facts, Folded, Prose, Section
from bench.render.findings import Findings

RATES = {"flops_per_s": "GFLOP/s", "bytes_per_s": "GB/s", "exps_per_s": "G exponentials/s"}
LEFT_OUT = ("argv", "schema", "name", "sessions")  # shown elsewhere, or of no use to a reader
ORDER = 120


def build(findings: Findings) -> Section | None:
    blocks: list[Block] = []
    for run in findings.runs:
        own: list[Block] = [*_load(run), *_facts(run)]
        blocks += own if len(findings.runs) == 1 or not own else [Folded(run.name, own)]
    return Section("environment", "What was run, on what", blocks) if blocks else None


def _facts(run: Run) -> Iterator[Facts]:
    """One list for the run itself, and one for each group of facts in its ``run.json``."""
    meta = {key: value for key, value in run.meta.items() if key not in LEFT_OUT}
    groups = {key: value for key, value in meta.items() if isinstance(value, Mapping) and key != "git"}
    yield Facts("Run", list(flatten({key: value for key, value in meta.items() if key not in groups})))
    for key, value in groups.items():
        pairs = list(flatten(value))
        if pairs:
            yield Facts({"spec": "Settings"}.get(key, key.replace("_", " ").capitalize()), pairs)
    settings: dict[str, dict[str, None]] = {}
    for record in run.records:
        precision = record.env.get("precision")
        for name, text in flatten(precision) if isinstance(precision, Mapping) else ():
            settings.setdefault(name, {})[text] = None
    if settings:
        yield Facts("Precision, as cells found it", [(name, " or ".join(texts)) for name, texts in settings.items()])


def _load(run: Run) -> Iterator[Prose]:
    """How busy the machine was with other work while cells ran."""
    load = load_of(run.records)
    if load:
        most = f"median; at most {load.most_cores:.2f}"
        harness = f", the harness {load.overhead_s:.1f} s a cell beside what is measured" if load.overhead_s else ""
        yield Prose(f"While cells ran, other work took {load.typical_cores:.2f} processor cores ({most}){harness}.")
    slowed = sum(bool(record.values.get("throttled_fraction")) for record in run.records)
    if slowed:
        yield Prose(
            f"{slowed} records were throttled (heat, power or a CPU quota) while timed: their times are too long."
        )


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested data as pairs of a name in words and a text."""
    for key, each in value.items():
        name = f"{prefix}{key}"
        if isinstance(each, Mapping):
            yield from flatten(each, f"{name} ")
        elif isinstance(each, list) and any(isinstance(item, Mapping) for item in each):
            for i, item in enumerate(each):
                yield from flatten(item if isinstance(item, Mapping) else {"": item}, f"{name} {i} ")
        else:
            kind, _, size = name.partition(":")
            name = f"{kind}, of {words.quantity(float(size), MEMORY)}" if size.isdecimal() else name
            yield name.removesuffix("_bytes").replace("_per_s", "").replace("_", " "), _text(key, each)


def _text(key: str, value: Any) -> str:
    if value is None or value == [] or value == "":
        return words.NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    if str(key).endswith("_bytes") and number(value) is not None:
        return words.quantity(float(value), MEMORY)
    unit = next((unit for rate, unit in RATES.items() if rate in str(key)), "")
    if unit and number(value) is not None:
        return f"{words.significant(value / 1e9)} {unit}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
