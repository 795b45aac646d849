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
_N, _FIRST_LAYER = len(kernels.LAYER), len(kernels.STEP) + 2
_KINDS = (torch.int64, torch.float32, torch.int64, torch.int64)  # of an event's columns
# A thread more costs a start, which is worth so many users' work, or keys that they have room for.
WORTH_USERS, WORTH_KEYS = 4, 1024


class TowerStep:
    """A tower's weights in the kernel's order, and calls with them.

    Args:
        tower: of histories, float32 on the CPU, of blocks whose mixers give their weights as ``packed()``.

    Raises:
        ValueError: a tower of which the kernel does not know a part.
    """

    FULL = kernels.FULL

    def __init__(self, tower: HistoryEncoder) -> None:
        self.parameters = list(tower.parameters())
        self.cls = tower.cls if tower.static is None else tower.static.cls
        d_model = tower.spec.d_model
        if d_model % CHANNELS or any(
            not each.is_cpu or each.dtype != torch.float32 or each.is_inference() for each in self.parameters
        ):
            raise ValueError(f"float32 on a CPU and a width that is a multiple of {CHANNELS} are taken")
        layers = [_block(block) for block in tower.blocks]
        layers.append(_head(tower.head))
        self.mixers = [_sizes(each) for each in layers[:-1]]
        self.width = max(each[name] for each in layers for name in _LAYER if name.endswith("width") and name in each)
        self.width = max(self.width, d_model, *(2 * each.get("hidden", 0) for each in layers))
        self.attention_floats = max(
            [kernels.attention_floats(d_model, each["n_heads"]) for each in layers if "n_heads" in each], default=0
        )
        token = _tokenizer(tower.tokenizer)
        fixed = {"d_model": d_model, "n_layers": len(self.mixers), "d_out": tower.spec.output_width}
        self.n_numeric, self.n_categorical = token["n_numeric"], token["n_categorical"]
        self._kept: list[Tensor] = []
        self.values = array("q", bytes(8 * (_FIRST_LAYER + _N * len(layers))))
        self._write(0, _AT, {**fixed, **token, "width": self.width, "cls": self.cls})
        for i, layer in enumerate(layers):
            self._write(_FIRST_LAYER + i * _N, _LAYER, layer)
        self.key = self._key()

    def _write(self, first: int, places: dict[str, int], fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            if isinstance(value, Tensor):
                if value.is_floating_point():
                    value = value.detach().float()
                self._kept.append(value := value.contiguous())
                value = value.data_ptr()
            self.values[first + places[name]] = value

    def _key(self) -> tuple[int, int]:
        return sum(map(_version, self.parameters)), self.cls.data_ptr()

    def is_current(self) -> bool:
        """Whether the tower still has these weights, as far as torch counts their changes."""
        return self.key == self._key()

    def __call__(self, state: Any, event: HistoryBatch | None, users: Tensor | None) -> tuple[Tensor | None, int]:
        """The outputs of one event of each user, or without an event of [CLS], (n_users, d_out), and the verdict.

        Without outputs the verdict says why, and nothing has changed; 0 is anything that the kernel does not take.

        Args:
            state: a tower's, of contiguous tensors; with an event it is brought up to date where it lies.
            users: rows of the state, each once; None means all in order.
        """
        values, pool = self.values[:], state.n_events.numel()
        n_users = pool if users is None else users.numel()
        n_keys = self._states(values, state, pool)
        if n_keys < 0 or n_users == 0 or not (users is None or _fits(users, n_users, torch.int64)):
            return None, 0
        if event is not None:
            item, numeric, categorical, time, _ = parts = _whole(event)
            sizes = (n_users, n_users * self.n_numeric, n_users * self.n_categorical, n_users)
            if item.shape != (n_users, 1) or not all(map(_fits, parts, sizes, _KINDS)):
                return None, 0
            values[_AT["item"]], values[_AT["numeric"]] = item.data_ptr(), numeric.data_ptr()
            values[_AT["categorical"]], values[_AT["time"]] = categorical.data_ptr(), time.data_ptr()
            values[_AT["keep"]] = 1
        n_threads = min(get_threads(), max(n_users // WORTH_USERS, min(n_users, n_users * n_keys // WORTH_KEYS), 1))
        tile = min(-(-n_users // n_threads), kernels.TILE)
        n_floats = kernels.BUFFERS * tile * self.width + self.attention_floats
        out, scratch = torch.empty(n_users, values[_AT["d_out"]]), torch.empty(n_threads * n_floats)
        values[_AT["n_users"]], values[_AT["tile"]], values[_AT["n_items"]] = n_users, tile, -(-n_users // tile)
        values[_AT["who"]], values[_AT["pool"]] = 0 if users is None else users.data_ptr(), pool
        values[_AT["out"]], values[_AT["scratch"]] = out.data_ptr(), scratch.data_ptr()
        values[_AT["scratch_stride"]] = n_floats
        _step.enter(values.buffer_info()[0], n_threads)
        verdict = values[_AT["verdict"]]
        return (out if verdict == kernels.GO else None), verdict

    def _states(self, values: array[int], state: Any, pool: int) -> int:
        """Write the states' addresses; keys that the largest cache has room for, -1 for states of something else."""
        at, n_keys = _FIRST_LAYER, 0
        if not (_fits(state.n_events, pool, torch.int64) and _fits(state.time, pool, torch.int64)):
            return -1
        values[_AT["n_events"]], values[_AT["last_time"]] = state.n_events.data_ptr(), state.time.data_ptr()
        if len(state.layers) != len(self.mixers):
            return -1
        for sizes, (first, second, *n_seen) in zip(self.mixers, state.layers, strict=True):
            n_first, n_second = sizes
            if n_seen:
                room = first.shape[1]
                n_keys, n_first, n_second = max(n_keys, room), room * n_first, room * n_second
                if not _fits(n_seen[0], pool, torch.int64):
                    return -1
                values[at + _LAYER["n_seen"]], values[at + _LAYER["room"]] = n_seen[0].data_ptr(), room
            if not (_fits(first, pool * n_first, torch.float32) and _fits(second, pool * n_second, torch.float32)):
                return -1
            values[at + _LAYER["first"]], values[at + _LAYER["second"]] = first.data_ptr(), second.data_ptr()
            at += _N
        return n_keys


def _whole(event: HistoryBatch) -> HistoryBatch:
    """Where a column is cut out of more, or numbers are of another kind, a copy as the kernel reads it."""
    if event.numeric.dtype is not torch.float32:
        event = event._replace(numeric=event.numeric.float())
    if not (event.item.is_contiguous() and event.time.is_contiguous()):
        event = event._make(each.contiguous() for each in event)
    return event


def _fits(tensor: Tensor, count: int, dtype: torch.dtype) -> bool:
    return tensor.numel() == count and tensor.dtype is dtype and tensor.is_cpu and tensor.is_contiguous()


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
