"""One event of some users through a whole tower that keeps states, on the CPU: token, layers, head in one kernel.

What the tower's modules do op by op (``ftmamba.stream``) is a few microseconds of work, and nearly all of their time
goes into starting ops. The kernel knows Mamba-1 and causal attention with a cache, and computes in float32. Here are
its weights as it reads them, and the call.
"""

from __future__ import annotations

import operator
from array import array
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmamba.ops.cpu import kernel
from ftmamba.ops.simd import CHANNELS, STATES
from ftmamba.threads import get_threads
from ftmamba.tower_step import numba_kernels as kernels

if TYPE_CHECKING:
    from ftmamba.history import HistoryBatch, HistoryEncoder

    Fields = dict[str, Tensor | int]

_step = kernel(kernels.step, kernels.STEP)
_version = operator.attrgetter("_version")
_AT = {name: i for i, name in enumerate(kernels.STEP)}
_LAYER = {name: i for i, name in enumerate(kernels.LAYER)}
_N, _FIRST_LAYER, _N_OWN = len(kernels.LAYER), len(kernels.STEP) + 2, _AT["pool"]
# A thread more costs a start, which is worth so many users' work, or keys that they have room for.
WORTH_USERS, WORTH_KEYS = 4, 1024


class TowerStep:
    """A tower's weights in the kernel's order, and calls with them.

    Args:
        tower: of histories, float32 on the CPU, of blocks whose mixers give their weights as ``packed()``.

    Raises:
        ValueError: a tower of which the kernel does not know a part.
    """

    def __init__(self, tower: HistoryEncoder) -> None:
        parameters = list(tower.parameters())
        self._cls = tower.cls if tower.static is None else tower.static.cls
        d_model, self._d_out = tower.spec.d_model, tower.spec.output_width
        if d_model % CHANNELS or any(
            not each.is_cpu or each.dtype != torch.float32 or each.is_inference() for each in parameters
        ):
            raise ValueError(f"float32 on a CPU and a width that is a multiple of {CHANNELS} are taken")
        layers = [_block(block) for block in tower.blocks]
        self._sizes = [_sizes(each) for each in layers]
        layers.append(_head(tower.head))
        widths = [each[name] for each in layers for name in _LAYER if name.endswith("width") and name in each]
        width = max(d_model, *widths, *(2 * each.get("hidden", 0) for each in layers))
        attention = [kernels.attention_floats(d_model, each["n_heads"]) for each in layers if "n_heads" in each]
        self._user_floats, self._thread_floats = kernels.BUFFERS * width, max(attention, default=0)
        token = _tokenizer(tower.tokenizer)
        self._n_numeric, self._n_categorical = token["n_numeric"], token["n_categorical"]
        self._kept: list[Tensor] = []
        self._values = array("q", bytes(8 * (_FIRST_LAYER + _N * len(layers))))
        fixed = {"d_model": d_model, "n_layers": len(layers) - 1, "d_out": self._d_out, "width": width}
        self._write(0, _AT, {**fixed, **token, "cls": self._cls})
        for i, layer in enumerate(layers):
            self._write(_FIRST_LAYER + i * _N, _LAYER, layer)
        in_place = {each.data_ptr() for each in self._kept}
        self._copied = [each for each in parameters if each.data_ptr() not in in_place]
        self._key = self._versions()

    def _write(self, first: int, places: dict[str, int], fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            if isinstance(value, Tensor):
                if value.is_floating_point():
                    value = value.detach().float()
                self._kept.append(value := value.contiguous())
                value = value.data_ptr()
            self._values[first + places[name]] = value

    def _versions(self) -> tuple[int, int]:
        return sum(map(_version, self._copied)), self._cls.data_ptr()

    def is_current(self) -> bool:
        """Whether the tower still has these weights, as far as torch counts their changes."""
        return self._key == self._versions()

    def look_up(self, state: Any) -> tuple[array[int], int, int] | None:
        """What a call takes of a tower's state, as long as its tensors live; None where the kernel cannot read it.

        Returns:
            The arguments that stay the same, the number of users, and keys that the largest cache has room for.
        """
        values, at, pool, most = self._values[:], _FIRST_LAYER, len(state.n_events), 0
        whole = _fits(state.n_events, pool, torch.int64) and _fits(state.time, pool, torch.int64)
        if not whole or len(state.layers) != len(self._sizes):
            return None
        places = [(_AT["n_events"], state.n_events), (_AT["last_time"], state.time)]
        for (n_first, n_second), (first, second, *n_seen) in zip(self._sizes, state.layers, strict=True):
            if n_seen:
                room = first.shape[1]
                most, n_first, n_second = max(most, room), room * n_first, room * n_second
                if not _fits(n_seen[0], pool, torch.int64):
                    return None
                places.append((at + _LAYER["n_seen"], n_seen[0]))
                values[at + _LAYER["room"]] = room
            if not (_fits(first, pool * n_first, torch.float32) and _fits(second, pool * n_second, torch.float32)):
                return None
            places += [(at + _LAYER["first"], first), (at + _LAYER["second"], second)]
            at += _N
        for place, tensor in places:
            values[place] = tensor.data_ptr()
        values[_AT["pool"]] = pool
        return values[_N_OWN:], pool, most

    def __call__(
        self, known: tuple[array[int], int, int], event: HistoryBatch | None, users: Tensor | None
    ) -> Tensor | None:
        """The outputs of one event of each user, or without an event of [CLS], (n_users, d_out).

        None, and nothing has changed, where the kernel does not take it: wrong input, or a cache that has to grow.

        Args:
            known: of a state, by ``look_up``; with an event it is brought up to date where it lies.
            users: rows of the state, each once; None means all in order.
        """
        rest, n_users, n_keys = known
        who = 0
        if users is not None:
            n_users = users.numel()
            if not _fits(users, n_users, torch.int64):
                return None
            who = users.data_ptr()
        columns: tuple[int, ...] | None = (0, 0, 0, 0) if event is None else self._columns(event, n_users)
        if n_users == 0 or columns is None:
            return None
        n_threads = get_threads()
        if n_threads > 1:
            n_threads = min(n_threads, max(n_users // WORTH_USERS, min(n_users, n_users * n_keys // WORTH_KEYS), 1))
        tile = min(-(-n_users // n_threads), kernels.TILE)
        n_floats = tile * self._user_floats + self._thread_floats
        sizes = ((n_users, self._d_out), (n_threads * n_floats,))  # whatever torch's defaults are
        out, scratch = (torch.empty(size, dtype=torch.float32, device="cpu") for size in sizes)
        n_items, keep = -(-n_users // tile), int(event is not None)
        own = (n_items, n_users, tile, keep, who, *columns, out.data_ptr(), scratch.data_ptr(), n_floats)
        values = array("q", own) + rest
        _step.enter(values.buffer_info()[0], n_threads)
        return out if values[_AT["verdict"]] == kernels.GO else None

    def _columns(self, event: HistoryBatch, n_users: int) -> tuple[int, ...] | None:
        """Addresses of an event's columns, None where they are not what the kernel reads."""
        item, numeric, categorical, time, _ = event
        if (
            item.shape != (n_users, 1)
            or not (_fits(item, n_users, torch.int64) and _fits(time, n_users, torch.int64))
            or numeric.numel() != n_users * self._n_numeric
            or categorical.numel() != n_users * self._n_categorical
            or (self._n_numeric and not _fits(numeric, numeric.numel(), torch.float32))
            or (self._n_categorical and not _fits(categorical, categorical.numel(), torch.int64))
        ):
            return None
        return item.data_ptr(), numeric.data_ptr(), categorical.data_ptr(), time.data_ptr()


def _fits(tensor: Tensor, count: int, dtype: torch.dtype) -> bool:
    return tensor.numel() == count and tensor.dtype is dtype and tensor.is_contiguous() and tensor.is_cpu


def transposed(weight: Tensor, multiple: int = CHANNELS) -> Tensor:
    """(outputs, inputs) as (inputs, outputs), zeros up to a multiple of outputs."""
    return F.pad(weight.detach().t(), (0, -len(weight) % multiple))


def _padded(bias: Tensor, multiple: int) -> Tensor:
    return F.pad(bias.detach(), (0, -len(bias) % multiple))


def _norm(name: str, norm: Any) -> Fields:
    if norm is None or not list(norm.parameters()):
        return {}
    if norm.eps != float(f"{kernels.EPS:.7g}") or norm.weight is None or norm.bias is None:
        raise ValueError("norms have weights, biases and an eps of 1e-5")
    return {f"{name}_weight": norm.weight, f"{name}_bias": norm.bias}


def _feed_forward(norm: Any, ffn: Any) -> Fields:
    gated, d_hidden = ffn.activation == "reglu", ffn.contract.in_features
    multiple = STATES * CHANNELS // (1 + gated)
    halves = [
        (transposed(weight, multiple), _padded(bias, multiple))
        for weight, bias in zip(ffn.expand.weight.split(d_hidden), ffn.expand.bias.split(d_hidden), strict=True)
    ]
    return {
        **_norm("ffn", norm),
        "expand": torch.cat([weight for weight, _ in halves], dim=1),
        "expand_bias": torch.cat([bias for _, bias in halves]),
        "gated": int(gated),
        "hidden": halves[0][0].shape[1],
        "contract": F.pad(transposed(ffn.contract.weight), (0, 0, 0, -d_hidden % multiple)),
        "contract_bias": ffn.contract.bias,
    }


def _block(block: Any) -> dict[str, Any]:
    mixer = getattr(block, "mixer", None)
    packed = None if mixer is None or not hasattr(mixer, "packed") else mixer.packed()
    if packed is None:
        raise ValueError("a mixer that the kernel does not know")
    if packed["is_attention"]:
        packed["n_rows"] = kernels.head_rows(packed["in_width"] // 3 // packed["n_heads"])
    fields = {**packed, **_norm("norm", block.mixer_norm), **_norm("sum", block.sum_norm)}
    return fields if block.ffn is None else fields | _feed_forward(block.ffn_norm, block.ffn)


def _head(head: Any) -> dict[str, Any]:
    fields = _norm("norm", head.norm) | ({} if head.ffn is None else _feed_forward(*head.ffn))
    weight = transposed(head.output.weight)
    return {
        **fields,
        "out_weight": weight,
        "out_width": weight.shape[1],
        "out_bias": _padded(head.output.bias, CHANNELS),
    }


def _sizes(layer: dict[str, Any]) -> tuple[int, int]:
    """Floats of a user's state in its two tensors, of a cache for each token."""
    if layer["is_attention"]:
        return (layer["in_width"] // 3,) * 2
    return (layer["d_conv"] - 1) * layer["d_inner"], layer["d_inner"] * layer["d_state"]


def _tokenizer(tokenizer: Any) -> Fields:
    table = tokenizer.item_table if tokenizer.items is None else tokenizer.items.categorical_table
    return {
        "n_numeric": tokenizer.events.n_numeric,
        "n_categorical": len(tokenizer.events.cardinalities),
        "table_rows": tokenizer.events.n_items,
        "first_item": tokenizer.first_item,
        "item_table": table,
        "numeric_weight": transposed(tokenizer.numeric.weight),
        "numeric_bias": tokenizer.numeric.bias,
        "category_table": tokenizer.categorical_table,
        "first_rows": tokenizer.first_rows,
        "last_rows": tokenizer.last_rows,
        "n_positions": len(tokenizer.position_table),
        "position_table": tokenizer.position_table,
    }
