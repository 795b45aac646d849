"""What a process waits for before its first answer: imports, and the first call with all that it loads or compiles."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from bench.analysis.cells import Variant, number, variant_of
from bench.records.record import Record


@dataclass(frozen=True, kw_only=True)
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
        seconds = number(record.values.get("import_s")), number(record.values.get("first_call_s"))
        if record.status == "ok" and seconds[0] is not None and seconds[1] is not None:
            execution = str(record.cell.get("execution", ""))
            key = record.run, str(record.cell.get("task")), variant_of(record.cell), execution
            groups[key].append((seconds[0], seconds[1]))
    found = []
    for (run, task, variant, execution), pairs in groups.items():
        imports, calls = zip(*pairs, strict=True)
        found.append(
            ColdStart(
                run=run,
                task=task,
                variant=variant,
                execution=execution,
                import_s=statistics.median(imports),
                first_call_s=statistics.median(calls),
                longest_s=max(calls),
                n=len(pairs),
            )
        )
    return found
