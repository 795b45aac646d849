"""What a model is made of, as frozen data: hashable, printable, and free of torch.

Everything else (modules, analytic cost, sweep cells, reports) is derived from these.
"""

from __future__ import annotations

import functools
import math
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

from ftmamba.backends import Backends
from ftmamba.rows import EventSpec as EventSpec
from ftmamba.rows import FeatureSpec as FeatureSpec

Activation = Literal["reglu", "relu"]


class Part(NamedTuple):
    """Forward work of one region of a block, of one row; counts of numbers, not of bytes.

    Attributes:
        flops: floating-point operations, a multiply-add counts as two.
        exps: exponentials among them.
        inputs: numbers read, parameters apart.
        outputs: numbers written.
        params: trainable numbers, of all rows together.
        live: numbers that a block of which all tokens are read keeps for its backward pass.
    """

    flops: int = 0
    exps: int = 0
    inputs: int = 0
    outputs: int = 0
    params: int = 0
    live: int = 0


def linear(d_in: int, *outputs: tuple[int, int], bias: bool = False, live: int = 0) -> Part:
    """A linear layer from ``d_in`` numbers a token to each of the (tokens, width) in ``outputs``."""
    return Part(
        flops=sum(2 * n * d_in * width for n, width in outputs),
        inputs=max(n for n, _ in outputs) * d_in,
        outputs=sum(n * width for n, width in outputs),
        params=(d_in + bias) * sum(width for _, width in outputs),
        live=live,
    )


def causal_filter(width: int, d_conv: int, n_tokens: int, *, live: int | None = None) -> Part:
    """A causal depthwise convolution of ``d_conv`` taps; unless told otherwise it keeps what it gives."""
    numbers = n_tokens * width
    return Part(2 * numbers * d_conv, 0, numbers, numbers, width * (d_conv + 1), numbers if live is None else live)


def feed_forward(d_model: int, d_hidden: int, activation: Activation, n_tokens: int) -> Part:
    """Two linear layers with biases, the first of two halves for ``reglu``."""
    halves = 2 if activation == "reglu" else 1
    return Part(
        flops=2 * (halves + 1) * n_tokens * d_hidden * d_model,
        inputs=n_tokens * d_model,
        outputs=n_tokens * d_model,
        params=halves * d_hidden * (d_model + 1) + (d_hidden + 1) * d_model,
    )


_FREE = {"low": -math.inf, "high": math.inf, "choices": ()}


def parameter(default: Any, **rule: Any) -> Any:
    """A field of a mixer's spec.

    Args:
        default: its value where none is given.
        rule: bounds ``low`` and ``high`` (included) or ``choices``, and ``about``, its meaning in one line.
    """
    return field(default=default, metadata=rule)


@dataclass(frozen=True, kw_only=True)
class MixerSpec:
    """Base of every mixer's spec: what the mixer declares, and its parameters as dataclass fields.

    A subclass is a frozen dataclass whose fields are made by ``parameter`` and whose class attributes declare the
    rest; importing it must not import torch.

    Attributes:
        backend: exact backend name, or ``auto``.
        name: what the user types.
        about: one line for people.
        causal: whether a token sees earlier tokens alone.
        backends: what ``backend`` chooses from.
        layer: ``MODULE:CLASS`` of the torch module, MODULE beside the spec's own (or empty: in it); see
            ``ftmamba.mixers``.
        peer_of: name of the mixer whose layer it computes with the same weights; empty for our own.
        whole_block: whether the layer is a whole block with its norms, residuals and feed-forward layer.
        head_ffn: whether the head has a residual feed-forward layer, since the blocks have none.
        post_norm: whether a block normalises each sum, not each layer's input.
        sized: whether its weights belong to a number of tokens, which its layer then takes as its third argument.

    Raises:
        ValueError: a parameter's value that it cannot have.
    """

    backend: str = "auto"

    name: ClassVar[str]
    about: ClassVar[str] = ""
    causal: ClassVar[bool] = False
    backends: ClassVar[Backends]
    layer: ClassVar[str]
    peer_of: ClassVar[str] = ""
    whole_block: ClassVar[bool] = False
    head_ffn: ClassVar[bool] = False
    post_norm: ClassVar[bool] = False
    sized: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for each, kinds in self.parameters().values():
            value, rule = getattr(self, each.name), {**_FREE, **each.metadata}
            low, high, choices = rule["low"], rule["high"], rule["choices"]
            fits = type(value) in kinds or (type(value) is int and float in kinds)
            in_bounds = type(value) not in (int, float) or low <= value <= high
            if not fits or not in_bounds or (choices and value not in choices):
                takes = " or ".join(map(str, choices or (_WORDS.get(kind, kind.__name__) for kind in kinds)))
                bounds = f" from {low:,} to {high:,}" if {int, float} & {*kinds} else ""
                raise ValueError(f"{each.name} takes {takes}{bounds}, got {ascii(value)[:80]}")

    @classmethod
    def is_peer(cls) -> bool:
        """Whether it is another library's layer, whose insides are its own."""
        return bool(cls.peer_of) or cls.whole_block

    @classmethod
    @functools.cache
    def parameters(cls) -> dict[str, tuple[Field[Any], tuple[type, ...]]]:
        """Every field but ``backend`` with the types that it can have, by name."""
        hints = get_type_hints(cls)
        return {f.name: (f, _kinds(hints[f.name])) for f in fields(cls) if f.name != "backend"}

    def check(self, d_model: int) -> None:
        """Raise ValueError where the mixer cannot have this width."""

    @classmethod
    def best(cls, d_model: int, device: str) -> dict[str, Any]:
        """Parameters, of the same cost, with which the mixer is fastest on a device (``cpu``, ``cuda``)."""
        return {}

    def at(self, layer: int, tower: EncoderSpec) -> MixerSpec:
        """The mixer of one layer of a tower, where layers differ; ValueError where it cannot be in this tower."""
        return self

    def period(self) -> int:
        """Layers after which the mixers of a tower repeat."""
        return 1

    def ffn(self, d_model: int) -> tuple[int, Activation] | None:
        """Hidden width and activation of a block's feed-forward layer; None where it has none."""
        return None

    def normed(self, first: bool) -> bool:
        """Whether a block normalises its input."""
        return True

    def state_bytes(self, d_model: int, n_tokens: int, itemsize: int = 4) -> int | None:
        """Bytes of a layer's state of one row after so many tokens; None where it keeps none."""
        return None

    def parts(self, d_model: int, n_tokens: int, n_read: int, *, first: bool) -> dict[str, Part] | None:
        """Work of a block by region, in the names of ``bench.records.region``; None where there is no model of it.

        Args:
            d_model: width of a token.
            n_tokens: tokens that go in.
            n_read: tokens that come out.
            first: whether it is the first block.
        """
        return None


