"""Specs and fitted columns as plain data that JSON can hold, and back."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ftmamba import mixers
from ftmamba.spec import EncoderSpec, MixerSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def to_dict(spec: DataclassInstance) -> dict[str, Any]:
    """A spec or a fitted ``TableEncoder`` as names and values; a mixer has its ``name`` beside its parameters.

    Args:
        spec: an ``EncoderSpec``, a ``FeatureSpec`` or a ``TableEncoder``.

    Returns:
        Nested dictionaries of numbers, texts, tuples and None, which ``json.dumps`` takes as they are.

    Raises:
        ValueError: a mixer that its name or module does not find again, such as one that is defined in a function.

    Examples:
        >>> from ftmamba import EncoderSpec, FeatureSpec, MambaSpec, to_dict
        >>> to_dict(FeatureSpec(3, (10, 500)))
        {'n_numeric': 3, 'cardinalities': (10, 500), 'bins': (), 'order': ()}
        >>> mixer = to_dict(EncoderSpec(mixer=MambaSpec(d_state=32)))["mixer"]
        >>> mixer["name"], mixer["d_state"]
        ('mamba', 32)
    """
    data = asdict(spec)
    if isinstance(spec, EncoderSpec):
        kind = type(spec.mixer)
        own = f"{kind.__module__}:{kind.__qualname__}"
        name = next((each for each in mixers.NAMES if mixers.find(each) is kind), own)
        mixers.find(name)
        data["mixer"] = {"name": name, **data["mixer"]}
    return data


def from_dict(kind: type[T], data: Mapping[str, Any]) -> T:
    """What ``to_dict`` made plain; equal to what it was made of.

    Args:
        kind: ``EncoderSpec``, ``FeatureSpec`` or ``TableEncoder``.
        data: names and values; a name that is left out has its default. A mixer of your own is imported by its name,
            ``package.module:Spec``, so take only data that you trust.

    Raises:
        ValueError: unknown or missing names, values of a wrong type, an unknown mixer, or what ``kind`` itself refuses.

    Examples:
        >>> from ftmamba import EncoderSpec, from_dict
        >>> from_dict(EncoderSpec, {"mixer": {"name": "attention", "n_heads": 4}, "d_model": 32}).mixer.n_heads
        4
        >>> from_dict(EncoderSpec, {"mixer": {"name": "mamba"}, "d_model": "32"})
        Traceback (most recent call last):
        ValueError: EncoderSpec: d_model: '32' is not of type int
    """
    try:
        hints = get_type_hints(kind)
        return kind(**{name: _read(hints.get(name, Any), value, name) for name, value in data.items()})
    except (AttributeError, NameError, TypeError, ValueError) as error:
        raise ValueError(f"{kind.__name__}: {error}") from None


def _read(hint: Any, value: Any, name: str) -> Any:
    """``value`` as a field of type ``hint`` holds it."""
    origin, args = get_origin(hint), get_args(hint)
    if hint == MixerSpec and isinstance(value, Mapping):
        params = {key: each for key, each in value.items() if key != "name"}
        return from_dict(mixers.find(str(value.get("name"))), params)
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(hint, value)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_read(args[0], each, name) for each in value)
    if origin in (Union, UnionType):
        for each in args:
            with suppress(ValueError):
                return _read(each, value, name)
    if hint is float and type(value) is int:
        return float(value)
    if hint is Any or (origin is Literal and value in args) or type(value) is (origin or hint):
        return value
    kind = hint.__name__ if isinstance(hint, type) else str(hint).removeprefix("typing.")
    raise ValueError(f"{name}: {reprlib.repr(value)} is not of type {kind}")
