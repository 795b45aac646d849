"""Targets that a user had before, and those that are new to them: two tasks, which one number hides.

Who ranks what was bought before by how often, is good at the one and says nothing on the other (Li et al., "A next
basket recommendation reality check", arXiv 2109.14233).
"""

from __future__ import annotations

from bench.metrics.ranking import Positives

REPEATED, EXPLORED = "repeated", "explored"


def parts(targets: Positives, known: Positives) -> dict[str, Positives]:
    """The targets that are among the known pairs, and the others."""
    users, items = targets.keys // targets.n_items, targets.keys % targets.n_items
    seen = known.contains(users, items)
    shape = (targets.n_users, targets.n_items)
    return {REPEATED: Positives(targets.keys[seen], *shape), EXPLORED: Positives(targets.keys[~seen], *shape)}
