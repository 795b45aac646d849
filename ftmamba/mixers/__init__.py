"""Mixers: the layers that mix tokens, one a folder; a folder here is a mixer, there is no table of them.

The folder's ``__init__`` has the mixer's spec as ``SPEC``, free of torch; a file beside it has the torch module. A
mixer of your own is the same in a package of yours, called ``package.module:Spec`` (any class derived from
``ftmamba.spec.MixerSpec``).

The torch module is built as ``Layer(spec, d_model)``, one that is ``sized`` as ``Layer(spec, d_model, n_tokens)``, with
``forward(x, read=None, lengths=None)``: x is (batch, n_tokens, d_model); with ``read`` None the result has all tokens,
with ``read`` an index it has that token alone, (batch, 1, d_model), and our mixers skip what the other tokens' outputs
would cost. With ``lengths``, (batch,), whole numbers from 1 on, row b is its first ``lengths[b]`` tokens: what stands
behind them influences nothing and gets no gradient, whatever it holds, and gives zeros; ``read`` is None or -1, each
row's own last token. A mixer that leaves ``lengths`` out takes full rows alone.
A causal mixer also has ``start``, ``step`` and ``peek``, which take one token more from a state: ``ftmamba.state``.
Peers are other libraries' layers behind the same interface.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from contextlib import suppress
from dataclasses import MISSING
from typing import TYPE_CHECKING, Any

from ftmamba.backends import Backends
from ftmamba.spec import MixerSpec

if TYPE_CHECKING:
    from torch import nn


class MixerError(ValueError):
    """A mixer that cannot be found or cannot be so; the message is one line for people."""


def _load(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # a user's module may fail in any way
        raise MixerError(
            f"cannot import {name} from {module}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error


_OURS: dict[str, type[MixerSpec]] = {
    each.name: _load(f"{__name__}.{each.name}", "SPEC") for each in pkgutil.iter_modules(__path__)
}
# Ours come first, and of these Mamba.
NAMES = tuple(sorted(_OURS, key=lambda name: (_OURS[name].is_peer(), name != "mamba", name)))


def find(name: str) -> type[MixerSpec]:
    """The spec of a mixer by its name, or by ``package.module:Spec`` where it is a user's own.

    Raises:
        MixerError: no such mixer, a module that cannot be imported, or a class that is no mixer's spec.
    """
    if name in _OURS:
        return _OURS[name]
    module, _, attribute = name.partition(":")
    if not attribute:
        raise MixerError(
            f"unknown mixer {ascii(name)[:80]}; choose from {', '.join(NAMES)}, or give your own as MODULE:SPEC"
        )
    spec = _load(module, attribute)
    if not (isinstance(spec, type) and issubclass(spec, MixerSpec)):
        raise MixerError(f"{name} is no mixer: it does not derive from ftmamba.spec.MixerSpec")
    missing = [each for each in ("backends", "layer") if not hasattr(spec, each)]
    if missing:
        raise MixerError(f"{name} is no mixer: it does not declare {' and '.join(missing)}")
    if not isinstance(spec.backends, Backends):
        raise MixerError(f"{name} is no mixer: its backends are not of ftmamba.backends.Backends")
    if spec not in _OURS.values():
        spec.name = name
    try:
        bare = [each for each, (field, _) in spec.parameters().items() if field.default is MISSING]
    except NameError as error:
        raise MixerError(f"{name} is no mixer: the type of a parameter cannot be read: {error}") from None
    if bare:
        raise MixerError(f"{name} is no mixer: its parameter {bare[0]} has no default")
    return spec


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Name and parameters of ``name:parameter=value:...``, such as ``mamba:d_state=32``.

    Raises:
        MixerError: no such mixer, no such parameter, or a value that it cannot have.
    """
    pieces = text.split(":")
    n_named = 1 if pieces[0] in _OURS else 2
    name = ":".join(pieces[:n_named])
    spec = find(name)
    known, params = spec.parameters(), {}
    for piece in pieces[n_named:]:
        key, equals, value = piece.partition("=")
        if key not in known:
            raise MixerError(f"{name} has no parameter {ascii(key)[:80]}; choose from {', '.join(known) or 'none'}")
        if not equals or key in params:
            raise MixerError(f"{ascii(text)[:80]}: give {key} once, as {key}=VALUE")
        params[key] = _read(value, known[key][1])
    try:
        spec(**params)
    except ValueError as error:
        raise MixerError(f"{name}: {error}") from None
    return name, params


def _read(text: str, kinds: tuple[type, ...]) -> Any:
    """The value that a text stands for; the text itself where it is of none of the kinds, which the spec refuses."""
    word = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if type(word) in kinds:
        return word
    for kind in (int, float):
        if kind in kinds:
            with suppress(ValueError):
                return kind(text)
    return text


def spell(name: str, params: dict[str, Any]) -> str:
    """What ``parse`` reads; parameters that have their default are left out."""
    usual = defaults(name)
    own = [f"{key}={value}" for key, value in params.items() if key not in usual or usual[key] != value]
    return ":".join([name, *own])


def defaults(name: str) -> dict[str, Any]:
    """Every parameter with its default; nothing for a mixer that cannot be found."""
    try:
        return {key: field.default for key, (field, _) in find(name).parameters().items()}
    except MixerError:
        return {}


def stepping() -> list[str]:
    """Our mixers that can take one token more, as they are typed: the causal ones."""
    found = []
    for name in NAMES:
        if not _OURS[name].is_peer() and "causal" in _OURS[name].parameters() and not _OURS[name]().causal:
            found.append(f"{name}:causal=true")
        elif not _OURS[name].is_peer() and _OURS[name]().causal:
            found.append(name)
    return found


def build_mixer(spec: MixerSpec, d_model: int, n_tokens: int = 64) -> nn.Module:
    """The module that ``spec`` describes; only one that is ``sized`` asks for the number of tokens.

    Raises:
        BackendError: its backend is unknown, or usable on no device here.
        MixerError: its layer cannot be imported.
    """
    spec.backends.usable_on(spec.backend, usable_devices())
    home = next(each.__module__ for each in type(spec).__mro__ if "layer" in vars(each))
    module, _, name = spec.layer.partition(":")
    package = sys.modules[home].__package__
    beside = f"{package}.{module}" if package else module
    size = (n_tokens,) if spec.sized else ()
    mixer: nn.Module = _load(beside if module else home, name)(spec, d_model, *size)
    return mixer


def usable_devices() -> tuple[str, ...]:
    """Device types on which a module built here may come to run."""
    import torch

    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
