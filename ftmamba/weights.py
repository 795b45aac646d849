"""Weights of other libraries' models, under our names.

A ``MambaMixer`` needs nothing: mamba_ssm's ``Mamba`` and Hugging Face's ``MambaMixer`` name and shape their parameters
in the same way, so ``load_state_dict`` takes theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_BLOCK = r"backbone\.blocks\.(\d+)\."
# Names there and here; weights that get one name are put together, in the order of their names there.
_RTDL = {
    re.compile(theirs): ours
    for theirs, ours in {
        r"cls_embedding\.weight": "tokenizer.cls",
        r"cont_embeddings\.(weight|bias)": r"tokenizer.numeric_\1",
        r"cat_embeddings\.embeddings\.\d+\.weight": "tokenizer.categorical_table",
        r"cat_embeddings\.bias": "tokenizer.categorical_bias",
        rf"{_BLOCK}attention\.W_q\.(weight|bias)": r"blocks.\1.mixer.q_proj.\2",
        rf"{_BLOCK}attention\.W_[kv]\.(weight|bias)": r"blocks.\1.mixer.kv_proj.\2",
        rf"{_BLOCK}attention\.W_out\.(weight|bias)": r"blocks.\1.mixer.out_proj.\2",
        rf"{_BLOCK}attention_normalization\.(weight|bias)": r"blocks.\1.mixer_norm.\2",
        rf"{_BLOCK}ffn_normalization\.(weight|bias)": r"blocks.\1.ffn_norm.\2",
        rf"{_BLOCK}ffn\.linear1\.(weight|bias)": r"blocks.\1.ffn.expand.\2",
        rf"{_BLOCK}ffn\.linear2\.(weight|bias)": r"blocks.\1.ffn.contract.\2",
        r"backbone\.output\.normalization\.(weight|bias)": r"head.norm.\1",
        r"backbone\.output\.linear\.(weight|bias)": r"head.output.\1",
    }.items()
}
_TOKENIZER = ("numeric_weight", "numeric_bias", "categorical_table", "categorical_bias")  # each empty without columns


def from_rtdl(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict for an ``FTEncoder`` with attention, from one of ``rtdl_revisiting_models.FTTransformer``.

    Args:
        state: of an FTTransformer with more than one head and no linformer compression.

    Returns:
        To be given to ``FTEncoder.load_state_dict``; the tower must have the same widths.

    Raises:
        ValueError: the weights of another model, which would not compute the same here.

    Examples:
        >>> import torch
        >>> from ftmamba import from_rtdl
        >>> theirs = {"cls_embedding.weight": torch.zeros(8), "backbone.output.linear.bias": torch.ones(4)}
        >>> from_rtdl(theirs)["head.output.bias"]
        tensor([1., 1., 1., 1.])
    """
    names = {key: _our_name(key) for key in state}
    _check_rtdl(state, [key for key, name in names.items() if name is None])
    cls = state["cls_embedding.weight"]
    parts: dict[str, list[Tensor]] = {f"tokenizer.{name}": [] for name in _TOKENIZER}
    for key in sorted(state, key=_by_number):
        parts.setdefault(str(names[key]), []).append(state[key])
    return {
        name: each[0] if len(each) == 1 else torch.cat(each or [cls.new_empty(0, len(cls))])
        for name, each in parts.items()
    }


def _our_name(key: str) -> str | None:
    found = ((theirs.fullmatch(key), ours) for theirs, ours in _RTDL.items())
    return next((match.expand(ours) for match, ours in found if match), None)


def _by_number(key: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else -1, part) for part in key.split(".")]


def _check_rtdl(state: Mapping[str, Tensor], foreign: Sequence[str]) -> None:
    projections = (key.replace("W_q", "W_out") for key in state if key.endswith("attention.W_q.weight"))
    if any("_compression." in key for key in foreign):
        problem = f"{foreign[0]}: Linformer compression is not supported"
    elif foreign:
        problem = f"{foreign[0]}: no weight of such a model"
    elif "cls_embedding.weight" not in state:
        problem = "no cls_embedding.weight"
    elif missing := [key for key in projections if key not in state]:
        problem = f"no {missing[0]}: a single head has no output projection, ours always has one"
    else:
        return
    raise ValueError(f"cannot load these weights as an rtdl_revisiting_models.FTTransformer: {problem}")
