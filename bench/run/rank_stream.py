"""One cell of prequential quality: what its lists are worth window by window, and what its updates took."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pandas as pd
import torch

from bench.data.dataset import DataSet
from bench.data.events import DAY_S
from bench.plan.cell import Cell
from bench.run.memory import free_bytes
from bench.training.prequential import Counts, Tower, run

METRIC = "ndcg@10"


def measure(
    cell: Cell, data: DataSet, ks: Sequence[int]
) -> tuple[pd.DataFrame, dict[str, list[float]], dict[str, float | int | None]]:
    """Rank every visit after the cut, then reveal it.

    Returns:
        A row a user, means over their visits; the curve, means over the users of each window; and single values.

    Raises:
        ValueError: the data set has no histories or fewer cuts, or nothing happens after the cut.
        MemoryError: all users' states are larger than what is free.
    """
    if data.events is None:
        raise ValueError(f"{data.name} has no histories")
    if cell.cut >= len(data.events.cuts):
        raise ValueError(f"{data.name} has {len(data.events.cuts)} cuts, counted from 0; there is no cut {cell.cut}")
    start, n_items, begun = data.events.cuts[cell.cut], data.items.n_rows, time.perf_counter()
    if "mixer" in cell:
        free = torch.cuda.mem_get_info()[0] if cell.device == "cuda" else free_bytes()
        ranker: Tower | Counts = Tower(cell, data, start, free)
    else:
        ranker = Counts(cell.baseline, data.events, start, n_items)
    fitted_s = time.perf_counter() - begun
    first_rebuild_s = ranker.rebuild_s if isinstance(ranker, Tower) else 0.0
    visits = run(data.events, start, ranker, n_items, cell.update_days * DAY_S, ks)
    metrics = [name for name in visits if "@" in str(name)]
    users = visits.groupby("user")[metrics].mean()
    windows = visits.groupby(["window", "user"])[METRIC].mean().groupby("window")
    keys = data.users.frame[data.users.key].iloc[users.index].astype(str).to_numpy()
    per_user = users.assign(user=keys, n_visits=visits.groupby("user").size()).reset_index(drop=True)
    samples = {
        "window": [float(each) for each in windows.mean().index],
        f"window_{METRIC}": windows.mean().tolist(), "window_users": windows.size().astype(float).tolist(),
    }  # fmt: skip
    values: dict[str, float | int | None] = {
        **{str(name): float(users[name].mean()) for name in metrics},
        "users_evaluated": len(users), "visits": len(visits), "fit_wall_s": fitted_s,
        "stream_wall_s": time.perf_counter() - begun - fitted_s,
    }  # fmt: skip
    if isinstance(ranker, Tower):
        rebuilt = cell.states == "rebuilt" and cell.arm in ("retrained", "online")
        values |= {"learn_s": ranker.learn_s, "rebuild_s": ranker.rebuild_s - first_rebuild_s if rebuilt else 0.0}
        values["first_states_s"] = first_rebuild_s
    return per_user, samples, values
