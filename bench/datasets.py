"""Which data sets there are: fetches, checks and shows them, and how their rows become tokens.

python -m bench.datasets fetch movielens-100k
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench import cli
from bench.data import DATASETS, OWN, adapter, cache
from bench.data.dataset import SPLITS, TEST, TRAIN, VALIDATION, Adapter, DataSet
from bench.data.files import DataError

DATA = click.option("--data", type=cli.PathType(), help="Folder of the data set, where it is not in the cache.")
JSON = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")


@click.group("datasets", help=(__doc__ or "").splitlines()[0])
def datasets() -> None:
    pass


@datasets.command("list")
@JSON
def list_(as_json: bool) -> None:
    """All data sets, and which are on this machine."""
    rows = [{"name": name, "state": state(adapter(name)), "about": adapter(name).about} for name in DATASETS]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    cli.print_table((row.values() for row in rows), ("name", "state", "about"))
    cli.out.print(f"cache: {cache.root()}", soft_wrap=True)


def state(source: Adapter) -> str:
    if not source.files:
        return "your own" if source.supply else "generated"
    if cache.is_cached(source):
        return "here"
    return "can be fetched" if source.sources else "supplied by you"


@datasets.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--again", is_flag=True, help="Fetch even what is there already.")
@click.option("--quiet", is_flag=True, help="No progress.")
def fetch(names: tuple[str, ...], again: bool, quiet: bool) -> None:
    """Get data sets from their public sources into the cache."""
    adapters = [adapter(name) for name in names]
    for source in adapters:
        cache.fetch(
            source, lambda line: None if quiet else cli.err.print(line, markup=False, soft_wrap=True), again=again
        )


@datasets.command()
@click.argument("name")
@DATA
@JSON
def show(name: str, data: Path | None, as_json: bool) -> None:
    """Where a data set comes from, its licence, columns and counts."""
    source = adapter(name)
    about = {
        "name": source.name,
        "about": source.about,
        "licence": source.licence,
        "homepage": source.homepage,
        "sources": [each.about for each in source.sources],
        "supply": source.supply,
        "state": state(source),
        "folder": str(data or cache.home(source)) if source.files else None,
    }
    here = data is not None or state(source) in ("here", "generated", "your own")
    facts = {**about, **(facts_of(cache.load(source, data)) if here else {})}
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    print_facts(facts)
    if not here:
        how = f"python -m bench.datasets fetch {name}" if source.sources else f"put {source.supply} there"
        cli.out.print(f"not on this machine yet: {how}", markup=False, soft_wrap=True)


@datasets.command()
@click.argument("path", type=cli.PathType())
@click.option("--as", "name", help="Data set that the folder holds; found by its files where not given.")
@JSON
def check(path: Path, name: str | None, as_json: bool) -> None:
    """Read a folder of your own through and say what is wrong with it, or what it holds."""
    source = adapter(name) if name is not None else recognise(path)
    facts = facts_of(cache.load(source, path))
    if as_json:
        print(json.dumps({"name": source.name, **facts}, indent=1))
        return
    cli.out.print(f"{path} is a good {source.name}", markup=False, soft_wrap=True)
    print_facts(facts)
    if source.name.partition(":")[0] in OWN:
        cli.out.print(f"correct the columns: python -m bench.datasets describe {path}", markup=False, soft_wrap=True)
        cli.out.print(f"rank with it: python -m bench.quality --dataset {source.name}", markup=False, soft_wrap=True)


@datasets.command()
@click.argument("path", type=cli.PathType())
def describe(path: Path) -> None:
    """Write what the columns of your own tables were taken for, to be corrected: FOLDER/dataset.toml."""
    from bench.data.layout import FILE, inspect

    draft = path / FILE
    if draft.exists():
        raise DataError(f"{draft} is there already; remove it to have it drafted again")
    text = inspect(path, own_kind(path)).to_toml()
    try:
        draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {draft}: {error.strerror or error}") from None
    cli.out.print(f"{draft} says what each column is; correct it, then: bench.datasets check {path}", soft_wrap=True)


def print_facts(facts: dict[str, Any]) -> None:
    for label, value in facts.items():
        if value not in (None, "", []):
            text = ("; " if label == "notes" else ", ").join(value) if isinstance(value, list) else str(value)
            cli.out.print(f"{label.replace('_', ' ')}: {text}", markup=False, soft_wrap=True)


def recognise(path: Path) -> Adapter:
    """The data set whose files the folder holds.

    Raises:
        DataError: no folder, or the files of none or of several.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder")
    if path.name in DATASETS:
        return adapter(path.name)
    adapters = [adapter(name) for name in DATASETS]
    found = [each for each in adapters if each.files and not cache.missing(each, path)]
    if not found:
        return adapter(f"{own_kind(path)}:{path}")
    if len(found) != 1:
        raise DataError(f"{path} fits {', '.join(each.name for each in found)}; say which it is with --as NAME")
    return found[0]


