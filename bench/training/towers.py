"""A cell's two-tower model and the tables that go into it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from bench.baselines import MLP
from bench.data.dataset import TRAIN, DataSet
from bench.data.encode import fit
from bench.plan.cell import Cell
from bench.plan.tower import encoder_spec
from bench.training.column_order import in_order
from bench.training.mlp import MLPTower, MLPTwoTower
from ftmamba.columns import TableEncoder
from ftmamba.cost import encoder_params
from ftmamba.encoder import FTEncoder
from ftmamba.features import FeatureBatch
from ftmamba.rows import N_BINS
from ftmamba.two_tower import TwoTower

Model = TwoTower | MLPTwoTower


@dataclass(frozen=True)
class Encoded:
    """Both tables as tensors, all rows, in the order of the data set's rows.

    Attributes:
        user_encoder: fitted on training users.
        item_encoder: fitted on training items.
        users: on the cell's device.
        items: on the cell's device.
        user_ids: whether the users' last column is their id.
        item_ids: whether the items' last column is their id.
    """

    user_encoder: TableEncoder
    item_encoder: TableEncoder
    users: FeatureBatch
    items: FeatureBatch
    user_ids: bool
    item_ids: bool


def encode(cell: Cell, data: DataSet) -> Encoded:
    """Fit both encoders on the training rows, then encode every row once."""
    user_rows, item_rows = data.training_rows()
    ids = cell.features == "ids"
    n_bins = N_BINS if cell.numeric_tokens == "piecewise_linear" else 0
    user_encoder = fit(data.users, user_rows, ids=ids, n_bins=n_bins)
    item_encoder = fit(data.items, item_rows, ids=ids, n_bins=n_bins)
    users, items = data.positives(TRAIN)
    user_encoder = in_order(cell.column_order, user_encoder, data.users.frame, users, items)
    item_encoder = in_order(cell.column_order, item_encoder, data.items.frame, items, users)
    dtype = getattr(torch, cell.dtype)
    return Encoded(
        user_encoder,
        item_encoder,
        user_encoder.transform(data.users.frame).to(cell.device, dtype),
        item_encoder.transform(data.items.frame).to(cell.device, dtype),
        data.users.key in user_encoder.names,
        data.items.key in item_encoder.names,
    )


def build(cell: Cell, encoded: Encoded, dropout: float = 0.0) -> Model:
    """The cell's model, its weights drawn from the cell's seed."""
    torch.manual_seed(cell.seed)
    user, item = encoded.user_encoder.features, encoded.item_encoder.features
    model: Model
    if cell.get("baseline") == MLP:  # with as many parameters as Mamba's towers would have
        spec = encoder_spec(Cell(**{**cell, "mixer": "mamba", "backend": "auto"}))
        towers = (MLPTower(each, cell.d_model, encoder_params(spec, each), dropout) for each in (user, item))
        model = MLPTwoTower(*towers)
    else:
        spec = replace(encoder_spec(cell), dropout=dropout)
        model = TwoTower(FTEncoder(spec, user), FTEncoder(spec, item))
    return model.to(cell.device, getattr(torch, cell.dtype))
