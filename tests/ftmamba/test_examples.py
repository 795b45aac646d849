"""Every public name has an example, and every example does what it says."""

from __future__ import annotations

import doctest
import importlib

import pytest

import ftmamba

MODULES = [importlib.import_module(f"ftmamba.{name}") for name in ftmamba._NAMES]
EXAMPLES = {each.name: each for module in MODULES for each in doctest.DocTestFinder().find(module) if each.examples}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_does_what_it_says(name: str) -> None:
    assert doctest.DocTestRunner().run(EXAMPLES[name]).failed == 0


def test_every_public_name_has_an_example() -> None:
    named = {name: getattr(ftmamba, name) for name in ftmamba.__all__}
    public = [f"{each.__module__}.{name}" for name, each in named.items() if hasattr(each, "__module__")]
    assert len(public) > 20
    assert set(public) <= EXAMPLES.keys()
