"""What readers of data sets ask of columns: first rows of pairs, seconds, means."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.data.dataset import Ints


def earliest(user: Ints, item: Ints, time: Ints) -> Ints:
    """Positions of the first row in time of every pair of user and item; of two at one moment the first as given."""
    order = np.argsort(time, kind="stable")
    repeated = pd.DataFrame({"user": user[order], "item": item[order]}).duplicated().to_numpy()
    return np.sort(order[~repeated]).astype(np.int64)


def seconds(times: pd.Series[pd.Timestamp]) -> Ints:
    """Seconds since 1970."""
    return np.asarray(times.to_numpy("datetime64[s]").astype(np.int64))


def mean_by_row(rows: Ints, values: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    """The mean of the values of each of ``n`` rows; missing where there are none."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.bincount(rows, weights=values, minlength=n) / np.bincount(rows, minlength=n))
