"""Peer: torch's own Transformer layer, norm first."""

from __future__ import annotations

from dataclasses import dataclass

from ftmamba.backends import ANY, Backend, Backends
from ftmamba.mixers.attention import HeadsSpec
from ftmamba.spec import Activation, parameter


@dataclass(frozen=True, kw_only=True)
class TorchTransformerSpec(HeadsSpec):
    """``torch.nn.TransformerEncoderLayer``, norm first."""

    ffn_activation: Activation = parameter("relu", choices=("relu",), about="of torch's layer")
    first_norm: bool = parameter(True, choices=(True,), about="torch's layer always normalises")

    name = "torch_transformer"
    about = "peer: torch.nn.TransformerEncoderLayer, norm first"
    whole_block = True
    layer = "layer:TorchTransformerBlock"
    backends = Backends(__name__, Backend(name="torch", about="torch's own Transformer layer", devices=ANY))


SPEC = TorchTransformerSpec
