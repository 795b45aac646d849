"""Data sets: one file each; each holds an ``ADAPTER`` that fetches, checks and reads it.

The names are listed without importing anything heavy, so that a command can answer a typo at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.data.dataset import Adapter

DATASETS: dict[str, str] = {
    "movielens-100k": "movielens_100k",
    "movielens-1m": "movielens_1m",
    "complete-journey": "complete_journey",
    "spotify": "spotify",
    "coupon": "coupon",
    "restaurant": "restaurant",
    "hm": "hm",
    "amazon-reviews": "amazon_reviews",
    "vaccine": "vaccine",
    "synthetic": "synthetic",
    "planted": "planted",
    "kuairand": "kuairand",
    "lfm-1b": "lfm_1b",
    "yambda": "yambda",
}

# How the tables in a folder of your own are written: csv:FOLDER.
OWN = ("csv", "parquet", "recbole")


def adapter(name: str) -> Adapter:
    """The data set's adapter. What follows a colon in the name are its settings, or the folder of your own tables.

    Raises:
        DataError: unknown name or settings; the message lists the valid ones.
    """
    from bench.data.files import DataError

    base, colon, settings = name.partition(":")
    if base in OWN:
        from bench.data.own import adapter_of

        return adapter_of(base, settings)
    if base not in DATASETS:
        own = ", ".join(f"{each}:FOLDER" for each in OWN)
        raise DataError(f"unknown data set {ascii(name)[:80]}; choose from {', '.join(DATASETS)}, {own}")
    module = importlib.import_module(f"bench.data.{DATASETS[base]}")
    if not colon:
        return module.ADAPTER  # type: ignore[no-any-return]
    if not hasattr(module, "adapter_of"):
        raise DataError(f"{base} takes no settings, got {ascii(settings)[:80]}")
    return module.adapter_of(settings)  # type: ignore[no-any-return]
