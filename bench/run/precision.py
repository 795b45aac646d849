"""How precisely a cell's float32 products are computed, set anew for each cell: processes may be shared."""

from __future__ import annotations

import torch
from torch import nn

from bench.plan.cell import Cell


def set_precision(cell: Cell) -> None:
    """TF32 for the cell's products and convolutions, or none; torch's default is TF32 for convolutions alone."""
    tf32 = cell.get("precision") == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


def compute_as(cell: Cell, tower: nn.Module) -> None:
    """Let a float32 tower compute as the cell says; its weights, gradients and moments stay float32."""
    set_precision(cell)
    if cell.get("precision") == "autocast":
        tower.forward = torch.autocast(cell.device, torch.bfloat16)(tower.forward)