_WORDS = {int: "whole numbers", float: "numbers", bool: "true or false", str: "names", type(None): "none"}


def _kinds(hint: Any) -> tuple[type, ...]:
    """The types of a hint such as ``int | None`` or ``Literal["a", "b"]``."""
    if get_origin(hint) is Literal:
        return tuple({type(each): None for each in get_args(hint)})
    return get_args(hint) or (hint,)


NumericTokens = Literal["linear", "periodic", "piecewise_linear"]


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """One tower: tokenizer, blocks, readout, head.

    Attributes:
        mixer: the layer that mixes tokens, with its own settings.
        d_model: width of a token.
        n_layers: count of blocks.
        d_out: width of the tower's output; None means d_model.
        cls_position: where [CLS] stands; a causal mixer needs ``last``.
        last_layer: ``readout`` computes only the token that is read in the last block, ``full`` computes all tokens.
        readout: what the head gets: the token of [CLS], or, without a [CLS] among the tokens, their mean, the last one
            of them, or their mean weighted by how well each meets a learned query.
        numeric_tokens: how a number becomes a token (arXiv 2203.05556); see ``FeatureTokenizer``.
        dropout: share of the mixer's and of the feed-forward layer's output that each block sets to 0 in training.

    Raises:
        ValueError: settings that cannot be, alone or together.

    Examples:
        >>> from ftmamba import EncoderSpec, MambaSpec
        >>> EncoderSpec(mixer=MambaSpec(), d_model=128).output_width
        128
        >>> EncoderSpec(mixer=MambaSpec(), cls_position="first")
        Traceback (most recent call last):
        ValueError: mamba is causal: a [CLS] that stands first sees no feature; it has to stand last
    """

    mixer: MixerSpec
    d_model: int = 64
    n_layers: int = 4
    d_out: int | None = None
    cls_position: Literal["first", "last"] = "last"
    last_layer: Literal["readout", "full"] = "readout"
    readout: Literal["cls", "mean", "last_token", "attention_pooling"] = "cls"
    numeric_tokens: NumericTokens = "linear"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.d_model < 1 or self.n_layers < 1:
            raise ValueError(f"d_model and n_layers must be positive, got {self.d_model} and {self.n_layers}")
        for layer in range(self.n_layers):
            self.mixer_of(layer).check(self.d_model)
        if self.readout != "cls" and self.cls_position == "first":
            raise ValueError(f"there is no [CLS] to stand first where the readout is {self.readout}")
        if self.mixer.causal and self.cls_position == "first":
            raise ValueError(
                f"{self.mixer.name} is causal: a [CLS] that stands first sees no feature; it has to stand last"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a share from 0 to below 1, got {self.dropout}")
        if self.dropout and self.mixer.whole_block:
            raise ValueError(f"{self.mixer.name} is a whole block of another library, which takes no dropout here")

    def mixer_of(self, layer: int) -> MixerSpec:
        """The mixer of one layer, counted from 0."""
        return self.mixer.at(layer, self)

    def n_tokens(self, features: FeatureSpec) -> int:
        """Tokens that the blocks get of a row."""
        return features.n_columns + (self.readout == "cls")

    @property
    def reads_one(self) -> bool:
        """Whether the head gets one of the tokens, not all of them pooled."""
        return self.readout in ("cls", "last_token")

    def state_bytes(self, n_tokens: int, itemsize: int = 4) -> int | None:
        """Bytes of one user's state after so many tokens, static columns among them; None where a layer keeps none.

        Examples:
            >>> from ftmamba import AttentionSpec, EncoderSpec, MambaSpec
            >>> [EncoderSpec(mixer=MambaSpec()).state_bytes(n) for n in (10, 10_000)]
            [38928, 38928]
            >>> EncoderSpec(mixer=AttentionSpec(causal=True)).state_bytes(19)
            38960
        """
        layers = [self.mixer_of(layer).state_bytes(self.d_model, n_tokens, itemsize) for layer in range(self.n_layers)]
        counted = [each for each in layers if each is not None]
        return sum(counted) + 2 * 8 if len(counted) == len(layers) else None  # the time and the number of events

    @property
    def output_width(self) -> int:
        return self.d_model if self.d_out is None else self.d_out

    @property
    def head_width(self) -> int:
        """Hidden width of the head's feed-forward layer; 0 where it has none."""
        return int(self.d_model * 4 / 3) if self.mixer.head_ffn else 0
