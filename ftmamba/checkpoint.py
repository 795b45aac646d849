"""A model in one safetensors file that says by itself what it is."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ftmamba.encoder import FTEncoder
from ftmamba.plain import from_dict, to_dict
from ftmamba.spec import EncoderSpec, FeatureSpec
from ftmamba.two_tower import TwoTower

if TYPE_CHECKING:
    from ftmamba.columns import TableEncoder

KEY, VERSION = "ftmamba", 1  # one key alone: safetensors writes several in any order


def save(path: str | Path, model: FTEncoder | TwoTower, columns: Sequence[TableEncoder] = ()) -> None:
    """Write weights, specs and fitted columns to one safetensors file, whole or not at all.

    The tensors have the names of the model's ``state_dict``; the rest is JSON in the file's metadata.

    Args:
        path: of the file; one that is there is replaced.
        model: a tower or two of them, on any device, in any dtype.
        columns: one fitted encoder a tower, the user tower's first; they are what turns table rows into its input.

    Raises:
        ValueError: another class of model, columns that are not the model's, weights that several layers share, or a
            mixer that its name or module does not find again.
        OSError: the file cannot be written.

    Examples:
        >>> import tempfile
        >>> from ftmamba import EncoderSpec, FeatureSpec, FTEncoder, MambaSpec, load, save
        >>> tower = FTEncoder(EncoderSpec(mixer=MambaSpec(), d_model=16, n_layers=1), FeatureSpec(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/tower.safetensors", tower)
        ...     loaded, columns = load(f"{folder}/tower.safetensors")
        >>> loaded.spec == tower.spec, columns
        (True, ())
    """
    path, towers = Path(path), _towers(model)
    features = [tower.tokenizer.features for tower in towers.values()]
    if columns and [each.features for each in columns] != features:
        raise ValueError(f"columns of {[each.features for each in columns]} for towers of {features}")
    shared = [each for tower in towers.values() for _, each in tower.named_parameters(remove_duplicate=False)]
    if len(set(shared)) < len(shared):
        raise ValueError("some layers of the model share weights, which would be apart after loading")
    about: dict[str, dict[str, Any]] = {
        prefix: {"spec": to_dict(tower.spec), "features": to_dict(tower.tokenizer.features)}
        for prefix, tower in towers.items()
    }
    for entry, encoder in zip(about.values(), columns, strict=False):
        entry["columns"] = to_dict(encoder)
    weights = {
        prefix + name: each.detach().cpu().contiguous()
        for prefix, tower in towers.items()
        for name, each in tower.state_dict().items()
    }
    write(path, weights, {"version": VERSION, "towers": about})


def write(path: Path, named: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors and what is said about them to a safetensors file, whole or not at all.

    Raises:
        ValueError: tensors that safetensors refuses.
        OSError: the file cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        save_file(named, new, {KEY: json.dumps(about)})
        with safe_open(new, "pt"), new.open("rb+") as file:  # can be read
            os.fsync(file.fileno())
        new.replace(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be written: {error}") from None
    finally:
        new.unlink(missing_ok=True)


def load(path: str | Path) -> tuple[FTEncoder | TwoTower, tuple[TableEncoder, ...]]:
    """The model that ``save`` wrote and its columns.

    Its outputs are those of the saved model to the bit, on the same machine with the same backend and threads. A file
    may name a mixer of your own, whose module is then imported, so load only files that you trust.

    Args:
        path: of the file.

    Returns:
        The model, on the CPU, in the dtype it had, in evaluation mode, and the encoders that were saved with it, one a
        tower.

    Raises:
        ValueError: in one line, a file that ``save`` did not write, that was cut or that a newer version wrote, or a
            model whose mixer or backend cannot run here.
        OSError: the file cannot be read.

    Examples:
        >>> import tempfile
        >>> import pandas as pd
        >>> from ftmamba import AttentionSpec, EncoderSpec, FTEncoder, TableEncoder, embed, load, save
        >>> users = pd.DataFrame({"age": [20, 30, 40], "town": ["Ulm", "Rome", "Ulm"]})
        >>> encoder = TableEncoder.fit(users, numeric=["age"], categorical=["town"])
        >>> tower = FTEncoder(EncoderSpec(mixer=AttentionSpec(), d_model=16, n_layers=1), encoder.features)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/users.safetensors", tower, [encoder])
        ...     tower, (encoder,) = load(f"{folder}/users.safetensors")
        >>> embed(tower, encoder.transform(users)).shape
        torch.Size([3, 16])
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if KEY not in metadata:
                raise ValueError("it was not written by ftmamba.save")
            about = json.loads(metadata[KEY])
            if about["version"] > VERSION:
                raise ValueError(f"a newer ftmamba wrote it, in version {about['version']}; this one knows {VERSION}")
            weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
        entries = about["towers"]
        towers = {prefix: _read_tower(entry, prefix, weights) for prefix, entry in entries.items()}
        model = towers[""] if "" in towers else TwoTower(towers["user."], towers.get("content.", towers["user."]))
        found = [entry["columns"] for entry in entries.values() if "columns" in entry]
        return model.eval(), _read_columns(found)
    except (AttributeError, KeyError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be loaded: {' '.join(str(error).split())}") from None


def _towers(model: FTEncoder | TwoTower) -> dict[str, FTEncoder]:
    """The model's towers by the beginning of their weights' names; two that are one come once."""
    if type(model) is FTEncoder:
        return {"": model}
    if type(model) is TwoTower and type(model.user) is type(model.content) is FTEncoder:
        return {"user.": model.user} | ({} if model.user is model.content else {"content.": model.content})
    raise ValueError(f"an FTEncoder or a TwoTower of two can be saved, not a {type(model).__name__}")


def _read_tower(entry: dict[str, Any], prefix: str, weights: dict[str, Tensor]) -> FTEncoder:
    own = {name.removeprefix(prefix): each for name, each in weights.items() if name.startswith(prefix)}
    with torch.random.fork_rng(devices=[]):  # the first weights are random and replaced at once
        tower = FTEncoder(from_dict(EncoderSpec, entry["spec"]), from_dict(FeatureSpec, entry["features"]))
    tower.to(own["head.output.weight"].dtype).load_state_dict(own, assign=True)
    return tower


def _read_columns(found: Sequence[dict[str, Any]]) -> tuple[TableEncoder, ...]:
    if not found:
        return ()
    from ftmamba.columns import TableEncoder  # takes pandas, which a model alone does not need

    return tuple(from_dict(TableEncoder, each) for each in found)
