"""The sidecar of a quality record: one file a cell with a row a user, for paired tests. It lies beside the records."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.records.record import Record
from bench.records.store import RunError

FOLDER = "per_user"


def per_user_path(run_folder: Path, cell_id: str) -> Path:
    return run_folder / FOLDER / f"{cell_id}.parquet"


def sidecar_of(run_folder: Path, record: Record) -> Path:
    """Where the table of a record lies; before schema 2 cells had other ids."""
    return per_user_path(run_folder, str(record.env.get("sidecar", record.cell_id)))


def write_per_user(path: Path, table: pd.DataFrame) -> None:
    """Write the table whole or not at all.

    Args:
        path: from ``per_user_path``.
        table: ``user``, ``n_positives``, ``n_before``, and a column a metric such as ``ndcg@10``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    table.to_parquet(new, index=False)
    new.replace(path)


def read_per_user(path: Path) -> pd.DataFrame:
    """The table of one cell.

    Raises:
        RunError: absent or damaged.
    """
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"cannot read {path}: {str(error).splitlines()[0]}") from None
