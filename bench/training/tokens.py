"""How rows become tokens, for people: the paper's first check (arXiv 2409.17165)."""

from __future__ import annotations

import torch

from bench.data.dataset import Table
from ftmamba.columns import TableEncoder
from ftmamba.tokenizer import FeatureTokenizer


@torch.inference_mode()
def token_table(
    table: Table, encoder: TableEncoder, *, d_model: int, n_rows: int, seed: int
) -> list[dict[str, str | int | float]]:
    """One entry a token, in the order in which the mixer sees them.

    Returns:
        For each: ``token`` (position), ``column``, ``kind``, ``rows`` (of its lookup table), ``examples`` (values of
        the first rows), ``norm`` (mean length of the token over these rows, fresh weights), ``spread`` (mean distance
        of these tokens from their mean: 0 means that the rows cannot be told apart by it).
    """
    torch.manual_seed(seed)
    frame = table.frame.head(n_rows)
    batch = encoder.transform(frame)
    found = FeatureTokenizer(encoder.features, d_model)(batch)
    norms = found.norm(dim=-1).mean(dim=0)
    spreads = (found - found.mean(dim=0)).norm(dim=-1).mean(dim=0)
    columns = [(name, "numeric", 0) for name in encoder.names[: len(encoder.names) - len(encoder.categorical)]]
    columns += [
        (column.name, "categorical, hashed" if column.hashed else "categorical", column.n_rows)
        for column in encoder.categorical
    ]
    columns.append(("[CLS]", "learned", 0))
    return [
        {
            "token": position,
            "column": name,
            "kind": kind,
            "rows": n,
            "examples": "; ".join(map(str, frame[name])) if name in frame else "",
            "norm": float(norms[position]),
            "spread": float(spreads[position]),
        }
        for position, (name, kind, n) in enumerate(columns)
    ]
