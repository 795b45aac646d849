"""Weights of other libraries' models, under our names.

A ``MambaMixer`` needs nothing: mamba_ssm's ``Mamba`` and Hugging Face's ``MambaMixer`` name and shape their parameters
in the same way, so ``load_state_dict`` takes theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_RTDL_BLOCK = {
    "attention_normalization": "mixer_norm",
    "attention.W_q": "mixer.q_proj",
    "attention.W_out": "mixer.out_proj",
    "ffn_normalization": "ffn_norm",
    "ffn.linear1": "ffn.expand",
    "ffn.linear2": "ffn.contract",
}
_RTDL = re.compile(
    r"cls_embedding\.weight|cont_embeddings\.(weight|bias)|cat_embeddings\.(embeddings\.\d+\.weight|bias)"
    r"|backbone\.blocks\.\d+\.(attention\.W_(q|k|v|out)|(attention|ffn)_normalization|ffn\.linear[12])\.(weight|bias)"
    r"|backbone\.output\.(normalization|linear)\.(weight|bias)"
)


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
    _check_rtdl(state)
    d_model = state["cls_embedding.weight"].shape[0]
    tables = [state[k] for k in sorted((k for k in state if ".embeddings." in k), key=lambda k: int(k.split(".")[2]))]
    empty = torch.empty(0, d_model, dtype=state["cls_embedding.weight"].dtype)
    ours = {
        "tokenizer.cls": state["cls_embedding.weight"],
        "tokenizer.numeric_weight": state.get("cont_embeddings.weight", empty),
        "tokenizer.numeric_bias": state.get("cont_embeddings.bias", empty),
        "tokenizer.categorical_table": torch.cat(tables) if tables else empty,
        "tokenizer.categorical_bias": state.get("cat_embeddings.bias", empty),
    }
    for key, tensor in state.items():
        if key.startswith("backbone.blocks."):
            _, _, layer, module = key.split(".", 3)
            module, kind = module.rsplit(".", 1)
            if module == "attention.W_k":
                value = state[key.replace("W_k", "W_v")]
                ours[f"blocks.{layer}.mixer.kv_proj.{kind}"] = torch.cat([tensor, value])
            elif module != "attention.W_v":
                ours[f"blocks.{layer}.{_RTDL_BLOCK[module]}.{kind}"] = tensor
        elif key.startswith("backbone.output."):
            name = "norm" if ".normalization." in key else "output"
            ours[f"head.{name}.{key.rsplit('.', 1)[1]}"] = tensor
    return ours


def _check_rtdl(state: Mapping[str, Tensor]) -> None:
    foreign = [key for key in state if not _RTDL.fullmatch(key)]
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
