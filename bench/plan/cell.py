"""A cell: everything that may change a number, and nothing else. One point of a sweep."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, order=True, kw_only=True)
class Cell:
    """One point of a scaling sweep. All names are exact (``auto`` was resolved before).

    Attributes:
        task: what is measured, a name of ``bench.plan.choices.TASKS``.
        mixer: the layer that mixes tokens.
        backend: implementation of the mixer's op.
        n_tokens: sequence length L, [CLS] included.
        batch_size: rows a step.
        n_layers: blocks of the tower.
        d_model: width of a token.
        dtype: of parameters and activations, a torch name.
        execution: ``eager``, ``compile`` (torch's compiler) or ``graph`` (one CUDA graph a step).
        device: ``cpu`` or ``cuda``.
        seed: of weights and inputs.
    """

    task: str
    mixer: str
    backend: str
    n_tokens: int
    batch_size: int
    n_layers: int
    d_model: int
    dtype: str = "float32"
    execution: str = "eager"
    device: str = "cpu"
    seed: int = 0

    @property
    def id(self) -> str:
        """Readable and stable: the same cell has the same id in every run, on every machine."""
        label = f"{self.task}-{self.mixer}-{self.backend}-L{self.n_tokens}-B{self.batch_size}"
        return f"{label}-{fingerprint(asdict(self))}"


def fingerprint(fields: dict[str, object]) -> str:
    """Eight hex digits of a hash over all fields, independent of their order."""
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]
