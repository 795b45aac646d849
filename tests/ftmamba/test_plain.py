"""Specs go through JSON and come back equal; what is no spec is refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ftmamba import (
    PRESETS,
    AttentionSpec,
    EncoderSpec,
    FeatureSpec,
    MambaSpec,
    TableEncoder,
    from_dict,
    mixers,
    to_dict,
)

ROOT = Path(__file__).resolve().parents[2]
FRAME = pd.DataFrame({"x": [0.1, 0.7, None], "same": [3.0, 3.0, 3.0], "town": ["Ulm", None, '\x00 ü "日"']})
SPECS = [
    FeatureSpec(3),
    FeatureSpec(0, (10, 500)),
    FeatureSpec(2, (3,), bins=((-1.0, 0.0, 2.0), (0.0, 1.0)), order=(2, 0, 1)),
    *PRESETS.values(),
    EncoderSpec(mixer=AttentionSpec(d_ffn=7, backend="reference"), d_out=3, cls_position="first", dropout=0.25),
    *(EncoderSpec(mixer=mixers.find(name)(), last_layer="full") for name in mixers.NAMES),
    TableEncoder.fit(FRAME, numeric=["x", "same"], categorical=["town"]),
    TableEncoder.fit(FRAME, numeric=["x", "same"], categorical=["town"], scaling="quantile", max_rows=3),
    TableEncoder.fit(FRAME, numeric=["x", "same"], categorical=["town"], n_bins=4),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_there_and_back(spec: Any) -> None:
    text = json.dumps(to_dict(spec), allow_nan=False)
    back = from_dict(type(spec), json.loads(text))
    assert back == spec
    assert not isinstance(spec, EncoderSpec) or type(back.mixer) is type(spec.mixer)


MAMBA = {"mixer": {"name": "mamba"}}
REFUSED = {
    "unknown name": (FeatureSpec, {"n_numeric": 1, "colour": 2}, "'colour'"),
    "missing name": (FeatureSpec, {}, "'n_numeric'"),
    "no dictionary": (FeatureSpec, [1, 2], "FeatureSpec: "),
    "text for a number": (FeatureSpec, {"n_numeric": "1"}, "n_numeric: '1' is not of type int"),
    "truth for a number": (FeatureSpec, {"n_numeric": True}, "n_numeric: True is not of type int"),
    "within a tuple": (FeatureSpec, {"n_numeric": 1, "cardinalities": [2, None]}, "cardinalities: None is not"),
    "refused by the spec": (FeatureSpec, {"n_numeric": 0}, "at least one column"),
    "no such choice": (EncoderSpec, {**MAMBA, "last_layer": "half"}, "last_layer: 'half' is not"),
    "unknown mixer": (EncoderSpec, {"mixer": {"name": "typo"}}, "unknown mixer 'typo'"),
    "mixer without a name": (EncoderSpec, {"mixer": {"d_state": 3}}, "unknown mixer"),
    "parameter of another mixer": (EncoderSpec, {"mixer": {"name": "mamba", "n_heads": 3}}, "'n_heads'"),
    "text for a parameter": (EncoderSpec, {"mixer": {"name": "mamba", "d_state": "3"}}, "d_state: '3' is not"),
    "heads that do not divide": (EncoderSpec, {"mixer": {"name": "attention"}, "d_model": 20}, "not a multiple"),
    "long value": (FeatureSpec, {"n_numeric": "9" * 10_000}, "n_numeric: '99"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_spec_is_refused_in_one_line(case: str) -> None:
    kind, data, words = REFUSED[case]
    with pytest.raises(ValueError, match=r"^\w+Spec: ") as refusal:
        from_dict(kind, data)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_a_mixer_that_cannot_be_found_again_is_refused() -> None:
    class Local(MambaSpec):
        pass

    with pytest.raises(ValueError, match="Local"):
        to_dict(EncoderSpec(mixer=Local()))


def test_specs_load_neither_torch_nor_pandas() -> None:
    program = (
        "import sys; from ftmamba import PRESETS, EncoderSpec, FeatureSpec, encoder_params, from_dict, to_dict;"
        "spec = PRESETS['paper-mamba']; assert from_dict(EncoderSpec, to_dict(spec)) == spec;"
        "encoder_params(spec, FeatureSpec(3)); assert not {'torch', 'pandas', 'numba'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
