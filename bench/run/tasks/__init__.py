"""Tasks: what a cell measures, one a file, each with its declaration ``TASK`` (see ``bench.plan.tasks``).

A task that times a step has ``prepare(tower, batch) -> step``; ``step()`` runs one iteration and returns a tensor whose
numbers tell whether it came out finite. Any other has a ``run`` of its own.
"""