def own_kind(path: Path) -> str:
    """How the tables in a folder of one's own are written.

    Raises:
        DataError: no folder, or no table of interactions in it.
    """
    from bench.data.layout import FORMATS, find_file

    if not path.is_dir():
        raise DataError(f"{path} is not a folder")
    kind = next((each for each in FORMATS if find_file(path, each, "interactions")), None)
    if kind is None:
        raise DataError(f"{path} holds no data set known here and no tables of your own: {FORMATS['csv'].about}")
    return kind


def facts_of(data: DataSet) -> dict[str, Any]:
    """Columns and counts."""
    from bench.data.encode import fit

    rows = data.interactions
    facts: dict[str, Any] = {
        "users": data.users.n_rows,
        "items": data.items.n_rows,
        "interactions": len(rows),
        "positives": int((rows["label"] > 0).sum()),
        "negatives": data.negatives,
    }
    if data.events is not None:
        lengths = data.events.lengths
        facts |= {"events": int(lengths.sum()), "longest_history": int(lengths.max())}
    for number, split in enumerate(SPLITS):
        facts[split] = int((rows["split"] == number).sum())
    facts["split_rule"] = data.split_rule
    facts |= cold_shares(data)
    for side, table in (("user", data.users), ("item", data.items)):
        facts[f"{side}_key"] = table.key
        facts[f"{side}_numeric"] = list(table.numeric)
        facts[f"{side}_categorical"] = list(table.categorical)
    for side, table, training in zip(("user", "item"), (data.users, data.items), data.training_rows(), strict=True):
        facts[f"{side}_tokens"] = fit(table, training, ids=True).features.n_tokens
    facts["notes"] = list(data.notes)
    return facts


def cold_shares(data: DataSet) -> dict[str, str]:
    """How much of the test asks for what training cannot know."""
    users, items = data.positives(TEST)
    known_users, known_items = data.positives(TRAIN, VALIDATION)
    words = ("test_users_without_an_earlier_like", "test_likes_of_items_not_liked_before")
    cold = (np.isin(np.unique(users), known_users, invert=True), np.isin(items, known_items, invert=True))
    return {name: f"{share.mean():.1%}" for name, share in zip(words, cold, strict=True) if len(share)}


@datasets.command()
@click.argument("name")
@DATA
@click.option("--d-model", default=64, show_default=True, help="Width of a token.")
@click.option("--rows", default=3, show_default=True, help="Example rows a table.")
@click.option("--ids/--no-ids", default=True, show_default=True, help="Whether the row's id is one more column.")
@click.option("--seed", default=0, show_default=True, help="Of the tokenizer's weights.")
@JSON
def tokens(name: str, data: Path | None, d_model: int, rows: int, ids: bool, seed: int, as_json: bool) -> None:
    """How rows become tokens: columns, kinds, lookup tables, example values and token norms."""
    if d_model < 1 or rows < 1:
        raise click.UsageError("--d-model and --rows must be at least 1")
    from bench.data.encode import fit
    from bench.training.tokens import token_table

    found = cache.load(adapter(name), data)
    answer = {}
    for side, table, training in zip(("user", "item"), (found.users, found.items), found.training_rows(), strict=True):
        encoder = fit(table, training, ids=ids)
        answer[side] = token_table(table, encoder, d_model=d_model, n_rows=rows, seed=seed)
        if as_json:
            continue
        size = encoder.table_bytes(d_model) / 2**20
        cli.out.print(f"{side}: {encoder.features.n_tokens} tokens with \\[CLS], lookup tables {size:.2f} MiB")
        rows_shown = ([f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in answer[side])
        cli.print_table(rows_shown, list(answer[side][0]))
    if as_json:
        print(json.dumps(answer, indent=1))


main = partial(cli.run, datasets, errors=(DataError,))

if __name__ == "__main__":
    sys.exit(main())
