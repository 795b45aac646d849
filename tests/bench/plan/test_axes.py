"""One table says what every setting is, and refuses what it is not in one line."""

from __future__ import annotations

from typing import Any

import pytest

from bench.plan.axes import AXES, BY_NAME, SETTINGS, is_default
from bench.plan.setting import REQUIRED, PlanError


def test_no_name_field_or_spelling_stands_for_two_things() -> None:
    spellings = [option for setting in SETTINGS for option in setting.options]
    assert len(set(spellings)) == len(spellings)
    assert len({axis.field for axis in AXES}) == len(AXES)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_default_is_a_value_of_its_setting(setting: Any) -> None:
    default = getattr(setting, "default", REQUIRED)
    if default is not REQUIRED:
        assert setting.check(default) == ((default,) if setting.many and not setting.whole else default)
        assert is_default(setting.field, default)
    assert setting.help()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lengths", [], "lengths is an empty list"),
        ("lengths", ["x"], "lengths takes whole numbers from 1 to 10,000,000, got 'x'"),
        ("lengths", [True], "lengths takes whole numbers"),
        ("lengths", [0], "got 0"),
        ("lengths", [10**400], "got 1000"),
        ("lengths", range(2, 3), "lengths takes whole numbers"),
        ("budget_s", 0, "budget_s takes numbers between 0 and 10,000,000.0, got 0"),
        ("budget_s", float("nan"), "got nan"),
        ("heap", "stack", "choose from kept, system"),
        ("heap", 3, "heap takes names, got 3"),
        ("tasks", ["sing"], "unknown value 'sing' for tasks; choose from block_forward, block_train, forward"),
        ("initial_state", "yes", "initial_state takes true or false"),
        ("steps", "soon", "steps takes whole numbers from 1 to 10,000,000 or auto, got 'soon'"),
    ],
)
def test_what_is_no_value_is_told_in_one_line(name: str, value: Any, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        BY_NAME[name].check(value)
    told = str(caught.value)
    assert message in told
    assert "\n" not in told
    assert len(told) < 300


def test_values_are_kept_once_and_in_order() -> None:
    assert BY_NAME["lengths"].check([100, 200, 100]) == (100, 200)
    assert BY_NAME["lengths"].check(7) == (7,)
    assert BY_NAME["mixers"].check(["none"]) == ()
    assert BY_NAME["budget_s"].check(1) == 1.0
