"""What a process waits for before its first answer: imports, and the first call with all that it loads or compiles."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from bench.analysis.cells import Variant, number, variant_of
from bench.records.record import Record


@dataclass(frozen=True)
class ColdStart:
    """Fresh processes of one run, task, variant and execution, whatever the length: the first call is a short one.

    Attributes:
        import_s: median seconds until torch and the towers are imported.
        first_call_s, longest_s: seconds of the first call in them, median and maximum: the latter compiled kernels that
            no earlier process had kept, where they are compiled at all.
        n: processes.
    """

    run: str
    task: str
    variant: Variant
    execution: str
    import_s: float
    first_call_s: float
    longest_s: float
    n: int


def cold_starts(records: Iterable[Record]) -> list[ColdStart]:
    """In the order of the records; none where nothing is known of it."""
    groups: dict[tuple[str, str, Variant, str], list[tuple[float, float]]] = defaultdict(list)
    for record in records:
        imports, call = (number(record.values.get(name)) for name in ("import_s", "first_call_s"))
        if record.status == "ok" and imports is not None and call is not None:
            cell = record.cell
            key = record.run, str(cell.get("task")), variant_of(cell), str(cell.get("execution", ""))
            groups[key].append((imports, call))
    columns = {key: tuple(zip(*pairs, strict=True)) for key, pairs in groups.items()}
    return [
        ColdStart(*key, statistics.median(imports), statistics.median(calls), max(calls), len(calls))
        for key, (imports, calls) in columns.items()
    ]
