"""Tasks: what one iteration does, one a file.

A task's module has ``prepare(tower, batch) -> step``; ``step()`` runs one iteration and returns a tensor whose numbers
tell whether it came out finite. The names are in ``bench.plan.choices.TASKS``.
"""

from __future__ import annotations
