"""Mixers: the layers that mix tokens, one a file.

A mixer is a module built as ``Mixer(spec, d_model)`` with ``forward(x, read=None)``: x is (batch, n_tokens, d_model);
with ``read`` None the result has all tokens, with ``read`` an index it has that token alone, (batch, 1, d_model), and
our mixers skip what the other tokens' outputs would cost. Peers are other libraries' layers behind the same interface.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ftmamba.backends import Backend, Backends
from ftmamba.ops import attention, selective_scan
from ftmamba.spec import (
    AttentionSpec,
    HFMambaSpec,
    MambaPySpec,
    MambaSpec,
    MambaSSMSpec,
    MixerSpec,
    TorchTransformerSpec,
)

if TYPE_CHECKING:
    from torch import nn

_ANY = ("cpu", "cuda")
_PEERS = "pip install 'ftmamba[peers]'"
_CUDA = "pip install 'ftmamba[cuda]'"

# What a mixer's ``backend`` chooses from: the backends of its op, or the settings of a peer's layer.
BACKENDS_OF: dict[str, Backends] = {
    MambaSpec.name: selective_scan.BACKENDS,
    AttentionSpec.name: attention.BACKENDS,
    MambaPySpec.name: Backends(
        f"{__name__}.mambapy",
        Backend(name="pscan", about="parallel scan", devices=_ANY, packages=("mambapy",), install=_PEERS),
        Backend(name="sequential", about="loop over tokens", devices=_ANY, packages=("mambapy",), install=_PEERS),
    ),
    HFMambaSpec.name: Backends(
        f"{__name__}.hf_mamba",
        Backend(name="sequential", about="loop over tokens", devices=_ANY, packages=("transformers",), install=_PEERS),
        Backend(
            name="mambapy",
            about="the scan of mamba.py",
            devices=_ANY,
            packages=("transformers", "mambapy"),
            install=_PEERS,
        ),
    ),
    MambaSSMSpec.name: Backends(
        f"{__name__}.mamba_ssm",
        Backend(name="fused", about="one fused function", devices=("cuda",), packages=("mamba_ssm",), install=_CUDA),
        Backend(name="unfused", about="scan kernel alone", devices=("cuda",), packages=("mamba_ssm",), install=_CUDA),
    ),
    TorchTransformerSpec.name: Backends(
        f"{__name__}.torch_transformer",
        Backend(name="torch", about="torch's own Transformer layer", devices=_ANY),
    ),
}

_MODULES = {
    MambaSpec.name: ("mamba", "MambaMixer"),
    AttentionSpec.name: ("attention", "AttentionMixer"),
    MambaPySpec.name: ("mambapy", "MambaPyMixer"),
    HFMambaSpec.name: ("hf_mamba", "HFMambaMixer"),
    MambaSSMSpec.name: ("mamba_ssm", "MambaSSMMixer"),
    TorchTransformerSpec.name: ("torch_transformer", "TorchTransformerBlock"),
}


def build_mixer(spec: MixerSpec, d_model: int) -> nn.Module:
    """The module that ``spec`` describes.

    Raises:
        BackendError: its backend is unknown, or usable on no device here.
    """
    BACKENDS_OF[spec.name].usable_on(spec.backend, usable_devices())
    module, name = _MODULES[spec.name]
    mixer: nn.Module = getattr(importlib.import_module(f"{__name__}.{module}"), name)(spec, d_model)
    return mixer


def usable_devices() -> tuple[str, ...]:
    """Device types on which a module built here may come to run."""
    import torch

    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


NAMES = tuple(BACKENDS_OF)
_SPECS = {spec.name: spec for spec in (MambaSpec, AttentionSpec, MambaPySpec, HFMambaSpec, MambaSSMSpec, TorchTransformerSpec)}
for _name, _spec in _SPECS.items():
    _spec.backends = BACKENDS_OF[_name]
    _spec.peer_of = {"mambapy": "mamba", "hf_mamba": "mamba", "mamba_ssm": "mamba"}.get(_name, "")
    _spec.is_peer = classmethod(lambda cls: bool(cls.peer_of) or cls.name == "torch_transformer")


def find(name):
    if name not in _SPECS:
        raise ValueError(f"unknown mixer {name!r}; choose from {', '.join(NAMES)}")
    return _SPECS[name]


def parse(text):
    name, *rest = text.split(":")
    import ast
    find(name)
    params = {k: ast.literal_eval(v) for k, _, v in (r.partition("=") for r in rest)}
    for key in params:
        if key not in defaults(name):
            raise ValueError(f"{name} has no parameter {key!r}; choose from {', '.join(defaults(name))}")
    return name, params


def spell(name, params):
    own = {k: v for k, v in params.items() if defaults(name).get(k) != v}
    return ":".join([name, *(f"{k}={v}" for k, v in own.items())])


def defaults(name):
    from dataclasses import fields
    return {f.name: f.default for f in fields(_SPECS[name]) if f.name != "backend"} if name in _SPECS else {}
